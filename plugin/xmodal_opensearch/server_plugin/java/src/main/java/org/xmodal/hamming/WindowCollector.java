// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.Arrays;
import java.util.Collection;
import java.util.PriorityQueue;

import org.apache.lucene.index.LeafReaderContext;
import org.apache.lucene.search.CollectorManager;
import org.apache.lucene.search.Scorable;
import org.apache.lucene.search.ScoreMode;
import org.apache.lucene.search.SimpleCollector;

/** Collects the documents with the {@code window} highest scores, and all documents that tie with the last of them. */
final class WindowCollector extends SimpleCollector {
    /** Largest number of documents of a window, with those that tie: 8 MB. */
    private static final int MAX_DOCUMENTS = 1_000_000;

    private final int window;
    /** The {@code window} highest scores so far; the lowest of them is its head. */
    private final PriorityQueue<Float> highest = new PriorityQueue<>();
    private int[] docs = new int[64];
    private float[] scores = new float[64];
    private int size;
    private Scorable scorer;
    private int docBase;

    WindowCollector(int window) {
        this.window = window;
    }

    @Override
    public ScoreMode scoreMode() {
        return ScoreMode.TOP_SCORES;
    }

    @Override
    protected void doSetNextReader(LeafReaderContext context) {
        docBase = context.docBase;
    }

    @Override
    public void setScorer(Scorable scorer) throws IOException {
        this.scorer = scorer;
        if (highest.size() == window) {
            scorer.setMinCompetitiveScore(highest.peek());
        }
    }

    @Override
    public void collect(int doc) throws IOException {
        float score = scorer.score();
        if (highest.size() == window && score < highest.peek()) {
            return;
        }
        add(docBase + doc, score);
        if (highest.size() < window) {
            highest.add(score);
        } else if (score > highest.peek()) {
            highest.poll();
            highest.add(score);
        } else {
            return;
        }
        if (highest.size() == window) {
            scorer.setMinCompetitiveScore(highest.peek()); // inclusive: documents that tie are still collected
        }
    }

    private void add(int doc, float score) {
        if (size == docs.length) {
            size = dropBelow(highest.size() == window ? highest.peek() : 0);
            if (size > MAX_DOCUMENTS) {
                throw new IllegalArgumentException(
                    "[" + TwoStageQueryBuilder.NAME + "] more than " + MAX_DOCUMENTS + " documents tie with the last of the window of "
                        + window + ": expected a [first] with more distinct scores"
                );
            }
            if (size > docs.length / 2) {
                docs = Arrays.copyOf(docs, 2 * docs.length);
                scores = Arrays.copyOf(scores, docs.length);
            }
        }
        docs[size] = doc;
        scores[size++] = score;
    }

    /** Removes the documents with a score below {@code lowest}; returns how many are left. */
    private int dropBelow(float lowest) {
        int kept = 0;
        for (int i = 0; i < size; i++) {
            if (scores[i] >= lowest) {
                docs[kept] = docs[i];
                scores[kept++] = scores[i];
            }
        }
        return kept;
    }

    /** One collector per thread of a search. */
    record Manager(int window) implements CollectorManager<WindowCollector, Window> {
        @Override
        public WindowCollector newCollector() {
            return new WindowCollector(window);
        }

        @Override
        public Window reduce(Collection<WindowCollector> collectors) {
            WindowCollector all = new WindowCollector(window);
            PriorityQueue<Float> highest = all.highest;
            for (WindowCollector collector : collectors) {
                for (float score : collector.highest) {
                    highest.add(score);
                    if (highest.size() > window) {
                        highest.poll();
                    }
                }
            }
            for (WindowCollector collector : collectors) {
                for (int i = 0; i < collector.size; i++) {
                    if (highest.size() < window || collector.scores[i] >= highest.peek()) {
                        all.add(collector.docs[i], collector.scores[i]);
                    }
                }
            }
            int[] docs = Arrays.copyOf(all.docs, all.size);
            Arrays.sort(docs);
            return new Window(docs, highest.isEmpty() ? 0 : highest.peek());
        }
    }
}
