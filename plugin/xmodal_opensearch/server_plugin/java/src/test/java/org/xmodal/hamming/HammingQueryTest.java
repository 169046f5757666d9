// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;

import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.Term;
import org.apache.lucene.search.BooleanClause.Occur;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.BoostQuery;
import org.apache.lucene.search.Explanation;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.MatchAllDocsQuery;
import org.apache.lucene.search.MatchNoDocsQuery;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.search.Sort;
import org.apache.lucene.search.TermQuery;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** {@link HammingQuery} on real Lucene segments, compared with a count of differing bits. */
class HammingQueryTest {
    private static final int ALL = 100_000;

    private static HammingQuery query(TestShard shard, List<String> fields, List<ComparedCode> codes, int max, Query filter) {
        return new HammingQuery(
            shard.service, fields.toArray(String[]::new), shard.width, codes.toArray(ComparedCode[]::new), max, filter
        );
    }

    private static int bits(byte[] a, byte[] b) {
        int bits = 0;
        for (int i = 0; i < a.length; i++) {
            bits += Integer.bitCount((a[i] ^ b[i]) & 0xFF);
        }
        return bits;
    }

    private static int weighted(byte[] a, byte[] b, String weights) {
        int sum = 0;
        for (int bit = 0; bit < weights.length(); bit++) {
            int differs = (a[bit / 8] ^ b[bit / 8]) >>> 7 - bit % 8 & 1;
            sum += differs * Character.digit(weights.charAt(bit), 16);
        }
        return sum;
    }

    /** Key by id of the documents that match. {@code weights} may be null. */
    private static Map<String, Integer> expected(
        TestShard shard, List<String> fields, List<byte[]> codes, String weights, int max, boolean red
    ) {
        Map<String, Integer> keys = new HashMap<>();
        shard.documents.forEach((id, stored) -> {
            if (red && !stored.tag().equals(TestShard.RED)) {
                return;
            }
            for (String field : fields) {
                byte[] code = stored.codes().get(field);
                for (byte[] other : code == null ? List.<byte[]>of() : codes) {
                    int h = bits(code, other);
                    if (h <= max) {
                        int key = weights == null ? h : weighted(code, other, weights) * (8 * code.length + 1) + h;
                        keys.merge(id, key, Math::min);
                    }
                }
            }
        });
        return keys;
    }

    private static List<Map.Entry<String, Float>> scored(Map<String, Integer> keys) {
        return TestShard.sorted(
            keys.entrySet().stream().map(e -> Map.entry(e.getKey(), 1f / (1f + e.getValue()))).collect(Collectors.toCollection(ArrayList::new))
        );
    }

    /** Compares one random query in all its forms. */
    private static void check(TestShard shard, IndexSearcher searcher) throws IOException {
        List<List<String>> choices = List.of(List.of(TestShard.IMAGE), List.of(TestShard.TEXT), List.of(TestShard.IMAGE, TestShard.TEXT));
        List<String> fields = choices.get(shard.random.nextInt(3));
        String weights = shard.random.nextBoolean() ? null : shard.random.ints(8L * shard.width, 0, 16)
            .mapToObj(Integer::toHexString).collect(Collectors.joining());
        boolean red = shard.random.nextBoolean();
        int max = shard.random.nextBoolean() ? 8 * shard.width : shard.random.nextInt(8 * shard.width);
        List<byte[]> codes = new ArrayList<>();
        List<ComparedCode> compared = new ArrayList<>();
        for (int c = 0; c <= shard.random.nextInt(3); c++) {
            codes.add(shard.code());
            compared.add(new ComparedCode(codes.get(c), weights, max));
        }
        Query tag = new TermQuery(new Term("tag", TestShard.RED));
        HammingQuery query = query(shard, fields, compared, max, red ? tag : null);
        Map<String, Integer> keys = expected(shard, fields, codes, weights, max, red);
        List<Map.Entry<String, Float>> expected = scored(keys);

        assertEquals(expected, TestShard.hits(searcher, searcher.search(query, ALL).scoreDocs), query.toString());
        assertEquals(keys.size(), searcher.count(query), query.toString());
        // Ten hits of a collector that raises the minimum competitive score: no better document is missing.
        ScoreDoc[] ten = searcher.search(query, 10).scoreDocs;
        for (int i = 0; i < ten.length; i++) {
            assertEquals(expected.get(i).getValue(), ten[i].score);
        }
        assertEquals(Math.min(10, expected.size()), ten.length);
        // As a clause of another query, documents are scored one by one (HammingScorer).
        Query both = new BooleanQuery.Builder().add(query, Occur.MUST).add(tag, Occur.FILTER).build();
        List<Map.Entry<String, Float>> within = scored(expected(shard, fields, codes, weights, max, true));
        assertEquals(within, TestShard.hits(searcher, searcher.search(both, ALL).scoreDocs));
        assertEquals(within.size(), searcher.search(both, ALL, Sort.INDEXORDER).scoreDocs.length);
        for (ScoreDoc hit : searcher.search(new MatchAllDocsQuery(), 20).scoreDocs) {
            Integer key = keys.get(searcher.storedFields().document(hit.doc).get("id"));
            Explanation explained = searcher.explain(new BoostQuery(query, 2), hit.doc);
            assertEquals(key != null, explained.isMatch(), explained.toString());
            assertEquals(key == null ? 0f : 2f / (1f + key), explained.getValue().floatValue(), explained.toString());
        }
    }

