// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

/**
 * The largest distance that can still enter the top hits, and the score of each distance.
 *
 * <p>It starts at {@code max_distance} of the query and decreases with the minimum competitive score that the collector sets
 * (Lucene's {@code setMinCompetitiveScore}). The bound is inclusive: a document whose distance equals it is collected, and
 * the next sort key decides between ties.
 */
final class CompetitiveDistance {
    private final float[] scores;
    private int distance;

    /** {@code scores[d]}: score of distance d, for all d from 0 to the number of bits, decreasing. */
    CompetitiveDistance(float[] scores, int maxDistance) {
        this.scores = scores;
        this.distance = maxDistance;
    }

    /** boost / (1 + d) for each distance d, equal to the score of the k-NN plugin for space type hamming. */
    static float[] scores(int bits, float boost) {
        float[] scores = new float[bits + 1];
        for (int d = 0; d <= bits; d++) {
            scores[d] = boost * (1f / (1f + d));
        }
        return scores;
    }

    /** The largest competitive distance, inclusive; -1 if no document is competitive. */
    int distance() {
        return distance;
    }

    float score(int distance) {
        return scores[distance];
    }

    /** Lowers the distance until its score is at least {@code minScore}. */
    void lowerTo(float minScore) {
        while (distance >= 0 && scores[distance] < minScore) {
            distance--;
        }
    }
}
