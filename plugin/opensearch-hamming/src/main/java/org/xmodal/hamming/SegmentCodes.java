// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.util.Arrays;

/**
 * The codes of one field in one segment, in memory and never changed.
 *
 * <p>They lie in blocks of {@link Distances#BLOCK} codes, and in a block plane by plane (see {@link Kernels}). Blocks
 * are small arrays on purpose: a garbage collector moves them easily, and no length ends at 2^31.
 *
 * <p>Where at least half of the documents have a code, its place is the document's number and a bit set tells the
 * gaps; else the codes are packed and their documents are listed beside them.
 */
final class SegmentCodes {
    final int words;
    /** Documents that have a code. */
    final int count;
    /** Of documents with a code, by number; null where all have one or where the codes are packed. */
    private final long[] present;
    /** The documents of packed codes, ascending; null where a code's place is its document. */
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

    /** What it takes of the heap. */
    long bytes() {
        return bytes;
    }

    Distances distances(long[][] queries) {
        return docs == null ? new ByNumber(queries) : new Packed(queries);
    }

    private int distanceOfPlace(int place, long[][] queries) {
        long[] block = blocks[place / Distances.BLOCK];
        int at = place % Distances.BLOCK;
        int least = Distances.ABSENT;
        for (long[] query : queries) {
            int sum = 0;
            for (int w = 0; w < words; w++) {
                sum += Long.bitCount(block[w * Distances.BLOCK + at] ^ query[w]);
            }
            least = Math.min(least, sum);
        }
        return least;
    }

    /** Distances of places {@code from} to {@code to}, which may lie in two blocks; {@code part} is room for one block. */
    private void distancesOfPlaces(int from, int to, long[][] queries, int[] out, int[] part) {
        int n = Math.min(to - from, Distances.BLOCK - from % Distances.BLOCK);
        distancesInBlock(from, n, queries, out, part);
        if (from + n < to) {
            int[] rest = new int[to - from - n];
            distancesInBlock(from + n, rest.length, queries, rest, part);
            System.arraycopy(rest, 0, out, n, rest.length);
        }
    }

    private void distancesInBlock(int from, int n, long[][] queries, int[] out, int[] part) {
        long[] block = blocks[from / Distances.BLOCK];
        int at = from % Distances.BLOCK;
        Kernels.distances(block, Distances.BLOCK, at, n, queries[0], out);
        for (int q = 1; q < queries.length; q++) {
            Kernels.distances(block, Distances.BLOCK, at, n, queries[q], part);
            Kernels.lower(part, n, out);
        }
    }

    private final class ByNumber implements Distances {
        private final long[][] queries;
        private final int[] part = new int[BLOCK];

        ByNumber(long[][] queries) {
            this.queries = queries;
        }

        @Override
        public void block(int from, int to, int[] out) {
            distancesOfPlaces(from, to, queries, out, part);
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
        public int at(int doc) {
            if (present != null && (present[doc >> 6] >>> doc & 1) == 0) {
                return ABSENT;
            }
            return distanceOfPlace(doc, queries);
        }
    }

    private final class Packed implements Distances {
        private final long[][] queries;
        private final int[] found = new int[BLOCK];
        private final int[] part = new int[BLOCK];

        Packed(long[][] queries) {
            this.queries = queries;
        }

        @Override
        public void block(int from, int to, int[] out) {
            Arrays.fill(out, 0, to - from, ABSENT);
            int first = place(from);
            int last = first;
            while (last < docs.length && docs[last] < to) {
                last++;
            }
            if (first == last) {
                return;
            }
            distancesOfPlaces(first, last, queries, found, part);
            for (int place = first; place < last; place++) {
                out[docs[place] - from] = found[place - first];
            }
        }

        @Override
        public int at(int doc) {
            int place = place(doc);
            return place < docs.length && docs[place] == doc ? distanceOfPlace(place, queries) : ABSENT;
        }

        /** Place of the first document that is {@code doc} or later. */
        private int place(int doc) {
            int place = Arrays.binarySearch(docs, doc);
            return place >= 0 ? place : -place - 1;
        }
    }
}
