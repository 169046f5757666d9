// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;

/** The distances of one segment's documents from the query, in order of document number. */
interface Distances {
    /** The distance of a document that has no code: beyond every limit. */
    int ABSENT = Integer.MAX_VALUE;

    /** Most documents that one call of {@link #block} may ask for. Small enough for the first cache of a core. */
    int BLOCK = 1024;

    /**
     * Write the distances of documents {@code from} to {@code to} (exclusive) to {@code out[0 .. to - from)}.
     *
     * <p>Calls go forward only: no document is asked for after a later one.
     */
    void block(int from, int to, int[] out) throws IOException;

    /** The distance of one document. Forward only, too; the same document may be asked for again. */
    int at(int doc) throws IOException;
}
