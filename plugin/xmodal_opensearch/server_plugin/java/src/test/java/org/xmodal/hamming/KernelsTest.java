// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.Arrays;
import java.util.Random;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The loops over blocks of codes, compared with a count of single bits. */
class KernelsTest {
    private static final int STRIDE = 37;
    private static final int FIRST = 3;
    private static final int COUNT = 29;
    private static final int UNTOUCHED = -7;

    private final Random random = new Random(11);

    private static boolean bit(long word, int at) {
        return (word >>> at & 1) == 1;
    }

    /** For each code of the block: the sum of the weights of the bits in which it differs from the query. */
    private static int[] naive(long[] codes, long[] query, int[] weights) {
        int[] sums = new int[COUNT];
        for (int i = 0; i < COUNT; i++) {
            for (int at = 0; at < 64 * query.length; at++) {
                long code = codes[at / 64 * STRIDE + FIRST + i];
                sums[i] += bit(code, at % 64) != bit(query[at / 64], at % 64) ? weights[at] : 0;
            }
        }
        return sums;
    }

    private int[] output() {
        int[] out = new int[COUNT + 1];
        Arrays.fill(out, UNTOUCHED);
        return out;
    }

    private static void assertKeys(int[] expected, int[] out) {
        assertArrayEquals(expected, Arrays.copyOf(out, COUNT));
        assertEquals(UNTOUCHED, out[COUNT]);
    }

    @ParameterizedTest
    @ValueSource(ints = { 1, 2, 3, 4, 5, 8 })
    void distancesAreTheNumberOfDifferingBits(int words) {
        long[] codes = random.longs((long) words * STRIDE).toArray();
        long[] query = random.longs(words).toArray();
        int[] ones = new int[64 * words];
        Arrays.fill(ones, 1);
        int[] out = output();
        Kernels.distances(codes, STRIDE, FIRST, COUNT, query, out);
        assertKeys(naive(codes, query, ones), out);
    }

    @ParameterizedTest
    @ValueSource(ints = { 1, 2, 4 })
    void weightedKeysAreWeightedDistanceTimesFactorPlusDistance(int words) {
        long[] codes = random.longs((long) words * STRIDE).toArray();
        long[] query = random.longs(words).toArray();
        int[] ones = new int[64 * words];
        Arrays.fill(ones, 1);
        int[] weights = random.ints(64L * words, 0, 16).toArray();
        long[][] planes = new long[4][words];
        for (int at = 0; at < weights.length; at++) {
            for (int p = 0; p < 4; p++) {
                planes[p][at / 64] |= (long) (weights[at] >>> p & 1) << at % 64;
            }
        }
        int factor = 64 * words + 1;
        int[] distances = naive(codes, query, ones);
        int[] expected = naive(codes, query, weights);
        for (int i = 0; i < COUNT; i++) {
            expected[i] = expected[i] * factor + distances[i];
        }
        int[] out = output();
        Kernels.weighted(codes, STRIDE, FIRST, COUNT, query, planes, factor, out);
        assertKeys(expected, out);
    }

    @Test
    void excludeMarksDistancesAboveTheMaximum() {
        int[] out = { 10, 11, 12, 13 };
        Kernels.exclude(new int[] { 4, 5, 6, 7 }, 3, 5, out);
        assertArrayEquals(new int[] { 10, 11, Distances.ABSENT, 13 }, out);
    }

    @Test
    void minKeepsTheSmallerKey() {
        int[] out = { 1, 5, 7, 9 };
        Kernels.min(new int[] { 2, 4, Distances.ABSENT, 0 }, 3, out);
        assertArrayEquals(new int[] { 1, 4, 7, 9 }, out);
    }

    @Test
    void anyAtMostIsInclusiveAndReadsTheFirstKeysOnly() {
        int[] keys = { 9, 5, Distances.ABSENT, 1 };
        assertEquals(true, Kernels.anyAtMost(keys, 3, 5));
        assertEquals(false, Kernels.anyAtMost(keys, 3, 4));
        assertEquals(true, Kernels.anyAtMost(keys, 4, 1));
        assertEquals(false, Kernels.anyAtMost(keys, 4, 0));
        assertEquals(false, Kernels.anyAtMost(new int[] { 0 }, 1, -1));
        assertEquals(true, Kernels.anyAtMost(new int[] { 0 }, 1, 0));
        assertEquals(false, Kernels.anyAtMost(keys, 0, 100));
    }
}
