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

/** Reads the columns of one shard ahead of its queries. */
final class ShardWarmer {
    // A shard that nobody searched for so long is left alone, so that the server may let it idle.
    private static final long FORGET_NANOS = 30L * 60 * 1_000_000_000;
    private static final int ALL = -1;

    /** What a reading did: columns that are in memory now, segments that the breaker refused. */
    record Done(int columns, int refused) {}

    private final IndexShard shard;
    private final CodeCache columns;
    private final Map<String, CodeField> used = new ConcurrentHashMap<>();
    private volatile long lastUsed;
    private long seenRefreshes = -1;
    private int seenFields;

    ShardWarmer(IndexShard shard, CodeCache columns) {
        this.shard = shard;
        this.columns = columns;
    }

    /** A query or a request named the fields. */
    void use(List<CodeField> fields) {
        for (CodeField field : fields) {
            used.putIfAbsent(field.name(), field);
        }
        lastUsed = System.nanoTime();
    }

    /** All code fields that the shard's mapping has. */
    List<CodeField> all() {
        List<CodeField> found = new ArrayList<>();
        for (MappedFieldType type : shard.mapperService().fieldTypes()) {
            if ("knn_vector".equals(type.typeName())) {
                try {
                    found.add(CodeField.of(shard.mapperService(), type, type.name()));
                } catch (IllegalArgumentException e) {
                    continue; // vectors of another kind, or nested
                }
            }
        }
        return found;
    }

    /** The code fields of these names. Throws IllegalArgumentException, with the reason, for any other field. */
    List<CodeField> named(List<String> names) {
        List<CodeField> found = new ArrayList<>();
        for (String name : names) {
            found.add(CodeField.of(shard.mapperService(), shard.mapperService().fieldType(name), name));
        }
        return found;
    }

    /**
     * Read what new segments hold, if there are any since the last look.
     *
     * <p>The count of refreshes is asked first, because opening a searcher counts as a search, and a shard that is
     * searched never idles.
     */
    void look(HammingSettings.Load when) throws IOException {
        boolean forgotten = used.isEmpty() || System.nanoTime() - lastUsed > FORGET_NANOS || shard.isSearchIdle();
        if (when == HammingSettings.Load.NEVER || when == HammingSettings.Load.USED && forgotten) {
            return;
        }
        long refreshes = shard.refreshStats().getExternalTotal();
        int fields = when == HammingSettings.Load.ALWAYS ? ALL : used.size();
        if (refreshes == seenRefreshes && fields == seenFields) {
            return;
        }
        load(fields == ALL ? all() : List.copyOf(used.values()));
        seenRefreshes = refreshes;
        seenFields = fields;
    }

    /** Read the columns of {@code fields} in all segments. */
    Done load(List<CodeField> fields) throws IOException {
        int held = 0;
        int refused = 0;
        try (Engine.Searcher searcher = shard.acquireSearcher("hamming")) {
            for (LeafReaderContext leaf : searcher.getIndexReader().leaves()) {
                for (CodeField field : fields) {
                    if (DocValuesCodes.exist(leaf.reader(), field.name())) {
                        if (columns.load(leaf.reader(), field.name(), field.width()) != null) {
                            held++;
                        } else {
                            refused++;
                        }
                    }
                }
            }
        }
        return new Done(held, refused);
    }
}
