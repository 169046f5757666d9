// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;

import org.apache.lucene.search.DocIdSetIterator;
import org.apache.lucene.search.Scorer;
import org.apache.lucene.search.TwoPhaseIterator;

/**
 * Scores one document at a time, where another clause of a query leads.
 *
 * <p>The candidates are cheap to walk; whether one is near enough is the second phase, asked only when all other
 * clauses have agreed on the document.
 */
final class HammingScorer extends Scorer {
    // In the currency of TwoPhaseIterator.matchCost: an array read and a few instructions a word.
    private static final float COST = 4;

    private final DocIdSetIterator candidates;
    private final CompetitiveDistance limit;
    private final TwoPhaseIterator near;
    private int distance;

    HammingScorer(Distances distances, DocIdSetIterator candidates, CompetitiveDistance limit) {
        this.candidates = candidates;
        this.limit = limit;
        near = new TwoPhaseIterator(candidates) {
            @Override
            public boolean matches() throws IOException {
                distance = distances.at(approximation.docID());
                return distance <= limit.distance();
            }

            @Override
            public float matchCost() {
                return COST;
            }
        };
    }

    @Override
    public TwoPhaseIterator twoPhaseIterator() {
        return near;
    }

    @Override
    public DocIdSetIterator iterator() {
        return TwoPhaseIterator.asDocIdSetIterator(near);
    }

    @Override
    public int docID() {
        return candidates.docID();
    }

    @Override
    public float score() {
        return limit.score(distance);
    }

    @Override
    public float getMaxScore(int upTo) {
        return limit.score(0);
    }

    @Override
    public void setMinCompetitiveScore(float least) {
        limit.lower(least);
    }
}
