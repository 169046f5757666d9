// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.xmodal.hamming.TestNode.at;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.opensearch.common.io.stream.BytesStreamOutput;
import org.opensearch.common.xcontent.XContentFactory;
import org.opensearch.core.common.bytes.BytesReference;
import org.opensearch.core.common.io.stream.NamedWriteableAwareStreamInput;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.index.query.QueryBuilder;
import org.opensearch.index.query.QueryBuilders;

/** The plugin in a server of this process: REST requests, mappings, shards. */
class HammingPluginTest {
    private static final String CODE = "{\"type\": \"knn_vector\", \"dimension\": 16, \"data_type\": \"binary\", \"space_type\": \"hamming\"}";
    private static final String VECTOR = "{\"type\": \"knn_vector\", \"dimension\": 2, \"data_type\": \"byte\"}";
    private static final String HAMMING = "{\"hamming\": {\"field\": \"c\", \"code\": \"0000\"}}";

    private static TestNode node;

    @BeforeAll
    static void start() throws Exception {
        node = new TestNode();
        fill("a", 1);
    }

    @AfterAll
    static void stop() throws Exception {
        node.close();
    }

    @AfterEach
    void deleteOtherIndexes() {
        node.json("DELETE", "*,-a", null);
    }

    /** Creates an index of one shard and segment, with documents d0 to d4 of codes with i ones, days of a month, and two nested parts each. */
    private static void fill(String index, int month) {
        node.json("PUT", index, """
            {"settings": {"index": {"number_of_shards": 1, "number_of_replicas": 0}}, "mappings": {"properties": {
              "c": %1$s, "v": %2$s, "day": {"type": "date"}, "tag": {"type": "keyword"}, "query": {"type": "percolator"},
              "parts": {"type": "nested", "properties": {"k": {"type": "keyword"}, "c": %1$s, "v": %2$s}}}}}""".formatted(CODE, VECTOR));
        StringBuilder lines = new StringBuilder();
        for (int i = 0; i < 5; i++) {
            String code = "[%d, 0]".formatted((1 << i) - 1);
            lines.append("{\"index\": {\"_id\": \"d%d\"}}\n".formatted(i));
            lines.append("""
                {"c": %1$s, "v": [%2$d, 1], "day": "2024-0%3$d-1%2$d", "tag": "t%4$d", \
                "parts": [{"k": "a", "c": %1$s, "v": [1, 1]}, {"k": "b", "c": [-1, -1], "v": [1, -1]}]}
                """.formatted(code, i, month, i % 2));
        }
        assertEquals(false, at(node.json("POST", index + "/_bulk?refresh=true", lines.toString()), "errors"));
    }

    private static Map<String, Object> search(String index, String query, String more) {
        Map<String, Object> found = node.json("POST", index + "/_search", "{\"query\": " + query + more + "}");
        assertEquals(0, (int) at(found, "_shards.failed"), found.toString());
        return found;
    }

    private static List<String> ids(Map<String, Object> found) {
        List<Map<String, Object>> hits = at(found, "hits.hits");
        return hits.stream().map(hit -> (String) hit.get("_id")).toList();
    }

    private static List<String> ids(String index, String query) {
        return ids(search(index, query, ""));
    }

    private static List<Number> cached() {
        Map<String, Object> nodes = at(node.json("GET", "_plugins/_hamming/stats", null), "nodes");
        Object stats = nodes.values().iterator().next();
        return List.of(at(stats, "cache_entries"), at(stats, "size_in_bytes"), at(stats, "breaker.estimated_in_bytes"));
    }

    private static String term(String field, String value) {
        return "{\"term\": {\"%s\": \"%s\"}}".formatted(field, value);
    }

