// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.Map;
import java.util.Objects;

import org.apache.lucene.search.BooleanClause.Occur;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.Query;
import org.opensearch.common.lucene.search.Queries;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.core.xcontent.XContentParser.Token;
import org.opensearch.index.mapper.MapperService;
import org.opensearch.index.query.AbstractQueryBuilder;
import org.opensearch.index.query.InnerHitContextBuilder;
import org.opensearch.index.query.MatchNoneQueryBuilder;
import org.opensearch.index.query.QueryBuilder;
import org.opensearch.index.query.QueryBuilderVisitor;
import org.opensearch.index.query.QueryRewriteContext;
import org.opensearch.index.query.QueryShardContext;
import org.opensearch.index.query.QueryShardException;
import org.opensearch.index.search.NestedHelper;

/** The {@code two_stage} query of a request; serialized between nodes and converted to a {@link TwoStageQuery} on each shard. */
final class TwoStageQueryBuilder extends AbstractQueryBuilder<TwoStageQueryBuilder> {
    static final String NAME = "two_stage";
    private static final int DEFAULT_WINDOW = 300;
    private static final int MAX_WINDOW = 10_000;

    private final QueryBuilder first;
    private final QueryBuilder second;
    private final int window;

    TwoStageQueryBuilder(QueryBuilder first, QueryBuilder second, int window) {
        this.first = first;
        this.second = second;
        this.window = window;
    }

    TwoStageQueryBuilder(StreamInput in) throws IOException {
        super(in);
        first = in.readNamedWriteable(QueryBuilder.class);
        second = in.readNamedWriteable(QueryBuilder.class);
        window = in.readVInt();
    }

    @Override
    protected void doWriteTo(StreamOutput out) throws IOException {
        out.writeNamedWriteable(first);
        out.writeNamedWriteable(second);
        out.writeVInt(window);
    }

    static TwoStageQueryBuilder parse(XContentParser parser) throws IOException {
        return new Parser(parser).query();
    }

    private static final class Parser extends BodyParser {
        private QueryBuilder first;
        private QueryBuilder second;
        private int window = DEFAULT_WINDOW;

        Parser(XContentParser parser) {
            super(parser, NAME, "first, second, window");
        }

        TwoStageQueryBuilder query() throws IOException {
            parseBody();
            if (first == null || second == null) {
                throw error("requires [first] and [second]");
            }
            return withBoostAndName(new TwoStageQueryBuilder(first, second, window));
        }

        @Override
        boolean value(String key) throws IOException {
            switch (key) {
                case "first" -> first = query(key);
                case "second" -> second = query(key);
                case "window" -> window = integer(key, 1, MAX_WINDOW, "from 1 to " + MAX_WINDOW);
                default -> {
                    return false;
                }
            }
            return true;
        }
    }

    @Override
    protected void doXContent(XContentBuilder builder, Params params) throws IOException {
        builder.startObject(NAME);
        builder.field("first", first, params);
        builder.field("second", second, params);
        builder.field("window", window);
        printBoostAndQueryName(builder);
        builder.endObject();
    }

    private TwoStageQueryBuilder with(QueryBuilder newFirst, QueryBuilder newSecond) {
        return new TwoStageQueryBuilder(newFirst, newSecond, window).boost(boost()).queryName(queryName());
    }

    /**
     * Applies a filter of an outer query (hybrid passes its own) to the first stage, before the window is taken.
     *
     * <p>Overrides a method that servers of 2.x lack, hence no {@code @Override}.
     */
    public QueryBuilder filter(QueryBuilder other) {
        return other == null ? this : with(Versioned.restrict(first, other), second);
    }

    @Override
    protected QueryBuilder doRewrite(QueryRewriteContext context) throws IOException {
        QueryBuilder newFirst = first.rewrite(context);
        if (newFirst instanceof MatchNoneQueryBuilder) {
            return new MatchNoneQueryBuilder();
        }
        QueryBuilder newSecond = second.rewrite(context);
        return newFirst == first && newSecond == second ? this : with(newFirst, newSecond);
    }

    @Override
    protected void extractInnerHitBuilders(Map<String, InnerHitContextBuilder> innerHits) {
        InnerHitContextBuilder.extractInnerHits(first, innerHits);
        InnerHitContextBuilder.extractInnerHits(second, innerHits);
    }

    @Override
    public void visit(QueryBuilderVisitor visitor) {
        visitor.accept(this);
        first.visit(visitor.getChildVisitor(Occur.MUST));
        second.visit(visitor.getChildVisitor(Occur.SHOULD));
    }

    @Override
    protected Query doToQuery(QueryShardContext context) throws IOException {
        if (context.nestedScope().getObjectMapper() != null) {
            throw new QueryShardException(
                context, "[" + NAME + "] is not supported inside a nested query: put nested queries into [first] and [second]"
            );
        }
        return new TwoStageQuery(ofDocuments(first.toQuery(context), context.getMapperService()), second.toQuery(context), window);
    }

    /** Restricts a query to whole documents: without this, nested objects that match would count for the window. */
    private static Query ofDocuments(Query query, MapperService mappings) {
        if (!mappings.hasNested() || !new NestedHelper(mappings).mightMatchNestedDocs(query)) {
            return query;
        }
        return new BooleanQuery.Builder().add(query, Occur.MUST).add(Queries.newNonNestedFilter(), Occur.FILTER).build();
    }

    @Override
    protected boolean doEquals(TwoStageQueryBuilder other) {
        return first.equals(other.first) && second.equals(other.second) && window == other.window;
    }

    @Override
    protected int doHashCode() {
        return Objects.hash(first, second, window);
    }

    @Override
    public String getWriteableName() {
        return NAME;
    }
}
