// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.ArrayList;
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
    private final Map<String, CodeField> used = new ConcurrentHashMap<>();
    private volatile long lastUsed;
    private long seenRefreshes = -1;
    private int seenFields;

    ShardWarmer(IndexShard shard, CodeCache cache) {
        this.shard = shard;
        this.cache = cache;
    }

    /** Records that a query or a warmup request has used the fields. */
    void recordUse(List<CodeField> fields) {
        for (CodeField field : fields) {
            used.putIfAbsent(field.name(), field);
        }
        lastUsed = System.nanoTime();
    }

    /** All code fields of the shard's mapping. */
    List<CodeField> codeFields() {
        List<CodeField> found = new ArrayList<>();
        for (MappedFieldType type : shard.mapperService().fieldTypes()) {
            if ("knn_vector".equals(type.typeName())) {
                try {
                    found.add(CodeField.of(shard.mapperService(), type, type.name()));
                } catch (IllegalArgumentException e) {
                    continue; // not binary
                }
            }
        }
        return found;
    }

    /** The code fields of these names. Throws IllegalArgumentException if one is missing or not a code field. */
    List<CodeField> codeFields(List<String> names) {
        List<CodeField> found = new ArrayList<>();
        for (String name : names) {
            found.add(CodeField.of(shard.mapperService(), shard.mapperService().fieldType(name), name));
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
        load(fields == ALL_FIELDS ? codeFields() : List.copyOf(used.values()));
        seenRefreshes = refreshes;
        seenFields = fields;
    }

    /** Loads the codes of {@code fields} of all segments. */
    LoadResult load(List<CodeField> fields) throws IOException {
        int loaded = 0;
        int refused = 0;
        try (Engine.Searcher searcher = shard.acquireSearcher("hamming")) {
            for (LeafReaderContext leaf : searcher.getIndexReader().leaves()) {
                for (CodeField field : fields) {
                    if (DocValuesCodes.exist(leaf.reader(), field.name())) {
                        if (cache.load(leaf.reader(), field.name(), field.width()) != null) {
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