    // Bodies of the three queries in which every value is replaced by others.
    static List<String> bodies() {
        return List.of(
            "{\"hamming\": {\"field\": \"c\", \"code\": \"0000\", \"weights\": \"1234567812345678\", \"max_distance\": 3, "
                + "\"filter\": {\"match_all\": {}}, \"ignore_unmapped\": true, \"boost\": 2, \"_name\": \"n\"}}",
            "{\"hamming\": {\"fields\": [\"c\"], \"codes\": [[0, 1], \"AAA=\"], \"weights\": [\"1234567812345678\", \"1234567812345678\"]}}",
            "{\"vector_cosine\": {\"field\": \"v\", \"vector\": [1, 2], \"filter\": {\"match_all\": {}}, \"boost\": 2, \"_name\": \"n\"}}",
            "{\"vector_cosine\": {\"field\": \"v\", \"vector\": \"AQI=\", \"ignore_unmapped\": false}}",
            "{\"two_stage\": {\"first\": {\"match_all\": {}}, \"second\": {\"match_all\": {}}, \"window\": 3, \"boost\": 2, \"_name\": \"n\"}}"
        );
    }

    private static final List<String> VALUES = List.of(
        "null", "true", "0", "-1", "1.5", "1e400", "-1e400", "123456789012345678901234567890", "\"\"", "\"x\"", "\"NaN\"", "\"-1\"",
        "\"Infinity\"", "\"\\u0000\\ud83d\"", "[]", "[[]]", "[[1]]", "[1]", "[null]", "[1e400]", "[128, 0]", "[\"c\", null]", "[{}]", "{}",
        "{\"match_none\": {}}", "{\"a\": {}}", "{\"hamming\": {}}", "{\"hamming\": []}", "{\"term\": {\"tag\": {\"value\": {}}}}",
        "[" + "0,".repeat(500) + "0]", "[" + "\"0000\",".repeat(256) + "\"0000\"]"
    );

    /** Copies of a body with every value, at any depth, replaced by each of VALUES, removed, or followed by an unknown key. */
    private static List<String> damaged(String body) {
        List<String> found = new ArrayList<>();
        for (int at = 1; at < body.length(); at++) {
            if (at % 7 == 0) {
                found.add(body.substring(0, at)); // ends in the middle
            }
            char before = body.charAt(at - 1);
            if (before != ' ' && before != '[') {
                continue;
            }
            int end = at;
            int depth = 0;
            boolean quoted = false;
            while (end < body.length()) {
                char c = body.charAt(end);
                quoted ^= c == '"';
                depth += quoted ? 0 : "{[".indexOf(c) >= 0 ? 1 : "}]".indexOf(c) >= 0 ? -1 : 0;
                if (depth < 0 || depth == 0 && c == ',' && !quoted) {
                    break;
                }
                end++;
            }
            for (String value : VALUES) {
                found.add(body.substring(0, at) + value + body.substring(end));
            }
        }
        found.add(body.replace("\"boost\"", "\"boots\""));
        found.add(body.replace("\"field\"", "\"fields\""));
        return found;
    }

    @ParameterizedTest
    @MethodSource("bodies")
    void damagedQueriesAreRefusedWithAReason(String body) {
        assertEquals(200, node.send("POST", "a/_search", "{\"query\": " + body + "}").status());
        int refused = 0;
        for (String query : damaged(body)) {
            TestNode.Response response = node.send("POST", "a/_search", "{\"query\": " + query + "}");
            assertTrue(response.status() == 200 || response.status() == 400, query + ": " + response);
            if (response.status() == 400) {
                refused++;
                String reason = at(response.json(), "error.reason");
                assertTrue(reason.length() > 10, response.text());
            }
        }
        assertTrue(refused > 100, "refused " + refused);
    }

