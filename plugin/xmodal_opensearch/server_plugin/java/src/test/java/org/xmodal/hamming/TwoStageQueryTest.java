// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.Term;
import org.apache.lucene.search.BooleanClause.Occur;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.ConstantScoreQuery;
import org.apache.lucene.search.Explanation;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.MatchAllDocsQuery;
import org.apache.lucene.search.MatchNoDocsQuery;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.QueryVisitor;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.search.TermQuery;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** {@link TwoStageQuery} with a {@link CosineQuery} as its second stage, on real Lucene segments. */
class TwoStageQueryTest {
    private static final int ALL = 100_000;
    private static final Query TAG = new TermQuery(new Term("tag", TestShard.RED));

    private static Query nearest(TestShard shard, byte[] code) {
        ComparedCode[] codes = { new ComparedCode(code, null, 8 * shard.width) };
        return new HammingQuery(shard.service, new String[] { TestShard.IMAGE }, shard.width, codes, 8 * shard.width, null);
    }

    private static float cosine(byte[] a, byte[] b) {
        double dot = 0;
        double as = 0;
        double bs = 0;
        for (int i = 0; i < a.length; i++) {
            dot += a[i] * b[i];
            as += a[i] * a[i];
            bs += b[i] * b[i];
        }
        return (float) ((1 + (as * bs == 0 ? 0 : dot / Math.sqrt(as * bs))) / 2);
    }

    /** Scores by id: those of the window of the first stage, with the cosine of the field TEXT as the second. */
    private static Map<String, Float> expected(TestShard shard, byte[] code, byte[] vector, int window, boolean red) {
        TreeMap<Integer, Map<String, Float>> byDistance = new TreeMap<>();
        shard.documents.forEach((id, stored) -> {
            byte[] image = stored.codes().get(TestShard.IMAGE);
            if (image != null && (!red || stored.tag().equals(TestShard.RED))) {
                int distance = new ComparedCode(code, null, 8 * code.length).hamming(image, 0);
                byte[] text = stored.codes().get(TestShard.TEXT);
                byDistance.computeIfAbsent(distance, d -> new HashMap<>()).put(id, text == null ? 0 : cosine(vector, text));
            }
        });
        Map<String, Float> found = new HashMap<>();
        for (Map<String, Float> tied : byDistance.values()) {
            if (found.size() < window) {
                found.putAll(tied);
            }
        }
        return found;
    }

    private static Map<String, Float> found(IndexSearcher searcher, Query query) throws IOException {
        Map<String, Float> found = new HashMap<>();
        for (ScoreDoc hit : searcher.search(query, ALL).scoreDocs) {
            found.put(searcher.storedFields().document(hit.doc).get("id"), hit.score);
        }
        return found;
    }

