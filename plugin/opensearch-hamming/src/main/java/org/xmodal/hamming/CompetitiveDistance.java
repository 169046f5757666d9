// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

/**
 * Scores of distances, and the largest distance that still matters.
 *
 * <p>The limit starts at the query's {@code max_distance} and falls as the collector says which score is the least
 * that it can still use. It says so with "or equal" in mind: a document that ties is collected, and the next key of
 * the sort decides, so a limit never loses a tie.
 */
final class CompetitiveDistance {
    private final float[] scores;
    private int distance;

    /** {@code scores[d]} for every distance of the width, falling. */
    CompetitiveDistance(float[] scores, int maxDistance) {
        this.scores = scores;
        this.distance = maxDistance;
    }

    /** 1 / (1 + d), times the boost: as the k-NN plugin scores, so that scores of both compare. */
    static float[] scores(int bits, float boost) {
        float[] scores = new float[bits + 1];
        for (int d = 0; d <= bits; d++) {
            scores[d] = boost * (1f / (1f + d));
        }
        return scores;
    }

    /** No document beyond it is asked for; -1 where none is asked for at all. */
    int distance() {
        return distance;
    }

    float score(int distance) {
        return scores[distance];
    }

    void lower(float leastScore) {
        while (distance >= 0 && scores[distance] < leastScore) {
            distance--;
        }
    }
}