    @ParameterizedTest
    @ValueSource(strings = {
        "{\"hamming\": {\"field\": \"none\", \"code\": \"0000\"}} | no field [none]",
        "{\"hamming\": {\"field\": \"tag\", \"code\": \"0000\"}} | is a keyword, not a code field",
        "{\"hamming\": {\"field\": \"v\", \"code\": \"0000\"}} | vectors that are not binary",
        "{\"vector_cosine\": {\"field\": \"c\", \"vector\": [1, 2]}} | vectors that are not bytes",
        "{\"vector_cosine\": {\"field\": \"v\", \"vector\": [1, 2, 3]}} | has 3 numbers; the field has 2",
        "{\"hamming\": {\"field\": \"parts.c\", \"code\": \"0000\"}} | is inside nested [parts]",
        "{\"nested\": {\"path\": \"parts\", \"query\": {\"hamming\": {\"field\": \"c\", \"code\": \"0000\"}}}} | is outside of nested [parts]",
        "{\"nested\": {\"path\": \"parts\", \"query\": {\"hamming\": {\"field\": \"parts.c\", \"code\": \"0000\", \"filter\": {\"match_all\": {}}}}}} | [filter] is not supported inside",
        "{\"nested\": {\"path\": \"parts\", \"query\": {\"two_stage\": {\"first\": {\"match_all\": {}}, \"second\": {\"match_all\": {}}}}}} | not supported inside a nested",
        "{\"hamming\": {\"field\": \"c\", \"code\": [[1]]}} | use [codes] for several codes",
        "{\"hamming\": {\"field\": \"c\", \"code\": \"0000\", \"boost\": \"NaN\"}} | [boost] must be",
        "{\"hamming\": {\"field\": \"c\", \"code\": \"0000\", \"_name\": null}} | [_name] must be" })
    void refusalsNameTheReason(String queryAndReason) {
        String[] parts = queryAndReason.split(" \\| ");
        TestNode.Response response = node.send("POST", "a/_search", "{\"query\": " + parts[0] + "}");
        assertEquals(400, response.status());
        assertTrue(response.text().contains(parts[1]), response.text());
    }

    @Test
    void codesAndVectorsMayBeBinary() throws IOException {
        for (String[] query : new String[][] { { "hamming", "c", "code" }, { "vector_cosine", "v", "vector" } }) {
            try (XContentBuilder cbor = XContentFactory.cborBuilder()) {
                cbor.startObject().startObject("query").startObject(query[0]).field("field", query[1]).field(query[2], new byte[] { 0, 0 });
                cbor.endObject().endObject().endObject();
                byte[] body = BytesReference.toBytes(BytesReference.bytes(cbor));
                TestNode.Response response = node.send("POST", "a/_count", body, "application/cbor");
                assertEquals(200, response.status(), response.text());
            }
        }
    }

    @Test
    void percolatedDocumentsLeaveNothing() {
        fill("p", 1);
        List<Number> before = cached();
        for (String[] query : new String[][] {
            { "near", "{\"hamming\": {\"field\": \"c\", \"code\": \"0000\", \"max_distance\": 2, \"filter\": {\"term\": {\"tag\": \"t0\"}}}}" },
            { "cosine", "{\"vector_cosine\": {\"field\": \"v\", \"vector\": [1, 1]}}" },
            { "stages", "{\"two_stage\": {\"first\": " + HAMMING + ", \"second\": {\"match_all\": {}}}}" } }) {
            node.json("PUT", "p/_doc/" + query[0], "{\"query\": " + query[1] + "}");
        }
        node.json("POST", "p/_refresh", null);
        String near = "{\"c\": [1, 0], \"tag\": \"t0\"}";
        String far = "{\"c\": [-1, -1], \"tag\": \"t0\"}";
        String other = "{\"v\": [1, 1], \"tag\": \"t0\"}";
        String template = "{\"percolate\": {\"field\": \"query\", \"documents\": [%s]}}";
        for (int i = 0; i < 20; i++) {
            assertEquals(List.of("near", "stages"), ids("p", template.formatted(near)).stream().sorted().toList());
            assertEquals(List.of("stages"), ids("p", template.formatted(far)));
            assertEquals(List.of("cosine", "near", "stages"), ids("p", template.formatted(far + "," + near + "," + other)).stream().sorted().toList());
        }
        assertEquals(before, cached());
    }

    @Test
    void requestsBesideSearchesLeaveNothing() {
        List<Number> before = cached();
        fill("b", 1);
        assertEquals(true, at(node.json("POST", "b/_explain/d1", "{\"query\": " + HAMMING + "}"), "matched"));
        assertEquals(true, at(node.json("POST", "b/_validate/query?explain=true&rewrite=true", "{\"query\": " + HAMMING + "}"), "valid"));
        node.json("POST", "b/_termvectors", "{\"doc\": {\"tag\": \"t0\", \"c\": [0, 0]}}");
        String like = "{\"bool\": {\"must\": [%s, {\"more_like_this\": {\"fields\": [\"tag\"], \"like\": [{\"doc\": {\"tag\": \"t0\"}}], "
            + "\"min_term_freq\": 1, \"min_doc_freq\": 1}}]}}";
        assertEquals(List.of("d0", "d2", "d4"), ids("b", like.formatted(HAMMING)));
        search("b", HAMMING, ", \"highlight\": {\"fields\": {\"tag\": {\"type\": \"unified\"}, \"c\": {}}}");
        assertNotEquals(before, cached());
        node.json("POST", "b/_close", null);
        assertEquals(before, cached());
        node.json("POST", "b/_open?wait_for_active_shards=all", null);
        assertEquals(List.of("d0", "d1", "d2", "d3", "d4"), ids("b", HAMMING));
        node.json("DELETE", "b", null);
        assertEquals(before, cached());
    }

