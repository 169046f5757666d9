// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/**
 * Conversion of codes to 64-bit words; the last word is padded with zero bits.
 *
 * <p>Words are little-endian. Distances do not depend on the byte order if both codes use the same one.
 */
final class CodeWords {
    private static final VarHandle LONG = MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);

    private CodeWords() {}

    /** Number of words for a code of that many bytes. */
    static int count(int bytes) {
        return (bytes + 7) >>> 3;
    }

    /** Word {@code w} of the code in {@code bytes[offset .. offset + length)}. */
    static long word(byte[] bytes, int offset, int length, int w) {
        int at = w << 3;
        if (at + 8 <= length) {
            return (long) LONG.get(bytes, offset + at);
        }
        long word = 0;
        for (int i = at; i < length; i++) {
            word |= (bytes[offset + i] & 0xFFL) << ((i - at) << 3);
        }
        return word;
    }

    /** All words of a code. */
    static long[] of(byte[] code) {
        long[] words = new long[count(code.length)];
        for (int w = 0; w < words.length; w++) {
            words[w] = word(code, 0, code.length, w);
        }
        return words;
    }
}
