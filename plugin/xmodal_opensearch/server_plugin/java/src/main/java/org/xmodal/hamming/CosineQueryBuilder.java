// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.Arrays;
import java.util.Base64;
import java.util.Objects;

import org.apache.lucene.search.BooleanClause;
import org.apache.lucene.search.Query;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.core.xcontent.XContentParser.Token;
import org.opensearch.index.query.AbstractQueryBuilder;
import org.opensearch.index.query.BoolQueryBuilder;
import org.opensearch.index.query.QueryBuilder;
import org.opensearch.index.query.QueryBuilderVisitor;
import org.opensearch.index.query.QueryRewriteContext;
import org.opensearch.index.query.QueryShardContext;
import org.opensearch.index.query.QueryShardException;

/** The {@code vector_cosine} query of a request; serialized between nodes and converted to a {@link CosineQuery} on each shard. */
final class CosineQueryBuilder extends AbstractQueryBuilder<CosineQueryBuilder> {
    static final String NAME = "vector_cosine";

    private final String field;
    private final byte[] vector;
    private final QueryBuilder filter;

    /** {@code filter} may be null. */
    CosineQueryBuilder(String field, byte[] vector, QueryBuilder filter) {
        this.field = field;
        this.vector = vector;
        this.filter = filter;
    }

    CosineQueryBuilder(StreamInput in) throws IOException {
        super(in);
        field = in.readString();
        vector = in.readByteArray();
        filter = in.readOptionalNamedWriteable(QueryBuilder.class);
    }

    @Override
    protected void doWriteTo(StreamOutput out) throws IOException {
        out.writeString(field);
        out.writeByteArray(vector);
        out.writeOptionalNamedWriteable(filter);
    }

    static CosineQueryBuilder parse(XContentParser parser) throws IOException {
        return new Parser(parser).query();
    }

    private static final class Parser extends BodyParser {
        Parser(XContentParser parser) {
            super(parser, NAME);
        }

        CosineQueryBuilder query() throws IOException {
            String field = null;
            byte[] vector = null;
            QueryBuilder filter = null;
            float boost = DEFAULT_BOOST;
            String queryName = null;
            while (parser.nextToken() != Token.END_OBJECT) {
                String key = parser.currentName();
                parser.nextToken();
                switch (key) {
                    case "field" -> field = text(key, "a name");
                    case "vector" -> vector = vector(key);
                    case "filter" -> filter = query(key);
                    case "boost" -> boost = parser.floatValue();
                    case "_name" -> queryName = parser.text();
                    default -> throw error("unknown key [" + key + "]; expected field, vector, filter, boost, _name");
                }
            }
            if (field == null || vector == null) {
                throw error("requires [field] and [vector]");
            }
            return new CosineQueryBuilder(field, vector, filter).boost(boost).queryName(queryName);
        }

        private byte[] vector(String key) throws IOException {
            switch (parser.currentToken()) {
                case VALUE_STRING:
                    try {
                        return Base64.getDecoder().decode(parser.text());
                    } catch (IllegalArgumentException e) {
                        throw error("[" + key + "] is not base64 (with padding)");
                    }
                case VALUE_EMBEDDED_OBJECT:
                    return parser.binaryValue();
                case START_ARRAY:
                    return bytes(key, "");
                default:
                    throw error("[" + key + "] must be base64 or a list of integers from -128 to 127");
            }
        }
    }

    @Override
    protected void doXContent(XContentBuilder builder, Params params) throws IOException {
        builder.startObject(NAME);
        builder.field("field", field);
        builder.field("vector", Base64.getEncoder().encodeToString(vector));
        if (filter != null) {
            builder.field("filter", filter, params);
        }
        printBoostAndQueryName(builder);
        builder.endObject();
    }

    private CosineQueryBuilder with(QueryBuilder other) {
        return new CosineQueryBuilder(field, vector, other).boost(boost()).queryName(queryName());
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

    @Override
    protected Query doToQuery(QueryShardContext context) throws IOException {
        try {
            CodeField found = CodeField.ofVectors(context.getMapperService(), context.fieldMapper(field), field);
            if (vector.length != found.width()) {
                throw new IllegalArgumentException("[vector] has " + vector.length + " numbers; the field has " + found.width());
            }
            found.checkScope(context, filter != null);
            Query query = new CosineQuery(found.name(), vector, filter == null ? null : filter.toQuery(context));
            return context.getMapperService().hasNested() ? FieldScope.around(query, found.name()) : query;
        } catch (IllegalArgumentException e) {
            throw new QueryShardException(context, "[" + NAME + "] " + e.getMessage(), e);
        }
    }

    @Override
    protected boolean doEquals(CosineQueryBuilder other) {
        return field.equals(other.field) && Arrays.equals(vector, other.vector) && Objects.equals(filter, other.filter);
    }

    @Override
    protected int doHashCode() {
        return Objects.hash(field, Arrays.hashCode(vector), filter);
    }

    @Override
    public String getWriteableName() {
        return NAME;
    }
}
