// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Objects;

import org.apache.lucene.search.Query;
import org.opensearch.core.common.io.stream.NamedWriteableRegistry;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.index.query.QueryBuilder;
import org.opensearch.index.query.QueryShardContext;

/** The {@code vector_cosine} query of a request; serialized between nodes and converted to a {@link CosineQuery} on each shard. */
final class CosineQueryBuilder extends FilteredQueryBuilder<CosineQueryBuilder> {
    static final String NAME = "vector_cosine";
    /** The name between nodes with {@code ignore_unmapped}, which version 0.2 of the plugin lacks and so refuses. */
    private static final String UNMAPPED_NAME = "vector_cosine_unmapped";

    private final String field;
    private final byte[] vector;

    /** {@code filter} may be null. */
    CosineQueryBuilder(String field, byte[] vector, QueryBuilder filter, boolean ignoreUnmapped) {
        super(filter, ignoreUnmapped);
        this.field = field;
        this.vector = vector;
    }

    /** Reads a query that was sent as {@link #NAME}. */
    CosineQueryBuilder(StreamInput in) throws IOException {
        this(in, false);
    }

    private CosineQueryBuilder(StreamInput in, boolean ignoreUnmapped) throws IOException {
        super(in, ignoreUnmapped);
        field = in.readString();
        vector = in.readByteArray();
        readFilter(in);
    }

    /** Reader of the name with {@code ignore_unmapped}. */
    static NamedWriteableRegistry.Entry otherName() {
        return new NamedWriteableRegistry.Entry(QueryBuilder.class, UNMAPPED_NAME, in -> new CosineQueryBuilder(in, true));
    }

    @Override
    protected void doWriteTo(StreamOutput out) throws IOException {
        out.writeString(field);
        out.writeByteArray(vector);
        writeFilter(out);
    }

    @Override
    public String getWriteableName() {
        return ignoreUnmapped ? UNMAPPED_NAME : NAME;
    }

    @Override
    public String getName() {
        return NAME;
    }

    static CosineQueryBuilder parse(XContentParser parser) throws IOException {
        return new BodyParser(parser).query();
    }

    private static final class BodyParser extends Parser {
        private String field;
        private byte[] vector;

        BodyParser(XContentParser parser) {
            super(parser, NAME, "field, vector");
        }

        CosineQueryBuilder query() throws IOException {
            parseBody();
            if (field == null || vector == null) {
                throw error("requires [field] and [vector]");
            }
            return withBoostAndName(new CosineQueryBuilder(field, vector, filter, ignoreUnmapped));
        }

        @Override
        boolean value(String key) throws IOException {
            switch (key) {
                case "field" -> field = text(key, "a name");
                case "vector" -> vector = vector(key);
                default -> {
                    return super.value(key);
                }
            }
            return true;
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
        commonToXContent(builder, params);
        builder.endObject();
    }

    @Override
    CosineQueryBuilder with(QueryBuilder newFilter) {
        return new CosineQueryBuilder(field, vector, newFilter, ignoreUnmapped).boost(boost()).queryName(queryName());
    }

    @Override
    List<String> fieldNames() {
        return List.of(field);
    }

    @Override
    CodeField field(QueryShardContext context, String name) {
        return CodeField.ofVectors(context.getMapperService(), context.fieldMapper(name), name);
    }

    @Override
    Query onFields(List<CodeField> fields, Query filter) {
        CodeField found = fields.get(0);
        if (vector.length != found.width()) {
            throw new IllegalArgumentException("[vector] has " + vector.length + " numbers; the field has " + found.width());
        }
        return new CosineQuery(found.name(), vector, filter);
    }

    @Override
    protected boolean doEquals(CosineQueryBuilder other) {
        return super.doEquals(other) && field.equals(other.field) && Arrays.equals(vector, other.vector);
    }

    @Override
    protected int doHashCode() {
        return Objects.hash(super.doHashCode(), field, Arrays.hashCode(vector));
    }
}