    @ParameterizedTest
    @CsvSource({ "1, DOC_VALUES", "8, DOC_VALUES", "9, VECTORS", "16, VECTORS", "32, DOC_VALUES", "64, VECTORS" })
    void agreesWithACountOfBits(int width, TestShard.Storage storage) throws IOException {
        try (TestShard shard = new TestShard(width, storage)) {
            shard.add(0, 2300);
            shard.add(2300, 2330);
            shard.add(100, 160); // deletes 60 documents of the first segment
            for (int i = 500; i < 520; i++) {
                shard.delete(i);
            }
            try (DirectoryReader reader = shard.open()) {
                IndexSearcher searcher = new IndexSearcher(reader);
                searcher.setQueryCache(null);
                for (int round = 0; round < 4; round++) {
                    check(shard, searcher);
                }
                assertTrue(shard.service.cache.stats().hits() > 0);
                assertEquals(0, shard.service.cache.stats().fallbacks());
            }
            shard.service.cache.setLimit(1);
            assertEquals(0, shard.service.cache.stats().entries());
            try (DirectoryReader reader = shard.open()) {
                IndexSearcher searcher = new IndexSearcher(reader);
                searcher.setQueryCache(null);
                for (int round = 0; round < 4; round++) {
                    check(shard, searcher);
                }
                assertTrue(shard.service.cache.stats().fallbacks() > 0);
                assertEquals(0, shard.service.cache.stats().entries());
            }
        }
    }

    @Test
    void rewritesAccordingToItsFilter() throws IOException {
        try (TestShard shard = new TestShard(8, TestShard.Storage.DOC_VALUES)) {
            shard.add(0, 10);
            try (DirectoryReader reader = shard.open()) {
                IndexSearcher searcher = new IndexSearcher(reader);
                List<ComparedCode> codes = List.of(new ComparedCode(new byte[8], null, 3));
                HammingQuery plain = query(shard, List.of(TestShard.IMAGE), codes, 3, null);
                assertEquals(plain, searcher.rewrite(plain));
                assertEquals(plain, searcher.rewrite(query(shard, List.of(TestShard.IMAGE), codes, 3, new MatchAllDocsQuery())));
                Query none = query(shard, List.of(TestShard.IMAGE), codes, 3, new MatchNoDocsQuery());
                assertTrue(searcher.rewrite(none) instanceof MatchNoDocsQuery);
                Query tag = new TermQuery(new Term("tag", TestShard.RED));
                HammingQuery filtered = query(shard, List.of(TestShard.IMAGE), codes, 3, tag);
                assertEquals(filtered, filtered.with(tag));
                assertEquals(filtered.hashCode(), filtered.with(tag).hashCode());
                for (Query other : List.of(plain, query(shard, List.of(TestShard.TEXT), codes, 3, tag), query(shard, List.of(TestShard.IMAGE), codes, 4, tag))) {
                    assertFalse(filtered.equals(other));
                }
                assertEquals("hamming(image ~ 0000000000000000 within 3 if tag:red)", filtered.toString());
            }
        }
    }

    @Test
    void segmentWithoutTheFieldHasNoHits() throws IOException {
        try (TestShard shard = new TestShard(8, TestShard.Storage.DOC_VALUES)) {
            shard.put("a", new TestShard.Stored(Map.of(), TestShard.RED));
            try (DirectoryReader reader = shard.open()) {
                IndexSearcher searcher = new IndexSearcher(reader);
                HammingQuery query = query(shard, List.of(TestShard.IMAGE), List.of(new ComparedCode(new byte[8], null, 64)), 64, null);
                assertEquals(0, searcher.count(query));
                assertEquals(0, searcher.search(query, 5).scoreDocs.length);
                assertTrue(searcher.explain(query, 0).getDescription().contains("no code in image"));
            }
        }
    }

    @Test
    void explanationNamesCodeFieldAndDifferingBytes() throws IOException {
        try (TestShard shard = new TestShard(3, TestShard.Storage.DOC_VALUES)) {
            shard.put("a", new TestShard.Stored(Map.of(TestShard.TEXT, new byte[] { 1, 0, 3 }), TestShard.RED));
            try (DirectoryReader reader = shard.open()) {
                IndexSearcher searcher = new IndexSearcher(reader);
                ComparedCode far = new ComparedCode(new byte[] { -1, -1, -1 }, null, 24);
                ComparedCode near = new ComparedCode(new byte[] { 0, 0, 0 }, null, 24);
                List<String> fields = List.of(TestShard.IMAGE, TestShard.TEXT);
                String text = searcher.explain(query(shard, fields, List.of(far, near), 24, null), 0).toString();
                assertTrue(text.contains("distance 3 of 24 bits between field text and code 1 of 2"), text);
                assertTrue(text.contains("bytes that differ: 0 (1 bit), 2 (2 bits)"), text);
                Explanation tooFar = searcher.explain(query(shard, fields, List.of(far), 5, null), 0);
                assertFalse(tooFar.isMatch());
                assertTrue(tooFar.toString().contains("more than max_distance 5"), tooFar.toString());
                ComparedCode same = new ComparedCode(new byte[] { 1, 0, 3 }, "f".repeat(24), 24);
                String equal = searcher.explain(query(shard, fields, List.of(same), 24, null), 0).toString();
                assertTrue(equal.contains("weighted distance 0, distance 0") && equal.contains("no byte differs"), equal);
                Query blue = new TermQuery(new Term("tag", "blue"));
                assertFalse(searcher.explain(query(shard, fields, List.of(near), 24, blue), 0).isMatch());
            }
        }
    }
}
