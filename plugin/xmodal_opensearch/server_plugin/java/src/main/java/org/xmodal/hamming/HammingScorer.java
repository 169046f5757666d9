// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;

import org.apache.lucene.search.DocIdSetIterator;
import org.apache.lucene.search.TwoPhaseIterator;
import org.apache.lucene.search.Weight;

/**
 * Scores one document at a time, for a {@code hamming} query that is a clause of another query.
 *
 * <p>Two phases (Lucene's {@link TwoPhaseIterator}): iterating the candidates is cheap; the distance is computed only for
 * documents that match the other clauses.
 */
final class HammingScorer extends Versioned.BaseScorer {
    // Unit of TwoPhaseIterator.matchCost: simple operations; one array read and a few instructions per word.
    private static final float MATCH_COST = 4;

    private final DocIdSetIterator candidates;
    private final CompetitiveKey competitive;
    private final TwoPhaseIterator withinKey;
    private int key;

    HammingScorer(Weight weight, Distances distances, DocIdSetIterator candidates, CompetitiveKey competitive) {
        super(weight);
        this.candidates = candidates;
        this.competitive = competitive;
        withinKey = new TwoPhaseIterator(candidates) {
            @Override
            public boolean matches() throws IOException {
                key = distances.key(approximation.docID());
                return key <= competitive.key();
            }

            @Override
            public float matchCost() {
                return MATCH_COST;
            }
        };
    }

    @Override
    public TwoPhaseIterator twoPhaseIterator() {
        return withinKey;
    }

    @Override
    public DocIdSetIterator iterator() {
        return TwoPhaseIterator.asDocIdSetIterator(withinKey);
    }

    @Override
    public int docID() {
        return candidates.docID();
    }

    @Override
    public float score() {
        return competitive.score(key);
    }

    @Override
    public float getMaxScore(int upTo) {
        return competitive.score(0);
    }

    @Override
    public void setMinCompetitiveScore(float minScore) {
        competitive.lowerTo(minScore);
    }
}
