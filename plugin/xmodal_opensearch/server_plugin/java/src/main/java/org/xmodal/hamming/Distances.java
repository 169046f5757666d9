// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;

/**
 * Distances between the query and the documents of one segment, in order of document number, as keys.
 *
 * <p>A key is the integer by which documents are ranked: the Hamming distance h or, for a query with weights,
 * D * (bits + 1) + h with the weighted distance D, which ranks by (D, h).
 */
interface Distances {
    /** The key of a document without a code; larger than any other. */
    int ABSENT = Integer.MAX_VALUE;

    /** Maximum number of documents of one {@link #block} call; a block of keys fits into the L1 cache. */
    int BLOCK = 1024;

    /**
     * Writes the keys of documents {@code from} to {@code to} (exclusive) to {@code out[0 .. to - from)}.
     *
     * <p>Forward only: {@code from} must not be smaller than the {@code to} of an earlier call.
     */
    void block(int from, int to, int[] out) throws IOException;

    /** The key of one document. Forward only; the same document may be passed repeatedly. */
    int key(int doc) throws IOException;
}
