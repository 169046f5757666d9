// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.util.Arrays;

/**
 * The documents of a shard that the first stage of a {@link TwoStageQuery} has selected.
 *
 * @param docs their numbers in the shard, ascending
 * @param lowest the lowest of their scores in the first stage; 0 if there is none
 */
record Window(int[] docs, float lowest) {
    /** Position in {@code docs} of the first document {@code >= doc}. */
    int position(int doc) {
        int found = Arrays.binarySearch(docs, doc);
        return found >= 0 ? found : -found - 1;
    }

    boolean contains(int doc) {
        return Arrays.binarySearch(docs, doc) >= 0;
    }
}
