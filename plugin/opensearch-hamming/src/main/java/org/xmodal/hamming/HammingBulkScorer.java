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
 * Scores a whole segment, block by block: the fast way.
 *
 * <p>Distances of a block are computed at one go, without looking at anything else. Most blocks end there, because
 * none of their distances is within the limit, which falls as the collector fills. Only what is left is held
 * against the filter, the deleted documents and the collector.
 *
 * <p>It keeps no deadline itself: the server calls {@link #score} for one range of documents after the other and
 * asks between them whether the request was cancelled or is out of time.
 */
final class HammingBulkScorer extends BulkScorer {
    // A block with fewer documents that pass the filter is scored document by document.
    private static final int FEW = Distances.BLOCK / 16;

    private final Distances distances;
    private final FilterBlock passing;
    private final CompetitiveDistance limit;
    private final int maxDoc;
    private final int[] block = new int[Distances.BLOCK];
    private final Hit hit = new Hit();

    /** {@code passing}: documents that pass the filter, or null where there is none. */
    HammingBulkScorer(Distances distances, DocIdSetIterator passing, CompetitiveDistance limit, int maxDoc) {
        this.distances = distances;
        this.passing = passing == null ? null : new FilterBlock(passing);
        this.limit = limit;
        this.maxDoc = maxDoc;
    }

    @Override
    public int score(LeafCollector collector, Bits live, int min, int max) throws IOException {
        collector.setScorer(hit);
        int end = Math.min(max, maxDoc);
        int from = min;
        while (from < end) {
            if (limit.distance() < 0) {
                return DocIdSetIterator.NO_MORE_DOCS;
            }
            // Blocks end where the column's do, so that each is one run in memory.
            int to = Math.min(end, (from / Distances.BLOCK + 1) * Distances.BLOCK);
            if (passing == null) {
                scoreAll(collector, live, from, to);
            } else {
                int next = passing.seek(from);
                if (next >= end) {
                    from = end;
                    break;
                }
                if (next >= to) {
                    from = next / Distances.BLOCK * Distances.BLOCK;
                    continue;
                }
                scorePassing(collector, live, from, to);
            }
            from = to;
        }
        return end >= maxDoc ? DocIdSetIterator.NO_MORE_DOCS : Math.max(from, max);
    }

    private void scoreAll(LeafCollector collector, Bits live, int from, int to) throws IOException {
        int n = to - from;
        distances.block(from, to, block);
        if (!Kernels.any(block, n, limit.distance())) {
            return;
        }
        for (int i = 0; i < n; i++) {
            if (block[i] <= limit.distance() && (live == null || live.get(from + i))) {
                collect(collector, from + i, block[i]);
            }
        }
    }

    private void scorePassing(LeafCollector collector, Bits live, int from, int to) throws IOException {
        FixedBitSet bits = passing.block(from, to);
        int n = to - from;
        boolean few = bits.cardinality() < FEW;
        if (!few) {
            distances.block(from, to, block);
            if (!Kernels.any(block, n, limit.distance())) {
                return;
            }
        }
        int i = bits.nextSetBit(0);
        while (i < n) {
            int distance = few ? distances.at(from + i) : block[i];
            if (distance <= limit.distance() && (live == null || live.get(from + i))) {
                collect(collector, from + i, distance);
            }
            i = i + 1 < Distances.BLOCK ? bits.nextSetBit(i + 1) : n;
        }
    }

    private void collect(LeafCollector collector, int doc, int distance) throws IOException {
        hit.distance = distance;
        collector.collect(doc);
    }

    @Override
    public long cost() {
        return passing == null ? maxDoc : passing.cost();
    }

    /** What the collector sees of the document at hand. */
    private final class Hit extends Scorable {
        private int distance;

        @Override
        public float score() {
            return limit.score(distance);
        }

        @Override
        public void setMinCompetitiveScore(float least) {
            limit.lower(least);
        }
    }

    /** The filter's documents as bits, a block at a time. */
    private static final class FilterBlock {
        private final DocIdSetIterator iterator;
        private final FixedBitSet bits = new FixedBitSet(Distances.BLOCK);

        FilterBlock(DocIdSetIterator iterator) {
            this.iterator = iterator;
        }

        /** The first document that passes, from {@code doc} on. */
        int seek(int doc) throws IOException {
            int at = iterator.docID();
            return at < doc ? iterator.advance(doc) : at;
        }

        /** Bit i is set where document {@code from + i} passes. After {@link #seek}. */
        FixedBitSet block(int from, int to) throws IOException {
            bits.clear();
            iterator.intoBitSet(to, bits, from);
            return bits;
        }

        long cost() {
            return iterator.cost();
        }
    }
}
