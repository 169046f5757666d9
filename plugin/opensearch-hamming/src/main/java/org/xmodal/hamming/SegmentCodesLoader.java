// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.Arrays;

import org.apache.lucene.search.DocIdSetIterator;
import org.apache.lucene.util.BytesRef;

/** Reads a segment's codes into a {@link SegmentCodes}. */
final class SegmentCodesLoader {
    private static final int ARRAY = 16;

    private SegmentCodesLoader() {}

    /** What a column of at most {@code size} codes takes of the heap; known before anything is read. */
    static long bytes(int size, int maxDoc, int width) {
        int words = CodeWords.count(width);
        boolean packed = isPacked(size, maxDoc);
        long blocks = blocks(packed ? size : maxDoc);
        long beside = packed ? 4L * size : size < maxDoc ? maxDoc / 8 : 0;
        return blocks * (8L * Distances.BLOCK * words + ARRAY + 8) + beside + 64;
    }

    /** The column of {@code codes}; {@code width} is the bytes of a code. A value of other length counts as absent. */
    static SegmentCodes load(DocValuesCodes codes, int maxDoc, int width) throws IOException {
        int words = CodeWords.count(width);
        boolean packed = isPacked(codes.size, maxDoc);
        long[][] blocks = new long[blocks(packed ? codes.size : maxDoc)][];
        for (int b = 0; b < blocks.length; b++) {
            blocks[b] = new long[Distances.BLOCK * words];
        }
        long[] present = packed ? null : new long[(maxDoc + 63) >>> 6];
        int[] docs = packed ? new int[codes.size] : null;
        int count = 0;
        int doc;
        while ((doc = codes.iterator.nextDoc()) != DocIdSetIterator.NO_MORE_DOCS) {
            BytesRef code = codes.code();
            if (code.length != width) {
                continue;
            }
            int place = packed ? count : doc;
            long[] block = blocks[place / Distances.BLOCK];
            for (int w = 0; w < words; w++) {
                block[w * Distances.BLOCK + place % Distances.BLOCK] = CodeWords.word(code.bytes, code.offset, width, w);
            }
            if (packed) {
                docs[count] = doc;
            } else {
                present[doc >> 6] |= 1L << doc;
            }
            count++;
        }
        if (packed && count < docs.length) {
            docs = Arrays.copyOf(docs, count);
        }
        return new SegmentCodes(words, count, count == maxDoc ? null : present, docs, blocks, bytes(codes.size, maxDoc, width));
    }

    private static boolean isPacked(int size, int maxDoc) {
        return size < maxDoc / 2;
    }

    private static int blocks(int places) {
        return (places + Distances.BLOCK - 1) / Distances.BLOCK;
    }
}
