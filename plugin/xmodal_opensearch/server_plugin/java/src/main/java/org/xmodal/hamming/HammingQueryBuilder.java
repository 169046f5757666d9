// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.List;
import java.util.Objects;

import org.apache.lucene.search.Query;
import org.opensearch.core.common.io.stream.NamedWriteableRegistry;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.index.query.QueryBuilder;
import org.opensearch.index.query.QueryShardContext;

/** The {@code hamming} query of a request; serialized between nodes and converted to a {@link HammingQuery} on each shard. */
final class HammingQueryBuilder extends FilteredQueryBuilder<HammingQueryBuilder> {
    static final String NAME = "hamming";
    static final int ANY_DISTANCE = Integer.MAX_VALUE;

    // A query is sent between nodes under the oldest name that can express it, so that a node with an older version of the
    // plugin refuses what it does not support. Version 0.1 has NAME only, 0.2 has no UNMAPPED_NAME.
    private static final String WEIGHTED_NAME = "hamming_weighted";
    private static final String UNMAPPED_NAME = "hamming_unmapped";

    private final HammingService service;
    final List<String> fields;
    final List<QueryCode> codes;
    /** One text of hexadecimal digits per code, or empty without weights. */
    final List<String> weights;
    final int maxDistance;

    /** {@code filter} may be null. */
    HammingQueryBuilder(
        HammingService service, List<String> fields, List<QueryCode> codes, List<String> weights, int maxDistance, QueryBuilder filter,
        boolean ignoreUnmapped
    ) {
        super(filter, ignoreUnmapped);
        this.service = service;
        this.fields = List.copyOf(fields);
        this.codes = List.copyOf(codes);
        this.weights = List.copyOf(weights);
        this.maxDistance = maxDistance;
    }

    /** Reads a query that was sent as {@link #NAME}. */
    HammingQueryBuilder(HammingService service, StreamInput in) throws IOException {
        this(service, in, NAME);
    }

    /** Reads a query that was sent under one of the names. */
    private HammingQueryBuilder(HammingService service, StreamInput in, String sentAs) throws IOException {
        super(in, sentAs.equals(UNMAPPED_NAME));
        this.service = service;
        fields = in.readStringList();
        codes = in.readList(i -> i.readBoolean() ? QueryCode.ofText(i.readString()) : QueryCode.ofBytes(i.readByteArray()));
        maxDistance = in.readVInt();
        readFilter(in);
        weights = sentAs.equals(NAME) ? List.of() : in.readStringList();
    }

    /** Readers of the names besides {@link #NAME}. */
    static List<NamedWriteableRegistry.Entry> otherNames(HammingService service) {
        return List.of(WEIGHTED_NAME, UNMAPPED_NAME).stream().map(
            name -> new NamedWriteableRegistry.Entry(QueryBuilder.class, name, in -> new HammingQueryBuilder(service, in, name))
        ).toList();
    }

    @Override
    protected void doWriteTo(StreamOutput out) throws IOException {
        out.writeStringCollection(fields);
        out.writeVInt(codes.size());
        for (QueryCode code : codes) {
            out.writeBoolean(code.text() != null);
            if (code.text() != null) {
                out.writeString(code.text());
            } else {
                out.writeByteArray(code.bytes());
            }
        }
        out.writeVInt(maxDistance);
        writeFilter(out);
        if (!getWriteableName().equals(NAME)) {
            out.writeStringCollection(weights);
        }
    }

    @Override
    public String getWriteableName() {
        return ignoreUnmapped ? UNMAPPED_NAME : weights.isEmpty() ? NAME : WEIGHTED_NAME;
    }

    @Override
    public String getName() {
        return NAME;
    }

    @Override
    protected void doXContent(XContentBuilder builder, Params params) throws IOException {
        builder.startObject(NAME);
        builder.field("fields", fields);
        builder.startArray("codes");
        for (QueryCode code : codes) {
            if (code.text() != null) {
                builder.value(code.text());
            } else {
                builder.startArray();
                for (byte b : code.bytes()) {
                    builder.value(b);
                }
                builder.endArray();
            }
        }
        builder.endArray();
        if (!weights.isEmpty()) {
            builder.field("weights", weights);
        }
        if (maxDistance != ANY_DISTANCE) {
            builder.field("max_distance", maxDistance);
        }
        commonToXContent(builder, params);
        builder.endObject();
    }

    @Override
    HammingQueryBuilder with(QueryBuilder newFilter) {
        return new HammingQueryBuilder(service, fields, codes, weights, maxDistance, newFilter, ignoreUnmapped)
            .boost(boost()).queryName(queryName());
    }

    /**
     * Whether one segment may be scored by several threads: without a filter only, as a filter may not support it.
     *
     * <p>Overrides a method that early 3.x servers lack, hence no {@code @Override}.
     */
    public boolean supportsIntraSegmentSearch() {
        return !hasFilter();
    }

    @Override
    List<String> fieldNames() {
        return fields;
    }

    @Override
    CodeField field(QueryShardContext context, String name) {
        return CodeField.of(context.getMapperService(), context.fieldMapper(name), name);
    }

    @Override
    Query onFields(List<CodeField> found, Query filter) {
        int width = found.get(0).width();
        for (CodeField field : found) {
            if (field.width() != width) {
                throw new IllegalArgumentException(
                    "fields [" + found.get(0).name() + "] and [" + field.name() + "] have " + 8 * width + " and "
                        + 8 * field.width() + " bits, expected the same number in all fields"
                );
            }
        }
        int largest = Math.min(maxDistance, 8 * width);
        ComparedCode[] compared = new ComparedCode[codes.size()];
        for (int c = 0; c < compared.length; c++) {
            compared[c] = new ComparedCode(codes.get(c).decode(width), weights.isEmpty() ? null : weights.get(c), largest);
        }
        String[] names = found.stream().map(CodeField::name).toArray(String[]::new);
        return new HammingQuery(service, names, width, compared, largest, filter);
    }

    @Override
    protected boolean doEquals(HammingQueryBuilder other) {
        return super.doEquals(other) && fields.equals(other.fields) && codes.equals(other.codes) && weights.equals(other.weights)
            && maxDistance == other.maxDistance;
    }

    @Override
    protected int doHashCode() {
        return Objects.hash(super.doHashCode(), fields, codes, weights, maxDistance);
    }
}
