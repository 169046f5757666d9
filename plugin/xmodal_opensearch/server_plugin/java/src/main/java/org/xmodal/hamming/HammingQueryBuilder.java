// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;

import org.apache.lucene.search.BooleanClause;
import org.apache.lucene.search.Query;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.index.query.AbstractQueryBuilder;
import org.opensearch.index.query.BoolQueryBuilder;
import org.opensearch.index.query.QueryBuilder;
import org.opensearch.index.query.QueryBuilderVisitor;
import org.opensearch.index.query.QueryRewriteContext;
import org.opensearch.index.query.QueryShardContext;
import org.opensearch.index.query.QueryShardException;

/** The {@code hamming} query of a request; serialized between nodes and converted to a {@link HammingQuery} on each shard. */
final class HammingQueryBuilder extends AbstractQueryBuilder<HammingQueryBuilder> {
    static final String NAME = "hamming";
    /**
     * The name of a query with weights between nodes. A node with version 0.1 of the plugin, which has no weights, refuses the
     * name; queries without weights are exchanged with it.
     */
    static final String WEIGHTED_NAME = "hamming_weighted";
    static final int ANY_DISTANCE = Integer.MAX_VALUE;

    private final HammingService service;
    final List<String> fields;
    final List<QueryCode> codes;
    /** One text of hexadecimal digits per code, or empty without weights. */
    final List<String> weights;
    final int maxDistance;
    final QueryBuilder filter;

    /** {@code filter} may be null. */
    HammingQueryBuilder(
        HammingService service, List<String> fields, List<QueryCode> codes, List<String> weights, int maxDistance, QueryBuilder filter
    ) {
        this.service = service;
        this.fields = List.copyOf(fields);
        this.codes = List.copyOf(codes);
        this.weights = List.copyOf(weights);
        this.maxDistance = maxDistance;
        this.filter = filter;
    }

    /** Reads a query sent as {@link #NAME} or, with {@code weighted}, as {@link #WEIGHTED_NAME}. */
    HammingQueryBuilder(HammingService service, StreamInput in, boolean weighted) throws IOException {
        super(in);
        this.service = service;
        fields = in.readStringList();
        codes = in.readList(i -> i.readBoolean() ? QueryCode.ofText(i.readString()) : QueryCode.ofBytes(i.readByteArray()));
        maxDistance = in.readVInt();
        filter = in.readOptionalNamedWriteable(QueryBuilder.class);
        weights = weighted ? in.readStringList() : List.of();
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
        out.writeOptionalNamedWriteable(filter);
        if (!weights.isEmpty()) {
            out.writeStringCollection(weights);
        }
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
        if (filter != null) {
            builder.field("filter", filter, params);
        }
        printBoostAndQueryName(builder);
        builder.endObject();
    }

    private HammingQueryBuilder with(QueryBuilder other) {
        HammingQueryBuilder copy = new HammingQueryBuilder(service, fields, codes, weights, maxDistance, other);
        copy.boost(boost());
        copy.queryName(queryName());
        return copy;
    }

    /** Combines a filter of an outer query (hybrid passes its own) with the filter of this query. */
    public QueryBuilder filter(QueryBuilder other) {
        if (other == null) {
            return this;
        }
        return with(filter == null ? other : new BoolQueryBuilder().filter(filter).filter(other));
    }

    @Override
    protected QueryBuilder doRewrite(QueryRewriteContext context) throws IOException {
        QueryBuilder rewritten = filter == null ? null : filter.rewrite(context);
        return rewritten == filter ? this : with(rewritten);
    }

    @Override
    public void visit(QueryBuilderVisitor visitor) {
        visitor.accept(this);
        if (filter != null) {
            filter.visit(visitor.getChildVisitor(BooleanClause.Occur.FILTER));
        }
    }

    /**
     * Whether one segment may be scored by several threads: without a filter only, as a filter may not support it.
     *
     * <p>Overrides a method that early 3.x servers lack, hence no {@code @Override}.
     */
    public boolean supportsIntraSegmentSearch() {
        return filter == null;
    }

    @Override
    protected Query doToQuery(QueryShardContext context) throws IOException {
        try {
            List<CodeField> found = new ArrayList<>();
            for (String field : fields) {
                CodeField next = CodeField.of(context.getMapperService(), context.fieldMapper(field), field);
                if (!found.contains(next)) {
                    found.add(next);
                }
            }
            int width = found.get(0).width();
            for (CodeField field : found) {
                if (field.width() != width) {
                    throw new IllegalArgumentException(
                        "fields [" + found.get(0).name() + "] and [" + field.name() + "] have " + 8 * width + " and "
                            + 8 * field.width() + " bits, expected the same number in all fields"
                    );
                }
            }
            for (CodeField field : found) {
                field.checkScope(context, filter != null);
            }
            int largest = Math.min(maxDistance, 8 * width);
            ComparedCode[] compared = new ComparedCode[codes.size()];
            for (int c = 0; c < compared.length; c++) {
                compared[c] = new ComparedCode(codes.get(c).decode(width), weights.isEmpty() ? null : weights.get(c), largest);
            }
            String[] names = found.stream().map(CodeField::name).toArray(String[]::new);
            Query inner = filter == null ? null : filter.toQuery(context);
            service.recordUse(context, found);
            HammingQuery query = new HammingQuery(service.cache, names, width, compared, largest, inner);
            return context.getMapperService().hasNested() ? FieldScope.around(query, names[0]) : query;
        } catch (IllegalArgumentException e) {
            throw new QueryShardException(context, "[" + NAME + "] " + e.getMessage(), e);
        }
    }

    @Override
    protected boolean doEquals(HammingQueryBuilder other) {
        return fields.equals(other.fields) && codes.equals(other.codes) && weights.equals(other.weights) && maxDistance == other.maxDistance
            && Objects.equals(filter, other.filter);
    }

    @Override
    protected int doHashCode() {
        return Objects.hash(fields, codes, weights, maxDistance, filter);
    }

    @Override
    public String getWriteableName() {
        return weights.isEmpty() ? NAME : WEIGHTED_NAME;
    }

    @Override
    public String getName() {
        return NAME;
    }
}
