// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.Arrays;

import org.apache.lucene.search.DocIdSetIterator;
import org.apache.lucene.util.BytesRef;

/** Reads the codes of one field in one segment into a {@link SegmentCodes}. */
final class SegmentCodesLoader {
    private static final int ARRAY_HEADER_BYTES = 16;

    private SegmentCodesLoader() {}

    /** Bytes on the heap for at most {@code size} codes of {@code width} bytes, computed without reading them. */
    static long bytes(int size, int maxDoc, int width) {
        int words = CodeWords.count(width);
        boolean sparse = isSparse(size, maxDoc);
        long blocks = blocks(sparse ? size : maxDoc);
        long index = sparse ? 4L * size : size < maxDoc ? maxDoc / 8 : 0;
        return blocks * (8L * Distances.BLOCK * words + ARRAY_HEADER_BYTES + 8) + index + 64;
    }

    /** Loads {@code codes}; {@code width}: bytes of a code. A value of another length is skipped. */
    static SegmentCodes load(DocValuesCodes codes, int maxDoc, int width) throws IOException {
        int words = CodeWords.count(width);
        boolean sparse = isSparse(codes.size, maxDoc);
        long[][] blocks = new long[blocks(sparse ? codes.size : maxDoc)][];
        for (int b = 0; b < blocks.length; b++) {
            blocks[b] = new long[Distances.BLOCK * words];
        }
        long[] present = sparse ? null : new long[(maxDoc + 63) >>> 6];
        int[] docs = sparse ? new int[codes.size] : null;
        int count = 0;
        int doc;
        while ((doc = codes.iterator.nextDoc()) != DocIdSetIterator.NO_MORE_DOCS) {
            BytesRef code = codes.code();
            if (code.length != width) {
                continue;
            }
            int ordinal = sparse ? count : doc;
            long[] block = blocks[ordinal / Distances.BLOCK];
            for (int w = 0; w < words; w++) {
                block[w * Distances.BLOCK + ordinal % Distances.BLOCK] = CodeWords.word(code.bytes, code.offset, width, w);
            }
            if (sparse) {
                docs[count] = doc;
            } else {
                present[doc >> 6] |= 1L << doc;
            }
            count++;
        }
        if (sparse && count < docs.length) {
            docs = Arrays.copyOf(docs, count);
        }
        return new SegmentCodes(words, count, count == maxDoc ? null : present, docs, blocks, bytes(codes.size, maxDoc, width));
    }

    private static boolean isSparse(int size, int maxDoc) {
        return size < maxDoc / 2;
    }

    private static int blocks(int codes) {
        return (codes + Distances.BLOCK - 1) / Distances.BLOCK;
    }
}
