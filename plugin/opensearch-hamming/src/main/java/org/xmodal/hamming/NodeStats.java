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
 * What one node tells of its columns.
 *
 * @param columns columns in memory now, and {@code bytes} their size
 * @param estimated what the breaker counts, equal to {@code bytes} while nothing is being read
 * @param tripped how often the breaker refused
 * @param loaded columns read since the node started, in {@code loadMillis} together
 * @param hits, misses queries' segments that found their column, or had to read it first
 * @param fallbacks queries' segments that did without one
 */
record NodeStats(
    long columns, long bytes, long estimated, long limit, long tripped,
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
        out.writeVLong(columns);
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
        builder.field("columns", columns);
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
