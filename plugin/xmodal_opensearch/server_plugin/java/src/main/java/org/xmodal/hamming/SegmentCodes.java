// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.util.Arrays;

/**
 * The codes of one field in one segment, in memory. Immutable.
 *
 * <p>Codes are stored in blocks of {@link Distances#BLOCK}, column-major within a block (see {@link Kernels}). The blocks are
 * small arrays, which the garbage collector moves cheaply, and the number of codes is not limited by the length of one array.
 *
 * <p>Two layouts. Dense, if at least half of the documents have a code: the ordinal of a code is the document number, and a
 * bit set marks the documents that have one. Sparse: the codes are packed, with a sorted list of their documents.
 */
final class SegmentCodes {
    /** 64-bit words of a code. */
    final int words;
    /** Number of documents that have a code. */
    final int count;
    /** Dense layout: bit set of the documents with a code, or null if all have one. Null in the sparse layout. */
    private final long[] present;
    /** Sparse layout: the documents with a code, ascending. Null in the dense layout. */
    private final int[] docs;
    private final long[][] blocks;
    private final long bytes;

    SegmentCodes(int words, int count, long[] present, int[] docs, long[][] blocks, long bytes) {
        this.words = words;
        this.count = count;
        this.present = present;
        this.docs = docs;
        this.blocks = blocks;
        this.bytes = bytes;
    }

    /** Bytes on the heap. */
    long bytes() {
        return bytes;
    }

    Distances distances(ComparedCode[] queries) {
        return docs == null ? new Dense(queries) : new Sparse(queries);
    }

    private int keyOfOrdinal(int ordinal, ComparedCode[] queries) {
        long[] block = blocks[ordinal / Distances.BLOCK];
        int at = ordinal % Distances.BLOCK;
        int min = Distances.ABSENT;
        for (ComparedCode query : queries) {
            min = Math.min(min, query.key(block, Distances.BLOCK, at));
        }
        return min;
    }

    /** Keys of ordinals {@code from} to {@code to} (exclusive), in at most two blocks. {@code scratch} has one block. */
    private void keysOfOrdinals(int from, int to, ComparedCode[] queries, int[] out, int[] scratch) {
        int n = Math.min(to - from, Distances.BLOCK - from % Distances.BLOCK);
        keysInBlock(from, n, queries, out, scratch);
        if (from + n < to) {
            int[] rest = new int[to - from - n];
            keysInBlock(from + n, rest.length, queries, rest, scratch);
            System.arraycopy(rest, 0, out, n, rest.length);
        }
    }

    private void keysInBlock(int from, int n, ComparedCode[] queries, int[] out, int[] scratch) {
        long[] block = blocks[from / Distances.BLOCK];
        int at = from % Distances.BLOCK;
        queries[0].keys(block, Distances.BLOCK, at, n, out);
        for (int q = 1; q < queries.length; q++) {
            queries[q].keys(block, Distances.BLOCK, at, n, scratch);
            Kernels.min(scratch, n, out);
        }
    }

    private final class Dense implements Distances {
        private final ComparedCode[] queries;
        private final int[] scratch = new int[BLOCK];

        Dense(ComparedCode[] queries) {
            this.queries = queries;
        }

        @Override
        public void block(int from, int to, int[] out) {
            keysOfOrdinals(from, to, queries, out, scratch);
            if (present == null) {
                return;
            }
            for (int w = from >> 6; w <= (to - 1) >> 6; w++) {
                for (long gaps = ~present[w]; gaps != 0; gaps &= gaps - 1) {
                    int doc = (w << 6) + Long.numberOfTrailingZeros(gaps);
                    if (doc >= from && doc < to) {
                        out[doc - from] = ABSENT;
                    }
                }
            }
        }

        @Override
        public int key(int doc) {
            if (present != null && (present[doc >> 6] >>> doc & 1) == 0) {
                return ABSENT;
            }
            return keyOfOrdinal(doc, queries);
        }
    }

    private final class Sparse implements Distances {
        private final ComparedCode[] queries;
        private final int[] found = new int[BLOCK];
        private final int[] scratch = new int[BLOCK];

        Sparse(ComparedCode[] queries) {
            this.queries = queries;
        }

        @Override
        public void block(int from, int to, int[] out) {
            Arrays.fill(out, 0, to - from, ABSENT);
            int first = ordinal(from);
            int last = first;
            while (last < docs.length && docs[last] < to) {
                last++;
            }
            if (first == last) {
                return;
            }
            keysOfOrdinals(first, last, queries, found, scratch);
            for (int ordinal = first; ordinal < last; ordinal++) {
                out[docs[ordinal] - from] = found[ordinal - first];
            }
        }

        @Override
        public int key(int doc) {
            int ordinal = ordinal(doc);
            return ordinal < docs.length && docs[ordinal] == doc ? keyOfOrdinal(ordinal, queries) : ABSENT;
        }

        /** Ordinal of the first document {@code >= doc}. */
        private int ordinal(int doc) {
            int found = Arrays.binarySearch(docs, doc);
            return found >= 0 ? found : -found - 1;
        }
    }
}