    @ParameterizedTest
    @ValueSource(strings = {
        "{\"hamming\": {\"field\": \"c\", \"code\": \"0000\", \"filter\": %s}}",
        "{\"vector_cosine\": {\"field\": \"v\", \"vector\": [1, 2], \"filter\": %s}}",
        "{\"two_stage\": {\"first\": {\"hamming\": {\"field\": \"c\", \"code\": \"0000\", \"filter\": %s}}, \"second\": {\"match_all\": {}}}}" })
    void filterKeepsInnerHitsAndNamesAndSkipsShards(String template) {
        fill("days-1", 1);
        fill("days-2", 2);
        fill("days-3", 3);
        String nested = "{\"nested\": {\"path\": \"parts\", \"query\": %s, \"inner_hits\": {}, \"_name\": \"inner\"}}".formatted(term("parts.k", "b"));
        Map<String, Object> found = search("days-1", template.formatted(nested), "");
        assertEquals("b", at(found, "hits.hits.0.inner_hits.parts.hits.hits.0._source.k"));
        assertEquals(List.of("inner"), at(found, "hits.hits.0.matched_queries"));
        String days = "{\"range\": {\"day\": {\"gte\": \"2024-03-01\"}}}";
        Map<String, Object> late = node.json("POST", "days-*/_search?pre_filter_shard_size=1", "{\"query\": " + template.formatted(days) + "}");
        assertEquals(2, (int) at(late, "_shards.skipped"));
        assertEquals(5, (int) at(late, "hits.total.value"));
    }

    @Test
    void unmappedFieldsAreIgnoredOnRequest() {
        node.json("PUT", "u", "{\"mappings\": {\"properties\": {\"day\": {\"type\": \"date\"}}}}");
        node.json("PUT", "u/_doc/other?refresh=true", "{\"day\": \"2024-01-01\"}");
        for (String query : List.of(
            "{\"hamming\": {\"field\": \"c\", \"code\": \"0000\"%s}}", "{\"vector_cosine\": {\"field\": \"v\", \"vector\": [0, 1]%s}}",
            "{\"two_stage\": {\"first\": {\"hamming\": {\"fields\": [\"none\", \"c\"], \"code\": \"0000\"%s}}, \"second\": {\"match_all\": {}}}}")) {
            TestNode.Response refused = node.send("POST", "a,u/_search", "{\"query\": " + query.formatted("") + "}");
            assertTrue(refused.status() == 400 || refused.text().contains("no field ["), refused.text());
            assertEquals(5, ids("a,u", query.formatted(", \"ignore_unmapped\": true")).size());
        }
        Map<String, Object> found = node.json(
            "POST", "a,u/_search?pre_filter_shard_size=1",
            "{\"query\": {\"hamming\": {\"field\": \"c\", \"code\": \"0000\", \"ignore_unmapped\": true}}}"
        );
        assertEquals(1, (int) at(found, "_shards.skipped"));
        TestNode.Response other = node.send("POST", "a/_search", "{\"query\": {\"hamming\": {\"field\": \"tag\", \"code\": \"0000\", \"ignore_unmapped\": true}}}");
        assertEquals(400, other.status());
    }

