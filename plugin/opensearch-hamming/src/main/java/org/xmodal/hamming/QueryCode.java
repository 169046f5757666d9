// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.util.Arrays;
import java.util.Base64;
import java.util.HexFormat;

/**
 * A code as the request gave it: text (hex or base64) or signed bytes.
 *
 * <p>Text is decoded only once the width of the field is known. Sixteen hexadecimal digits are eight bytes, but
 * they are also good base64 for twelve; with the width there is no doubt, because base64 is asked for with its
 * padding and then never has as many characters as hex for the same bytes, except where it must contain an "=".
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

    /** The text, or null where bytes were given. */
    String text() {
        return text;
    }

    /** The bytes, or null where text was given. */
    byte[] bytes() {
        return bytes;
    }

    /** The code's bytes for a field of that many. Throws IllegalArgumentException, with the reason, if it has others. */
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
                    throw new IllegalArgumentException("code has " + 4 * text.length() + " bits as hex" + wanted(width));
                }
                if (found == null) {
                    throw new IllegalArgumentException("code is neither hex nor base64 (with padding)" + wanted(width));
                }
            }
        }
        if (found.length != width) {
            throw new IllegalArgumentException("code has " + 8 * found.length + " bits" + wanted(width));
        }
        return found;
    }

    private static String wanted(int width) {
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
