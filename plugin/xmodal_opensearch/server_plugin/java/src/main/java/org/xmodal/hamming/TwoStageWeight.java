// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;

import org.apache.lucene.index.LeafReaderContext;
import org.apache.lucene.search.DocIdSetIterator;
import org.apache.lucene.search.Explanation;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.ScoreMode;
import org.apache.lucene.search.Scorer;
import org.apache.lucene.search.ScorerSupplier;
import org.apache.lucene.search.TwoPhaseIterator;
import org.apache.lucene.search.Weight;

/** Weight of a {@link TwoStageQuery} whose first stage has been searched. */
final class TwoStageWeight extends Versioned.BaseWeight {
    private final TwoStageQuery query;
    private final IndexSearcher searcher;
    private final Window window;
    /** Weight of the second stage, or null if no scores are needed. */
    private final Weight second;

    TwoStageWeight(TwoStageQuery query, IndexSearcher searcher, Window window, Weight second) {
        super(query);
        this.query = query;
        this.searcher = searcher;
        this.window = window;
        this.second = second;
    }

    @Override
    public ScorerSupplier scorerSupplier(LeafReaderContext context) throws IOException {
        int size = count(context);
        if (size == 0) {
            return null;
        }
        ScorerSupplier scoring = second == null ? null : second.scorerSupplier(context);
        return new ScorerSupplier() {
            @Override
            public Scorer get(long leadCost) throws IOException {
                Documents documents = new Documents(window, context);
                return new StageScorer(TwoStageWeight.this, documents, scoring == null ? null : scoring.get(Math.min(leadCost, size)));
            }

            @Override
            public long cost() {
                return size;
            }
        };
    }

    /** The number of documents of the window in a segment; none of them is deleted. */
    @Override
    public int count(LeafReaderContext context) {
        return window.position(context.docBase + context.reader().maxDoc()) - window.position(context.docBase);
    }

    @Override
    public Explanation explain(LeafReaderContext context, int doc) throws IOException {
        Query filtered = searcher.rewrite(query.filtered());
        Explanation first = searcher.createWeight(filtered, ScoreMode.COMPLETE, 1).explain(context, doc);
        if (!window.contains(context.docBase + doc)) {
            return Explanation.noMatch(
                "not in the window of " + window.docs().length + " documents with a score of at least " + window.lowest()
                    + " in the first stage", first
            );
        }
        if (second == null) {
            return Explanation.match(0, "in the window of the first stage, without scores", first);
        }
        Explanation scored = second.explain(context, doc);
        String found = ", among the " + window.docs().length + " documents of the first stage; first and second stage:";
        return scored.isMatch()
            ? Explanation.match(scored.getValue(), "score of the second stage" + found, first, scored)
            : Explanation.match(0, "0, as the second stage does not match" + found, first, scored);
    }

    /** False: which documents of a segment match depends on the other segments. */
    @Override
    public boolean isCacheable(LeafReaderContext context) {
        return false;
    }

    /** Iterator over the documents of the window in one segment. */
    private static final class Documents extends DocIdSetIterator {
        private final Window window;
        private final int docBase;
        private final int end;
        private final long cost;
        private int next;
        private int doc = -1;

        Documents(Window window, LeafReaderContext context) {
            this.window = window;
            docBase = context.docBase;
            next = window.position(docBase);
            end = window.position(docBase + context.reader().maxDoc());
            cost = end - next;
        }

        @Override
        public int docID() {
            return doc;
        }

        @Override
        public int nextDoc() {
            doc = next < end ? window.docs()[next++] - docBase : NO_MORE_DOCS;
            return doc;
        }

        @Override
        public int advance(int target) {
            next = target == NO_MORE_DOCS ? end : Math.max(next, window.position(docBase + target));
            return nextDoc();
        }

        @Override
        public long cost() {
            return cost;
        }
    }

    /** Scores the documents of the window; advances the scorer of the second stage to each. */
    private static final class StageScorer extends Versioned.BaseScorer {
        private final Documents documents;
        /** Null if the second stage matches no document of the segment, or no scores are needed. */
        private final Scorer second;
        private final TwoPhaseIterator twoPhase;
        private final DocIdSetIterator approximation;
        private int scored = -1;
        private float score;

        StageScorer(Weight weight, Documents documents, Scorer second) {
            super(weight);
            this.documents = documents;
            this.second = second;
            twoPhase = second == null ? null : second.twoPhaseIterator();
            approximation = twoPhase != null ? twoPhase.approximation() : second == null ? DocIdSetIterator.empty() : second.iterator();
        }

        @Override
        public DocIdSetIterator iterator() {
            return documents;
        }

        @Override
        public int docID() {
            return documents.docID();
        }

        /** May be called several times for a document; {@code TwoPhaseIterator.matches} must be called once. */
        @Override
        public float score() throws IOException {
            int doc = documents.docID();
            if (scored != doc) {
                int at = approximation.docID() < doc ? approximation.advance(doc) : approximation.docID();
                score = at == doc && (twoPhase == null || twoPhase.matches()) ? second.score() : 0;
                scored = doc;
            }
            return score;
        }

        @Override
        public float getMaxScore(int upTo) {
            return Float.MAX_VALUE;
        }
    }
}
