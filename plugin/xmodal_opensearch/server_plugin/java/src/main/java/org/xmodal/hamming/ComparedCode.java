// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.util.Arrays;
import java.util.HexFormat;
import java.util.Objects;

/**
 * A decoded code of a query, and the weights of its bits if it has any. Immutable.
 *
 * <p>The weighted distance D is the sum of the weights of the bits that differ. Weights have four bits. Plane p has the code's
 * bits whose weight has bit p, so that D is the sum over p of 2^p times the number of differing bits in plane p.
 */
final class ComparedCode {
    private static final int PLANES = 4;

    final byte[] code;
    /** One hexadecimal digit per bit, most significant bit of the first byte first; null without weights. */
    private final String weights;
    private final int maxDistance;
    private final long[] words;
    private final long[][] planes;

    /**
     * @param weights one hexadecimal digit per bit, or null
     * @param maxDistance largest Hamming distance of a code that has a key; applied here to codes with weights only, as the
     *     key of others is their Hamming distance
     * @throws IllegalArgumentException if the weights are no hexadecimal digits, have another number, or are too large for a key
     */
    ComparedCode(byte[] code, String weights, int maxDistance) {
        this.code = code;
        this.weights = weights;
        this.maxDistance = maxDistance;
        words = CodeWords.of(code);
        planes = weights == null ? null : planes(weights, bits());
    }

    private static long[][] planes(String weights, int bits) {
        if (weights.length() != bits) {
            throw new IllegalArgumentException(
                "[weights] has " + weights.length() + " digits, expected " + bits + ": one per bit of the code"
            );
        }
        byte[][] planes = new byte[PLANES][bits / 8];
        int sum = 0;
        for (int bit = 0; bit < bits; bit++) {
            if (!HexFormat.isHexDigit(weights.charAt(bit))) {
                throw new IllegalArgumentException(
                    "[weights] has [" + weights.charAt(bit) + "] at position " + bit + ", expected hexadecimal digits"
                );
            }
            int weight = HexFormat.fromHexDigit(weights.charAt(bit));
            sum += weight;
            for (int p = 0; p < PLANES; p++) {
                planes[p][bit / 8] |= (byte) ((weight >>> p & 1) << 7 - bit % 8);
            }
        }
        int most = (CompetitiveKey.MAX - bits) / (bits + 1);
        if (sum > most) {
            throw new IllegalArgumentException("[weights] have the sum " + sum + ", expected at most " + most + " with " + bits + " bits");
        }
        return Arrays.stream(planes).map(CodeWords::of).toArray(long[][]::new);
    }

    int bits() {
        return 8 * code.length;
    }

    boolean weighted() {
        return planes != null;
    }

    /** The Hamming distance to the code in {@code bytes[offset .. offset + length)}, of the same length as this code. */
    int hamming(byte[] bytes, int offset) {
        int sum = 0;
        for (int w = 0; w < words.length; w++) {
            sum += Long.bitCount(CodeWords.word(bytes, offset, code.length, w) ^ words[w]);
        }
        return sum;
    }

    /** The weighted distance to the code at {@code offset}; requires weights. */
    int weighted(byte[] bytes, int offset) {
        int sum = 0;
        for (int w = 0; w < words.length; w++) {
            sum += weighted(CodeWords.word(bytes, offset, code.length, w) ^ words[w], w);
        }
        return sum;
    }

    private int weighted(long differing, int w) {
        int sum = 0;
        for (int p = 0; p < PLANES; p++) {
            sum += Long.bitCount(differing & planes[p][w]) << p;
        }
        return sum;
    }

    /** The key of the code at {@code offset}. */
    int key(byte[] bytes, int offset) {
        return key(weighted() ? weighted(bytes, offset) : 0, hamming(bytes, offset));
    }

    /** The key of a code whose word w is {@code codes[w * stride + at]}. */
    int key(long[] codes, int stride, int at) {
        int weighted = 0;
        int hamming = 0;
        for (int w = 0; w < words.length; w++) {
            long differing = codes[w * stride + at] ^ words[w];
            hamming += Long.bitCount(differing);
            weighted += weighted() ? weighted(differing, w) : 0;
        }
        return key(weighted, hamming);
    }

    private int key(int weighted, int hamming) {
        if (!weighted()) {
            return hamming;
        }
        return hamming > maxDistance ? Distances.ABSENT : weighted * (bits() + 1) + hamming;
    }

    /** Sets {@code out[i]} to the key of the code at {@code first + i}, for i from 0 to n - 1; see {@link #key(long[], int, int)}. */
    void keys(long[] codes, int stride, int first, int n, int[] out) {
        if (!weighted()) {
            Kernels.distances(codes, stride, first, n, words, out);
            return;
        }
        Kernels.weighted(codes, stride, first, n, words, planes, bits() + 1, out);
        if (maxDistance < bits()) {
            int[] distances = new int[n];
            Kernels.distances(codes, stride, first, n, words, distances);
            Kernels.exclude(distances, n, maxDistance, out);
        }
    }

    @Override
    public String toString() {
        return HexFormat.of().formatHex(code) + (weighted() ? " weighted " + weights : "");
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof ComparedCode that && Arrays.equals(code, that.code) && maxDistance == that.maxDistance
            && Objects.equals(weights, that.weights);
    }

    @Override
    public int hashCode() {
        return Objects.hash(Arrays.hashCode(code), weights, maxDistance);
    }
}
