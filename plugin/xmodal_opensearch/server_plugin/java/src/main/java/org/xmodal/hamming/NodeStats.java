// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;

import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.common.io.stream.Writeable;
import org.opensearch.core.common.unit.ByteSizeValue;
import org.opensearch.core.xcontent.ToXContentFragment;
import org.opensearch.core.xcontent.XContentBuilder;

/**
 * Cache statistics of one node. An entry is the codes of one field in one segment. The counters start at 0 with the node.
 *
 * @param entries entries in the cache
 * @param bytes size of the entries
 * @param estimated bytes reserved on the circuit breaker; equal to {@code bytes} unless entries are being loaded
 * @param limit limit of the circuit breaker, in bytes
 * @param tripped number of times the circuit breaker has tripped
 * @param loaded entries loaded, in {@code loadMillis} milliseconds in total
 * @param hits lookups by queries that found an entry
 * @param misses lookups by queries that did not find an entry
 * @param fallbacks misses after which no entry could be loaded, so that codes were read from doc values
 */
record NodeStats(
    long entries, long bytes, long estimated, long limit, long tripped,
    long loaded, long loadMillis, long hits, long misses, long fallbacks
) implements Writeable, ToXContentFragment {

    static NodeStats read(StreamInput in) throws IOException {
        return new NodeStats(
            in.readVLong(), in.readVLong(), in.readZLong(), in.readZLong(), in.readVLong(),
            in.readVLong(), in.readVLong(), in.readVLong(), in.readVLong(), in.readVLong()
        );
    }

    @Override
    public void writeTo(StreamOutput out) throws IOException {
        out.writeVLong(entries);
        out.writeVLong(bytes);
        out.writeZLong(estimated);
        out.writeZLong(limit);
        out.writeVLong(tripped);
        out.writeVLong(loaded);
        out.writeVLong(loadMillis);
        out.writeVLong(hits);
        out.writeVLong(misses);
        out.writeVLong(fallbacks);
    }

    @Override
    public XContentBuilder toXContent(XContentBuilder builder, Params params) throws IOException {
        builder.field("cache_entries", entries);
        builder.field("columns", entries); // former name of cache_entries
        builder.humanReadableField("size_in_bytes", "size", new ByteSizeValue(bytes));
        builder.startObject("breaker");
        builder.humanReadableField("estimated_in_bytes", "estimated", new ByteSizeValue(estimated));
        builder.humanReadableField("limit_in_bytes", "limit", new ByteSizeValue(limit));
        builder.field("tripped", tripped);
        builder.endObject();
        builder.field("loaded", loaded).field("load_time_in_millis", loadMillis);
        builder.field("hits", hits).field("misses", misses).field("fallbacks", fallbacks);
        return builder;
    }
}
