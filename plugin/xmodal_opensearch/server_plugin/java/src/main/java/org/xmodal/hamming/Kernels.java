// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.util.Arrays;

/**
 * Inner loops over a block of codes in column-major order: the first words of all codes, then the second words, and so on.
 *
 * <p>Each loop reads with stride one and has no branch, so that the JIT compiles it to vector instructions. The common widths
 * have a loop of their own, which keeps the sum in a register.
 */
final class Kernels {
    private Kernels() {}

    /**
     * Sets {@code out[i]} to the distance between {@code query} and the code at {@code first + i}, for i from 0 to n - 1.
     *
     * @param codes word w of code c is {@code codes[w * stride + c]}
     */
    static void distances(long[] codes, int stride, int first, int n, long[] query, int[] out) {
        switch (query.length) {
            case 1 -> one(codes, first, n, query[0], out);
            case 2 -> two(codes, first, first + stride, n, query[0], query[1], out);
            case 4 -> four(codes, stride, first, n, query, out);
            default -> {
                one(codes, first, n, query[0], out);
                for (int w = 1; w < query.length; w++) {
                    add(codes, w * stride + first, n, query[w], out);
                }
            }
        }
    }

    private static void one(long[] codes, int first, int n, long q, int[] out) {
        for (int i = 0; i < n; i++) {
            out[i] = Long.bitCount(codes[first + i] ^ q);
        }
    }

    private static void add(long[] codes, int first, int n, long q, int[] out) {
        for (int i = 0; i < n; i++) {
            out[i] += Long.bitCount(codes[first + i] ^ q);
        }
    }

    private static void two(long[] codes, int a, int b, int n, long q, long r, int[] out) {
        for (int i = 0; i < n; i++) {
            out[i] = Long.bitCount(codes[a + i] ^ q) + Long.bitCount(codes[b + i] ^ r);
        }
    }

    private static void four(long[] codes, int stride, int a, int n, long[] query, int[] out) {
        long q = query[0];
        long r = query[1];
        long s = query[2];
        long t = query[3];
        int b = a + stride;
        int c = b + stride;
        int d = c + stride;
        for (int i = 0; i < n; i++) {
            out[i] = Long.bitCount(codes[a + i] ^ q) + Long.bitCount(codes[b + i] ^ r)
                + Long.bitCount(codes[c + i] ^ s) + Long.bitCount(codes[d + i] ^ t);
        }
    }

    /**
     * Sets {@code out[i]} to D * factor + h of the code at {@code first + i}: D is the sum over p of 2^p times the number of bits
     * in which it differs from {@code query} inside plane p, and h the number of all bits in which it differs.
     *
     * @param planes word w of plane p is {@code planes[p][w]}; there are four planes
     */
    static void weighted(long[] codes, int stride, int first, int n, long[] query, long[][] planes, int factor, int[] out) {
        Arrays.fill(out, 0, n, 0);
        for (int w = 0; w < query.length; w++) {
            addWeighted(
                codes, w * stride + first, n, query[w], planes[0][w], planes[1][w], planes[2][w], planes[3][w], factor, out
            );
        }
    }

    private static void addWeighted(
        long[] codes, int first, int n, long q, long ones, long twos, long fours, long eights, int factor, int[] out
    ) {
        for (int i = 0; i < n; i++) {
            long x = codes[first + i] ^ q;
            int weighted = Long.bitCount(x & ones) + (Long.bitCount(x & twos) << 1) + (Long.bitCount(x & fours) << 2)
                + (Long.bitCount(x & eights) << 3);
            out[i] += weighted * factor + Long.bitCount(x);
        }
    }

    /** Sets {@code out[i]} to {@link Distances#ABSENT} if {@code distances[i]} is more than {@code max}, for i from 0 to n - 1. */
    static void exclude(int[] distances, int n, int max, int[] out) {
        for (int i = 0; i < n; i++) {
            out[i] = distances[i] > max ? Distances.ABSENT : out[i];
        }
    }

    /** Sets {@code out[i]} to the minimum of {@code out[i]} and {@code other[i]}, for i from 0 to n - 1. */
    static void min(int[] other, int n, int[] out) {
        for (int i = 0; i < n; i++) {
            out[i] = Math.min(out[i], other[i]);
        }
    }

    /**
     * Whether one of the first n keys is at most {@code max}; {@code max} is -1 or larger.
     *
     * <p>It combines the signs of differences, which takes a tenth of the time of a minimum.
     */
    static boolean anyAtMost(int[] keys, int n, int max) {
        int signs = 0;
        int above = max + 1;
        for (int i = 0; i < n; i++) {
            signs |= keys[i] - above;
        }
        return signs < 0;
    }
}
