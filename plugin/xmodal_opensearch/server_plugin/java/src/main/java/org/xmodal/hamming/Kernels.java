// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

/**
 * The inner loops: distances of a run of codes that lie word by word ("planes": first the first words of all).
 *
 * <p>Each loop reads with stride one and has no branch, which is what lets the JIT turn it into vector
 * instructions by itself. One loop per common width, because a sum in a register beats a sum in memory.
 */
final class Kernels {
    private Kernels() {}

    /**
     * Set {@code out[i]} to the distance between {@code query} and the code at {@code first + i}, i below n.
     *
     * @param planes word w of code c is {@code planes[w * stride + c]}
     */
    static void distances(long[] planes, int stride, int first, int n, long[] query, int[] out) {
        switch (query.length) {
            case 1 -> one(planes, first, n, query[0], out);
            case 2 -> two(planes, first, first + stride, n, query[0], query[1], out);
            case 4 -> four(planes, stride, first, n, query, out);
            default -> {
                one(planes, first, n, query[0], out);
                for (int w = 1; w < query.length; w++) {
                    add(planes, w * stride + first, n, query[w], out);
                }
            }
        }
    }

    private static void one(long[] planes, int first, int n, long q, int[] out) {
        for (int i = 0; i < n; i++) {
            out[i] = Long.bitCount(planes[first + i] ^ q);
        }
    }

    private static void add(long[] planes, int first, int n, long q, int[] out) {
        for (int i = 0; i < n; i++) {
            out[i] += Long.bitCount(planes[first + i] ^ q);
        }
    }

    private static void two(long[] planes, int a, int b, int n, long q, long r, int[] out) {
        for (int i = 0; i < n; i++) {
            out[i] = Long.bitCount(planes[a + i] ^ q) + Long.bitCount(planes[b + i] ^ r);
        }
    }

    private static void four(long[] planes, int stride, int a, int n, long[] query, int[] out) {
        long q = query[0];
        long r = query[1];
        long s = query[2];
        long t = query[3];
        int b = a + stride;
        int c = b + stride;
        int d = c + stride;
        for (int i = 0; i < n; i++) {
            out[i] = Long.bitCount(planes[a + i] ^ q) + Long.bitCount(planes[b + i] ^ r)
                + Long.bitCount(planes[c + i] ^ s) + Long.bitCount(planes[d + i] ^ t);
        }
    }

    /** Lower {@code out[i]} to {@code other[i]}, i below n. */
    static void lower(int[] other, int n, int[] out) {
        for (int i = 0; i < n; i++) {
            out[i] = Math.min(out[i], other[i]);
        }
    }

    /**
     * Whether one of the first n is at most {@code limit}, which is -1 or more.
     *
     * <p>It gathers signs of differences; the least of all would say the same and takes ten times as long.
     */
    static boolean any(int[] distances, int n, int limit) {
        int signs = 0;
        int above = limit + 1;
        for (int i = 0; i < n; i++) {
            signs |= distances[i] - above;
        }
        return signs < 0;
    }
}
