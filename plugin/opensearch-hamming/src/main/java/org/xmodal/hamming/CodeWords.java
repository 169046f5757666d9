// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/**
 * Codes as 64-bit words, the last one filled up with zero bits.
 *
 * <p>The order of the bytes in a word does not matter for a distance, as long as both sides use the same.
 */
final class CodeWords {
    private static final VarHandle LONG = MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);

    private CodeWords() {}

    /** How many words hold that many bytes. */
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

    static long[] of(byte[] code) {
        long[] words = new long[count(code.length)];
        for (int w = 0; w < words.length; w++) {
            words[w] = word(code, 0, code.length, w);
        }
        return words;
    }
}