    @Test
    void namesBoostAndNestedCodes() {
        String named = "{\"bool\": {\"should\": [{\"hamming\": {\"field\": \"c\", \"code\": \"0100\", \"max_distance\": 1, \"_name\": \"near\"}}, "
            + "{\"two_stage\": {\"first\": %s, \"second\": %s, \"window\": 1, \"_name\": \"staged\"}}, "
            + "{\"vector_cosine\": {\"field\": \"v\", \"vector\": [0, 1], \"boost\": 4, \"_name\": \"cosine\"}}]}}";
        Map<String, Object> found = search("a", named.formatted(HAMMING, HAMMING), ", \"sort\": [\"day\"]");
        assertEquals(List.of("cosine", "near", "staged"), ((List<String>) at(found, "hits.hits.0.matched_queries")).stream().sorted().toList());
        assertEquals(List.of("cosine"), at(found, "hits.hits.4.matched_queries"));
        assertEquals(2.0, at(search("a", "{\"hamming\": {\"field\": \"c\", \"code\": \"0000\", \"boost\": 2}}", ""), "hits.max_score"));
        String inner = "{\"nested\": {\"path\": \"parts\", \"score_mode\": \"max\", \"inner_hits\": {}, \"query\": %s}}";
        Map<String, Object> nested = search("a", inner.formatted("{\"hamming\": {\"field\": \"parts.c\", \"code\": \"0300\"}}"), "");
        assertEquals("d2", at(nested, "hits.hits.0._id"));
        assertEquals("a", at(nested, "hits.hits.0.inner_hits.parts.hits.hits.0._source.k"));
        Map<String, Object> cosine = search("a", inner.formatted("{\"vector_cosine\": {\"field\": \"parts.v\", \"vector\": [2, -2]}}"), "");
        assertEquals(1.0, at(cosine, "hits.max_score"));
    }

    /** The node is a remote cluster of its own: queries are sent as between nodes. */
    @ParameterizedTest
    @ValueSource(booleans = { false, true })
    void searchesOfRemoteClusters(boolean roundtrips) {
        Map<String, Object> nodes = at(node.json("GET", "_nodes/transport", null), "nodes");
        String address = at(nodes.values().iterator().next(), "transport_address");
        node.json("PUT", "_cluster/settings", "{\"transient\": {\"cluster.remote.other.seeds\": [\"%s\"]}}".formatted(address));
        for (String query : bodies()) {
            Map<String, Object> found = node.json(
                "POST", "other:a/_search?ccs_minimize_roundtrips=" + roundtrips, "{\"query\": " + query + "}"
            );
            assertEquals(ids("a", query), ids(found));
        }
        node.json("PUT", "_cluster/settings", "{\"transient\": {\"cluster.remote.other.seeds\": null}}");
    }

    @Test
    void aliasFilterAppliesBeforeTheWindow() {
        node.json("POST", "_aliases", "{\"actions\": [{\"add\": {\"index\": \"a\", \"alias\": \"odd\", \"filter\": " + term("tag", "t1") + "}}]}");
        assertEquals(List.of("d1", "d3"), ids("odd", HAMMING));
        assertEquals(List.of("d1"), ids("odd", "{\"two_stage\": {\"first\": %s, \"second\": %s, \"window\": 1}}".formatted(HAMMING, HAMMING)));
    }

    @ParameterizedTest
    @ValueSource(strings = { "segment", "force", "balanced" })
    void profileAndPartitionsReturnTheSameHits(String partition) {
        node.json("POST", "a/_forcemerge?max_num_segments=1", null);
        node.json("PUT", "_cluster/settings", """
            {"transient": {"search.concurrent_segment_search.mode": "all", "search.concurrent_segment_search.partition_strategy": "%s",
              "search.concurrent.max_slice_count": 3}}""".formatted(partition));
        try {
            for (String query : bodies()) {
                List<String> plain = ids(search("a", query, ", \"sort\": [{\"_score\": \"desc\"}, {\"day\": \"asc\"}]"));
                Map<String, Object> profiled = search("a", query, ", \"profile\": true, \"sort\": [{\"_score\": \"desc\"}, {\"day\": \"asc\"}]");
                assertEquals(plain, ids(profiled), query);
                assertEquals(plain.size(), (int) at(profiled, "hits.total.value"));
            }
        } finally {
            node.json("PUT", "_cluster/settings", "{\"transient\": {\"search.*\": null}}");
        }
    }

