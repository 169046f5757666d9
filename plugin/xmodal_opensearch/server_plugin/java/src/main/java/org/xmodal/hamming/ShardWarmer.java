// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

import org.apache.lucene.index.LeafReaderContext;
import org.opensearch.index.engine.Engine;
import org.opensearch.index.mapper.MappedFieldType;
import org.opensearch.index.shard.IndexShard;

/** Loads the codes of one shard into the cache before queries search them. */
final class ShardWarmer {
    // A shard without a search for this long is not warmed up, so that it can become search idle.
    private static final long UNUSED_NANOS = 30L * 60 * 1_000_000_000;
    private static final int ALL_FIELDS = -1;

    /** Result of {@link #load}: number of entries in the cache, and of entries that exceed the circuit breaker's limit. */
    record LoadResult(int entries, int refused) {}

    private final IndexShard shard;
    private final CodeCache cache;
    /** Bytes of a code of each field that was searched or warmed up. */
    private final Map<String, Integer> used = new ConcurrentHashMap<>();
    private volatile long lastUsed;
    private long seenRefreshes = -1;
    private int seenFields;

    ShardWarmer(IndexShard shard, CodeCache cache) {
        this.shard = shard;
        this.cache = cache;
    }

    /** Records that a query or a warmup request has used a field; {@code width}: bytes of a code. */
    void recordUse(String field, int width) {
        used.putIfAbsent(field, width);
        lastUsed = System.nanoTime();
    }

    /** All code fields of the shard's mapping: bytes of a code, by name. */
    Map<String, Integer> codeFields() {
        Map<String, Integer> found = new HashMap<>();
        for (MappedFieldType type : shard.mapperService().fieldTypes()) {
            if ("knn_vector".equals(type.typeName())) {
                try {
                    found.put(type.name(), CodeField.of(shard.mapperService(), type, type.name()).width());
                } catch (IllegalArgumentException e) {
                    continue; // not binary
                }
            }
        }
        return found;
    }

    /** The code fields of these names. Throws IllegalArgumentException if one is missing or not a code field. */
    Map<String, Integer> codeFields(List<String> names) {
        Map<String, Integer> found = new HashMap<>();
        for (String name : names) {
            CodeField field = CodeField.of(shard.mapperService(), shard.mapperService().fieldType(name), name);
            found.put(field.name(), field.width());
        }
        return found;
    }

    /**
     * Loads new segments if the shard was refreshed since the previous call.
     *
     * <p>The refresh count is compared first, because acquiring a searcher counts as a search and would keep the shard from
     * becoming search idle.
     */
    void loadNewSegments(HammingSettings.LoadPolicy policy) throws IOException {
        boolean unused = used.isEmpty() || System.nanoTime() - lastUsed > UNUSED_NANOS || shard.isSearchIdle();
        if (policy == HammingSettings.LoadPolicy.NEVER || policy == HammingSettings.LoadPolicy.USED && unused) {
            return;
        }
        long refreshes = shard.refreshStats().getExternalTotal();
        int fields = policy == HammingSettings.LoadPolicy.ALWAYS ? ALL_FIELDS : used.size();
        if (refreshes == seenRefreshes && fields == seenFields) {
            return;
        }
        load(fields == ALL_FIELDS ? codeFields() : Map.copyOf(used));
        seenRefreshes = refreshes;
        seenFields = fields;
    }

    /** Loads the codes of {@code fields} of all segments. */
    LoadResult load(Map<String, Integer> fields) throws IOException {
        int loaded = 0;
        int refused = 0;
        try (Engine.Searcher searcher = shard.acquireSearcher("hamming")) {
            for (LeafReaderContext leaf : searcher.getIndexReader().leaves()) {
                for (Map.Entry<String, Integer> field : fields.entrySet()) {
                    if (DocValuesCodes.exist(leaf.reader(), field.getKey())) {
                        if (cache.load(leaf.reader(), field.getKey(), field.getValue()) != null) {
                            loaded++;
                        } else {
                            refused++;
                        }
                    }
                }
            }
        }
        return new LoadResult(loaded, refused);
    }
}
