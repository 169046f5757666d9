// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;

import org.apache.lucene.search.BulkScorer;
import org.apache.lucene.search.DocIdSetIterator;
import org.apache.lucene.search.LeafCollector;
import org.apache.lucene.search.Scorable;
import org.apache.lucene.util.Bits;
import org.apache.lucene.util.FixedBitSet;

/**
 * Scores a segment block by block, {@link Distances#BLOCK} documents at a time.
 *
 * <p>All keys of a block are computed first. A block without a competitive key is skipped; for the others, the filter, the
 * deleted documents and the collector are evaluated for each document with a competitive key.
 *
 * <p>Timeouts and cancellation are handled by the server, which calls {@link #score} for one range of documents at a time
 * and checks both between the ranges.
 */
final class HammingBulkScorer extends BulkScorer {
    // Below this number of filtered documents, a block is scored document by document.
    private static final int MIN_FILTERED = Distances.BLOCK / 16;

    private final Distances distances;
    private final FilterBlock filter;
    private final CompetitiveKey competitive;
    private final int maxDoc;
    private final int[] block = new int[Distances.BLOCK];
    private final Hit hit = new Hit();

    /** {@code filterDocs}: documents that match the filter, or null without a filter. */
    HammingBulkScorer(Distances distances, DocIdSetIterator filterDocs, CompetitiveKey competitive, int maxDoc) {
        this.distances = distances;
        this.filter = filterDocs == null ? null : new FilterBlock(filterDocs);
        this.competitive = competitive;
        this.maxDoc = maxDoc;
    }

    @Override
    public int score(LeafCollector collector, Bits live, int min, int max) throws IOException {
        collector.setScorer(hit);
        int end = Math.min(max, maxDoc);
        int from = min;
        while (from < end) {
            if (competitive.key() < 0) {
                return DocIdSetIterator.NO_MORE_DOCS;
            }
            // Aligned with the blocks of SegmentCodes, so that each block is contiguous in memory.
            int to = Math.min(end, (from / Distances.BLOCK + 1) * Distances.BLOCK);
            if (filter == null) {
                scoreAll(collector, live, from, to);
            } else {
                int next = filter.seek(from);
                if (next >= end) {
                    from = end;
                    break;
                }
                if (next >= to) {
                    from = next / Distances.BLOCK * Distances.BLOCK;
                    continue;
                }
                scoreFiltered(collector, live, from, to);
            }
            from = to;
        }
        return end >= maxDoc ? DocIdSetIterator.NO_MORE_DOCS : Math.max(from, max);
    }

    private void scoreAll(LeafCollector collector, Bits live, int from, int to) throws IOException {
        int n = to - from;
        distances.block(from, to, block);
        if (!Kernels.anyAtMost(block, n, competitive.key())) {
            return;
        }
        for (int i = 0; i < n; i++) {
            if (block[i] <= competitive.key() && (live == null || live.get(from + i))) {
                collect(collector, from + i, block[i]);
            }
        }
    }

    private void scoreFiltered(LeafCollector collector, Bits live, int from, int to) throws IOException {
        FixedBitSet bits = filter.block(from, to);
        int n = to - from;
        boolean few = bits.cardinality() < MIN_FILTERED;
        if (!few) {
            distances.block(from, to, block);
            if (!Kernels.anyAtMost(block, n, competitive.key())) {
                return;
            }
        }
        int i = bits.nextSetBit(0);
        while (i < n) {
            int key = few ? distances.key(from + i) : block[i];
            if (key <= competitive.key() && (live == null || live.get(from + i))) {
                collect(collector, from + i, key);
            }
            i = i + 1 < Distances.BLOCK ? bits.nextSetBit(i + 1) : n;
        }
    }

    private void collect(LeafCollector collector, int doc, int key) throws IOException {
        hit.doc = doc;
        hit.key = key;
        collector.collect(doc);
    }

    @Override
    public long cost() {
        return filter == null ? maxDoc : filter.cost();
    }

    /** The current document, as the collector sees it. */
    private final class Hit extends Scorable {
        private int doc = -1;
        private int key;

        /** Overrides a method of Lucene 9, which Lucene 10 lacks, hence no {@code @Override}. */
        public int docID() {
            return doc;
        }

        @Override
        public float score() {
            return competitive.score(key);
        }

        @Override
        public void setMinCompetitiveScore(float minScore) {
            competitive.lowerTo(minScore);
        }
    }

    /** The documents that match the filter, as a bit set of one block. */
    private static final class FilterBlock {
        private final DocIdSetIterator iterator;
        private final FixedBitSet bits = new FixedBitSet(Distances.BLOCK);

        FilterBlock(DocIdSetIterator iterator) {
            this.iterator = iterator;
        }

        /** The first matching document {@code >= doc}. */
        int seek(int doc) throws IOException {
            int at = iterator.docID();
            return at < doc ? iterator.advance(doc) : at;
        }

        /** Bit i is set if document {@code from + i} matches. Requires a {@link #seek} to {@code from} before. */
        FixedBitSet block(int from, int to) throws IOException {
            bits.clear();
            Versioned.intoBitSet(iterator, to, bits, from);
            return bits;
        }

        long cost() {
            return iterator.cost();
        }
    }
}