    @Test
    void warmupLoadsAllOrNamedFields() {
        fill("w", 1);
        Map<String, Object> named = node.json("POST", "_plugins/_hamming/warmup/w?fields=c", null);
        int segments = at(named, "cache_entries");
        assertTrue(segments > 0);
        assertEquals(0, (int) at(named, "refused_by_breaker"));
        Map<String, Object> all = node.json("GET", "_plugins/_hamming/warmup/w", null);
        assertEquals(2 * segments, (int) at(all, "cache_entries"));
        assertEquals(2 * segments, (int) at(node.json("POST", "w/_plugins/_hamming/warm", null), "columns"));
        assertEquals(400, node.send("POST", "_plugins/_hamming/warmup/w?fields=tag", null).status());
        assertEquals(404, node.send("POST", "_plugins/_hamming/warmup/none", null).status());
        node.json("PUT", "_cluster/settings", "{\"transient\": {\"hamming.breaker.limit\": \"1b\"}}");
        try {
            assertEquals(List.of(0, 0, 0), cached());
            assertEquals(segments, (int) at(node.json("POST", "_plugins/_hamming/warmup/w?fields=c", null), "refused_by_breaker"));
            assertEquals(5, ids("w", HAMMING).size());
        } finally {
            node.json("PUT", "_cluster/settings", "{\"transient\": {\"hamming.*\": null}}");
        }
    }

    @Test
    void newSegmentsAreLoadedAccordingToThePolicy() throws InterruptedException {
        assertEquals(400, node.send("PUT", "_cluster/settings", "{\"transient\": {\"hamming.load\": \"sometimes\"}}").status());
        node.json("PUT", "_cluster/settings", "{\"transient\": {\"hamming.load\": \"always\"}}");
        try {
            List<Number> before = cached();
            fill("l", 1);
            for (int i = 0; i < 200 && cached().equals(before); i++) {
                Thread.sleep(50);
            }
            assertNotEquals(before, cached());
        } finally {
            node.json("PUT", "_cluster/settings", "{\"transient\": {\"hamming.*\": null}}");
        }
    }

    @Test
    void queriesAreEqualAfterTransportAndParsing() throws IOException {
        HammingService service = new HammingService();
        QueryBuilder filter = QueryBuilders.termQuery("tag", "t0");
        List<QueryCode> codes = List.of(QueryCode.ofText("0000"), QueryCode.ofBytes(new byte[] { 1, 2 }));
        List<String> weights = List.of("0123456789abcdef", "0123456789abcdef");
        List<QueryBuilder> queries = new ArrayList<>();
        for (boolean ignore : new boolean[] { false, true }) {
            for (QueryBuilder inner : new QueryBuilder[] { null, filter }) {
                queries.add(new HammingQueryBuilder(service, List.of("c"), codes, List.of(), 7, inner, ignore).boost(2).queryName("n"));
                queries.add(new HammingQueryBuilder(service, List.of("c", "d"), codes, weights, 7, inner, ignore));
                queries.add(new CosineQueryBuilder("v", new byte[] { 1, 2 }, inner, ignore));
            }
        }
        queries.add(new TwoStageQueryBuilder(queries.get(0), queries.get(2), 5));
        assertEquals(List.of("hamming", "hamming_weighted", "vector_cosine", "hamming_unmapped", "hamming_unmapped", "vector_cosine_unmapped"),
            IntStream.of(0, 1, 2, 6, 7, 8).mapToObj(i -> queries.get(i).getWriteableName()).collect(Collectors.toList()));
        for (int i = 0; i < queries.size(); i++) {
            QueryBuilder query = queries.get(i);
            BytesStreamOutput out = new BytesStreamOutput();
            out.writeNamedWriteable(query);
            QueryBuilder read = new NamedWriteableAwareStreamInput(out.bytes().streamInput(), node.writeables()).readNamedWriteable(QueryBuilder.class);
            assertEquals(query, read);
            assertEquals(query.hashCode(), read.hashCode());
            for (int j = 0; j < i; j++) {
                assertNotEquals(query, queries.get(j));
            }
            assertTrue(query.getName().matches("hamming|vector_cosine|two_stage"));
            if (!query.toString().contains("\"d\"")) {
                assertEquals(200, node.send("POST", "a/_search", "{\"query\": " + query + "}").status(), query.toString());
            }
        }
    }
}
