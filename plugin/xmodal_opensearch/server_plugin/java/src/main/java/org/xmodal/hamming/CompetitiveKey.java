// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

/**
 * The largest key that can still enter the top hits, and the score of each key (see {@link Distances} for keys).
 *
 * <p>It decreases with the minimum competitive score that the collector sets (Lucene's {@code setMinCompetitiveScore}). The
 * bound is inclusive: a document whose key equals it is collected, and the next sort key decides between ties.
 */
final class CompetitiveKey {
    /**
     * The largest key of a query with weights. The floats 1 / (1 + key) of all keys up to it are distinct, and rounding
     * 1 / score - 1 gives the key.
     */
    static final int MAX = 1 << 23;

    private final float boost;
    private int key;

    /** {@code maxKey}: the largest key that the query matches. */
    CompetitiveKey(float boost, int maxKey) {
        this.boost = boost;
        this.key = maxKey;
    }

    /** boost / (1 + key): for a Hamming distance equal to the score of the k-NN plugin for space type hamming. */
    static float score(int key, float boost) {
        return boost * (1f / (1f + key));
    }

    /** The largest competitive key, inclusive; -1 if no document is competitive. */
    int key() {
        return key;
    }

    float score(int key) {
        return score(key, boost);
    }

    /** Lowers the key to the largest one with a score of at least {@code minScore}. Scores decrease with the key. */
    void lowerTo(float minScore) {
        if (key < 0 || score(key) >= minScore) {
            return;
        }
        int low = -1;
        int high = key;
        while (high - low > 1) {
            int middle = (low + high) >>> 1;
            if (score(middle) >= minScore) {
                low = middle;
            } else {
                high = middle;
            }
        }
        key = low;
    }
}
