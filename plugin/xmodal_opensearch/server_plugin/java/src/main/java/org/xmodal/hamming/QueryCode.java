// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.util.Arrays;
import java.util.Base64;
import java.util.HexFormat;

/**
 * A code of a query, not yet decoded: text (hex or base64) or signed bytes.
 *
 * <p>Text is decoded when the width of the field is available, because the same text can be both hex and base64:
 * sixteen hexadecimal digits are eight bytes as hex and twelve bytes as base64. The width resolves the ambiguity:
 * for a given number of bytes, padded base64 and hex have different lengths, or the base64 text contains "=".
 */
final class QueryCode {
    private final String text;
    private final byte[] bytes;

    private QueryCode(String text, byte[] bytes) {
        this.text = text;
        this.bytes = bytes;
    }

    static QueryCode ofText(String text) {
        return new QueryCode(text, null);
    }

    static QueryCode ofBytes(byte[] bytes) {
        return new QueryCode(null, bytes);
    }

    /** The text, or null for a code of bytes. */
    String text() {
        return text;
    }

    /** The bytes, or null for a code of text. */
    byte[] bytes() {
        return bytes;
    }

    /** Decodes the code to {@code width} bytes. Throws IllegalArgumentException if the code has another width or format. */
    byte[] decode(int width) {
        byte[] found = bytes;
        if (found == null) {
            if (text.length() == 2 * width && isHex(text)) {
                return HexFormat.of().parseHex(text);
            }
            try {
                found = Base64.getDecoder().decode(text);
            } catch (IllegalArgumentException e) {
                found = null;
            }
            if (found == null || found.length != width) {
                if (isHex(text)) {
                    throw new IllegalArgumentException("code has " + 4 * text.length() + " bits as hex" + expected(width));
                }
                if (found == null) {
                    throw new IllegalArgumentException("code is neither hex nor base64 (with padding)" + expected(width));
                }
            }
        }
        if (found.length != width) {
            throw new IllegalArgumentException("code has " + 8 * found.length + " bits" + expected(width));
        }
        return found;
    }

    private static String expected(int width) {
        return "; the field has " + 8 * width + ": give " + 2 * width + " hexadecimal digits, base64 of " + width
            + " bytes, or " + width + " numbers from -128 to 127";
    }

    private static boolean isHex(String text) {
        return text.chars().allMatch(HexFormat::isHexDigit);
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof QueryCode code && java.util.Objects.equals(text, code.text) && Arrays.equals(bytes, code.bytes);
    }

    @Override
    public int hashCode() {
        return text != null ? text.hashCode() : Arrays.hashCode(bytes);
    }
}
