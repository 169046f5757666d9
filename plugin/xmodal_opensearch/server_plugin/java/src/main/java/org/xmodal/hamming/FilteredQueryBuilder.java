// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;

import org.apache.lucene.search.BooleanClause.Occur;
import org.apache.lucene.search.MatchNoDocsQuery;
import org.apache.lucene.search.Query;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.index.query.AbstractQueryBuilder;
import org.opensearch.index.query.BoolQueryBuilder;
import org.opensearch.index.query.InnerHitContextBuilder;
import org.opensearch.index.query.MatchNoneQueryBuilder;
import org.opensearch.index.query.QueryBuilder;
import org.opensearch.index.query.QueryBuilderVisitor;
import org.opensearch.index.query.QueryRewriteContext;
import org.opensearch.index.query.QueryShardContext;
import org.opensearch.index.query.QueryShardException;

/** A query over code or vector fields, with an optional {@code filter} and {@code ignore_unmapped}. */
abstract class FilteredQueryBuilder<Q extends FilteredQueryBuilder<Q>> extends AbstractQueryBuilder<Q> {
    final boolean ignoreUnmapped;
    private QueryBuilder filter;

    /** {@code filter} may be null. */
    FilteredQueryBuilder(QueryBuilder filter, boolean ignoreUnmapped) {
        this.filter = filter;
        this.ignoreUnmapped = ignoreUnmapped;
    }

    /** Reads what all queries have. The subclass calls {@link #readFilter} where {@link #writeFilter} was called. */
    FilteredQueryBuilder(StreamInput in, boolean ignoreUnmapped) throws IOException {
        super(in);
        this.ignoreUnmapped = ignoreUnmapped;
    }

    /** The names of the fields in the request. */
    abstract List<String> fieldNames();

    /** The field of a name. Throws IllegalArgumentException if it does not exist or has another type. */
    abstract CodeField field(QueryShardContext context, String name);

    /** The Lucene query on {@code fields}, at least one; {@code filter} may be null. Throws IllegalArgumentException. */
    abstract Query onFields(List<CodeField> fields, Query filter);

    /** A copy with another filter and the same boost and name. */
    abstract Q with(QueryBuilder newFilter);

    final void readFilter(StreamInput in) throws IOException {
        filter = in.readOptionalNamedWriteable(QueryBuilder.class);
    }

    final void writeFilter(StreamOutput out) throws IOException {
        out.writeOptionalNamedWriteable(filter);
    }

    /** Writes the keys that all queries have. */
    final void commonToXContent(XContentBuilder builder, Params params) throws IOException {
        if (filter != null) {
            builder.field("filter", filter, params);
        }
        if (ignoreUnmapped) {
            builder.field("ignore_unmapped", true);
        }
        printBoostAndQueryName(builder);
    }

    /** Parser of the keys that all queries have. */
    abstract static class Parser extends BodyParser {
        QueryBuilder filter;
        boolean ignoreUnmapped;

        Parser(XContentParser parser, String name, String keys) {
            super(parser, name, keys + ", filter, ignore_unmapped");
        }

        @Override
        boolean value(String key) throws IOException {
            switch (key) {
                case "filter" -> filter = query(key);
                case "ignore_unmapped" -> ignoreUnmapped = bool(key);
                default -> {
                    return false;
                }
            }
            return true;
        }
    }

    /**
     * Combines a filter of an outer query (hybrid passes its own) with the filter of this query.
     *
     * <p>Overrides a method that servers of 2.x lack, hence no {@code @Override}.
     */
    public QueryBuilder filter(QueryBuilder other) {
        if (other == null) {
            return this;
        }
        return with(filter == null ? other : new BoolQueryBuilder().filter(filter).filter(other));
    }

    final boolean hasFilter() {
        return filter != null;
    }

    /** Rewrites to {@code match_none} if no document of the shard can match, so that the server skips the shard. */
    @Override
    protected QueryBuilder doRewrite(QueryRewriteContext context) throws IOException {
        QueryShardContext shard = context.convertToShardContext();
        if (ignoreUnmapped && shard != null && fieldNames().stream().allMatch(name -> shard.fieldMapper(name) == null)) {
            return new MatchNoneQueryBuilder();
        }
        QueryBuilder rewritten = filter == null ? null : filter.rewrite(context);
        if (rewritten instanceof MatchNoneQueryBuilder) {
            return new MatchNoneQueryBuilder();
        }
        return rewritten == filter ? this : with(rewritten);
    }

    @Override
    protected void extractInnerHitBuilders(Map<String, InnerHitContextBuilder> innerHits) {
        if (filter != null) {
            InnerHitContextBuilder.extractInnerHits(filter, innerHits);
        }
    }

    @Override
    public void visit(QueryBuilderVisitor visitor) {
        visitor.accept(this);
        if (filter != null) {
            filter.visit(visitor.getChildVisitor(Occur.FILTER));
        }
    }

    @Override
    protected final Query doToQuery(QueryShardContext context) throws IOException {
        try {
            List<CodeField> fields = new ArrayList<>();
            for (String name : fieldNames()) {
                if (ignoreUnmapped && context.fieldMapper(name) == null) {
                    continue;
                }
                CodeField field = field(context, name);
                field.checkScope(context, filter != null);
                if (!fields.contains(field)) {
                    fields.add(field);
                }
            }
            if (fields.isEmpty()) {
                return new MatchNoDocsQuery("no field of " + fieldNames());
            }
            Query query = onFields(fields, filter == null ? null : filter.toQuery(context));
            return context.getMapperService().hasNested() ? FieldScope.around(query, fields.get(0).name()) : query;
        } catch (IllegalArgumentException e) {
            throw new QueryShardException(context, "[" + getName() + "] " + e.getMessage(), e);
        }
    }

    @Override
    protected boolean doEquals(Q other) {
        return ignoreUnmapped == other.ignoreUnmapped && Objects.equals(filter, ((FilteredQueryBuilder<?>) other).filter);
    }

    @Override
    protected int doHashCode() {
        return Objects.hash(filter, ignoreUnmapped);
    }
}
