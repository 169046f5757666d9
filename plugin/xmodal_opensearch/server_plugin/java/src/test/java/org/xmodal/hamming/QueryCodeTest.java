// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Base64;
import java.util.Random;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Decoding of codes and weights, conversion to words, keys and their scores. */
class QueryCodeTest {
    @ParameterizedTest
    @ValueSource(ints = { 1, 2, 8, 9, 12, 64 })
    void hexBase64AndBytesAreTheSameCode(int width) {
        byte[] code = new byte[width];
        new Random(width).nextBytes(code);
        String hex = java.util.HexFormat.of().formatHex(code);
        for (QueryCode given : new QueryCode[] {
            QueryCode.ofText(hex), QueryCode.ofText(hex.toUpperCase(java.util.Locale.ROOT)),
            QueryCode.ofText(Base64.getEncoder().encodeToString(code)), QueryCode.ofBytes(code) }) {
            assertArrayEquals(code, given.decode(width));
        }
        assertEquals(QueryCode.ofBytes(code.clone()), QueryCode.ofBytes(code));
        assertEquals(QueryCode.ofBytes(code.clone()).hashCode(), QueryCode.ofBytes(code).hashCode());
        assertEquals(QueryCode.ofText(hex).hashCode(), QueryCode.ofText(hex).hashCode());
        assertNotEquals(QueryCode.ofBytes(code), QueryCode.ofText(hex));
    }

    @ParameterizedTest
    @CsvSource({ "00ff00, 24 bits as hex", "z!, neither hex nor base64", "'', 0 bits as hex", "AAAA, 16 bits as hex", "////, 24 bits" })
    void otherCodesAreRefused(String text, String reason) {
        int width = text.equals("AAAA") ? 8 : 2;
        Exception refused = assertThrows(IllegalArgumentException.class, () -> QueryCode.ofText(text).decode(width));
        assertTrue(refused.getMessage().contains(reason), refused.getMessage());
    }

    @Test
    void bytesOfAnotherWidthAreRefused() {
        assertThrows(IllegalArgumentException.class, () -> QueryCode.ofBytes(new byte[3]).decode(2));
    }

    @ParameterizedTest
    @CsvSource({ "1, 1", "8, 1", "9, 2", "16, 2", "17, 3" })
    void lastWordIsPaddedWithZeros(int width, int words) {
        byte[] code = new byte[width];
        new Random(3).nextBytes(code);
        long[] found = CodeWords.of(code);
        assertEquals(words, found.length);
        for (int i = 0; i < 8 * words; i++) {
            int expected = i < width ? code[i] & 0xFF : 0;
            assertEquals(expected, (int) (found[i / 8] >>> 8 * (i % 8) & 0xFF));
        }
    }

    @ParameterizedTest
    @CsvSource({ "123, expected 8", "1234567g, position 7", "12345678é, expected 8" })
    void otherWeightsAreRefused(String weights, String reason) {
        Exception refused = assertThrows(IllegalArgumentException.class, () -> new ComparedCode(new byte[1], weights, 8));
        assertTrue(refused.getMessage().contains(reason), refused.getMessage());
    }

    @Test
    void weightsWhoseKeysWouldNotBeDistinctAreRefused() {
        assertThrows(IllegalArgumentException.class, () -> new ComparedCode(new byte[128], "f".repeat(1024), 1024));
        int most = (CompetitiveKey.MAX - 1024) / 1025; // sum of the weights
        StringBuilder weights = new StringBuilder("f".repeat(most / 15)).append(Integer.toHexString(most % 15));
        weights.append("0".repeat(1024 - weights.length()));
        assertTrue(new ComparedCode(new byte[128], weights.toString(), 1024).weighted());
        String larger = weights.substring(0, 1023) + "1";
        assertThrows(IllegalArgumentException.class, () -> new ComparedCode(new byte[128], larger, 1024));
    }

    @Test
    void comparedCodesAreEqualByContent() {
        ComparedCode code = new ComparedCode(new byte[] { 1 }, "12345678", 3);
        assertEquals(code, new ComparedCode(new byte[] { 1 }, "12345678", 3));
        assertEquals(code.hashCode(), new ComparedCode(new byte[] { 1 }, "12345678", 3).hashCode());
        assertNotEquals(code, new ComparedCode(new byte[] { 1 }, "12345679", 3));
        assertNotEquals(code, new ComparedCode(new byte[] { 2 }, "12345678", 3));
        assertNotEquals(code, new ComparedCode(new byte[] { 1 }, "12345678", 4));
        assertEquals("01 weighted 12345678", code.toString());
    }

    @ParameterizedTest
    @ValueSource(floats = { 1f, 0.3f, 7f })
    void competitiveKeyIsTheLargestWithTheScore(float boost) {
        Random random = new Random(5);
        for (int round = 0; round < 200; round++) {
            CompetitiveKey competitive = new CompetitiveKey(boost, 512);
            int key = random.nextInt(512);
            competitive.lowerTo(competitive.score(key));
            assertEquals(key, competitive.key());
            competitive.lowerTo(competitive.score(key)); // no change
            assertEquals(key, competitive.key());
            competitive.lowerTo(Math.nextUp(competitive.score(key)));
            assertEquals(key - 1, competitive.key());
        }
        CompetitiveKey none = new CompetitiveKey(boost, 512);
        none.lowerTo(Math.nextUp(boost));
        assertEquals(-1, none.key());
        none.lowerTo(Math.nextUp(boost));
        assertEquals(-1, none.key());
    }

    @Test
    void scoresOfKeysUpToTheMaximumAreDistinct() {
        for (int key = CompetitiveKey.MAX; key > CompetitiveKey.MAX - 1000; key--) {
            float score = CompetitiveKey.score(key, 1);
            assertEquals(key, Math.round(1.0 / score - 1));
            assertFalse(score == CompetitiveKey.score(key - 1, 1));
        }
    }
}