    @ParameterizedTest
    @EnumSource
    void scoresTheWindowAndItsTies(TestShard.Storage storage) throws IOException {
        try (TestShard shard = new TestShard(4, storage)) {
            shard.add(0, 700);
            shard.add(700, 900);
            shard.add(50, 90);
            try (DirectoryReader reader = shard.open()) {
                IndexSearcher searcher = new IndexSearcher(reader);
                for (int window : new int[] { 1, 10, 300, 10_000 }) {
                    byte[] code = shard.code();
                    byte[] vector = shard.code();
                    CosineQuery second = new CosineQuery(TestShard.TEXT, vector, null);
                    TwoStageQuery query = new TwoStageQuery(nearest(shard, code), second, window);
                    Map<String, Float> expected = expected(shard, code, vector, window, false);
                    assertEquals(expected, found(searcher, query));
                    assertEquals(expected.size(), searcher.count(query));
                    // A filter of an alias applies before the window is taken.
                    TwoStageQuery limited = new TwoStageQuery(nearest(shard, code), second, window);
                    limited.limitTo(TAG);
                    assertEquals(expected(shard, code, vector, window, true), found(searcher, limited));
                    // Another clause beside the query removes documents of the window.
                    Query both = new BooleanQuery.Builder().add(query, Occur.MUST).add(TAG, Occur.FILTER).build();
                    Map<String, Float> red = new HashMap<>(expected);
                    red.keySet().removeIf(id -> !shard.documents.get(id).tag().equals(TestShard.RED));
                    assertEquals(red, found(searcher, both));
                    for (ScoreDoc hit : searcher.search(new MatchAllDocsQuery(), 40).scoreDocs) {
                        Float score = expected.get(searcher.storedFields().document(hit.doc).get("id"));
                        Explanation explained = searcher.explain(query, hit.doc);
                        assertEquals(score != null, explained.isMatch());
                        assertEquals(score == null ? 0f : score, explained.getValue().floatValue());
                    }
                }
            }
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = { false, true })
    void cosineIsScoredUnderAFilter(boolean filtered) throws IOException {
        try (TestShard shard = new TestShard(4, TestShard.Storage.DOC_VALUES)) {
            shard.add(0, 300);
            try (DirectoryReader reader = shard.open()) {
                IndexSearcher searcher = new IndexSearcher(reader);
                byte[] vector = { 1, -2, 3, 0 };
                CosineQuery query = new CosineQuery(TestShard.IMAGE, vector, filtered ? TAG : null);
                Map<String, Float> expected = new HashMap<>();
                shard.documents.forEach((id, stored) -> {
                    byte[] code = stored.codes().get(TestShard.IMAGE);
                    if (code != null && (!filtered || stored.tag().equals(TestShard.RED))) {
                        expected.put(id, cosine(vector, code));
                    }
                });
                assertEquals(expected, found(searcher, query));
                assertEquals(0, searcher.search(new CosineQuery("none", vector, null), 3).scoreDocs.length);
                assertFalse(searcher.explain(new CosineQuery("none", vector, null), 0).isMatch());
                for (int doc = 0; doc < 50; doc++) {
                    String id = searcher.storedFields().document(doc).get("id");
                    assertEquals(expected.containsKey(id), searcher.explain(query, doc).isMatch());
                }
                CosineQuery same = new CosineQuery(TestShard.IMAGE, vector.clone(), filtered ? TAG : null);
                assertEquals(query, same);
                assertEquals(query.hashCode(), same.hashCode());
                assertNotEquals(query, new CosineQuery(TestShard.TEXT, vector, same.filter));
                assertTrue(searcher.rewrite(new CosineQuery(TestShard.IMAGE, vector, new MatchNoDocsQuery())) instanceof MatchNoDocsQuery);
            }
        }
    }

    @Test
    void queryIsEqualByContentAndRewritesItsStages() throws IOException {
        try (TestShard shard = new TestShard(4, TestShard.Storage.DOC_VALUES)) {
            shard.add(0, 5);
            try (DirectoryReader reader = shard.open()) {
                IndexSearcher searcher = new IndexSearcher(reader);
                Query first = nearest(shard, new byte[4]);
                TwoStageQuery query = new TwoStageQuery(first, TAG, 3);
                assertEquals(query, new TwoStageQuery(nearest(shard, new byte[4]), TAG, 3));
                assertEquals(query.hashCode(), new TwoStageQuery(nearest(shard, new byte[4]), TAG, 3).hashCode());
                for (Query other : List.of(new TwoStageQuery(TAG, TAG, 3), new TwoStageQuery(first, first, 3), new TwoStageQuery(first, TAG, 4))) {
                    assertNotEquals(query, other);
                }
                assertEquals(query, searcher.rewrite(query));
                assertTrue(searcher.rewrite(new TwoStageQuery(new MatchNoDocsQuery(), TAG, 3)) instanceof MatchNoDocsQuery);
                Query boxed = new BooleanQuery.Builder().add(first, Occur.MUST).build();
                assertEquals(query, searcher.rewrite(new TwoStageQuery(boxed, TAG, 3)));
                assertTrue(query.toString().startsWith("two_stage(hamming(image ~ 00000000), best 3 by tag:red"), query.toString());
                int[] leaves = new int[1];
                query.visit(new QueryVisitor() {
                    @Override
                    public void visitLeaf(Query leaf) {
                        leaves[0]++;
                    }
                });
                assertEquals(2, leaves[0]); // itself and the first stage
                // Without scores, every document of the window matches.
                assertEquals(searcher.count(query), searcher.search(new ConstantScoreQuery(query), 10).scoreDocs.length);
            }
        }
    }

    @Test
    void tooManyTiesAreRefused() throws IOException {
        WindowCollector collector = new WindowCollector(2);
        collector.setScorer(new org.apache.lucene.search.Scorable() {
            @Override
            public float score() {
                return 1;
            }

            public int docID() {
                return 0;
            }
        });
        Exception refused = assertThrows(IllegalArgumentException.class, () -> {
            for (int doc = 0; doc < 5_000_000; doc++) {
                collector.collect(doc);
            }
        });
        assertTrue(refused.getMessage().contains("tie with the last of the window of 2"), refused.getMessage());
    }
}
