// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Collections;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.WeakHashMap;

import org.opensearch.common.xcontent.XContentFactory;
import org.opensearch.common.xcontent.XContentHelper;
import org.opensearch.core.common.bytes.BytesReference;
import org.opensearch.core.xcontent.MediaTypeRegistry;
import org.opensearch.core.xcontent.ToXContent;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.index.mapper.MappedFieldType;
import org.opensearch.index.mapper.Mapper;
import org.opensearch.index.mapper.MapperService;
import org.opensearch.index.mapper.ObjectMapper;
import org.opensearch.index.query.QueryShardContext;

/**
 * A field that holds codes or byte vectors.
 *
 * <p>The class loader of this plugin does not see the classes of the k-NN plugin. The properties of the field are therefore
 * read from the mapper's JSON, the format of {@code GET _mapping}, which is a public interface.
 *
 * @param name the concrete field name, with aliases resolved
 * @param width bytes of a code or vector
 * @param nestedPath the path of the innermost nested object that contains the field, or null if none does
 */
record CodeField(String name, int width, String nestedPath) {
    // Cached: serializing a mapping takes longer than a small search. A mapper is immutable, a changed mapping has new ones.
    private static final Map<Mapper, Vectors> VECTORS = Collections.synchronizedMap(new WeakHashMap<>());

    private static final String CODES = ": expected a knn_vector with data_type binary";
    private static final String BYTES = ": expected a knn_vector with data_type byte";

    /** Type and number of the elements of a knn_vector field. */
    private record Vectors(String type, int dimension) {}

    /** The code field called {@code name}. Throws IllegalArgumentException if there is none or it is not a code field. */
    static CodeField of(MapperService mappings, MappedFieldType type, String name) {
        int bits = dimension(mappings, type, name, "binary", "not a code field" + CODES, "vectors that are not binary" + CODES);
        if (bits % 8 != 0) {
            throw new IllegalArgumentException("field [" + name + "] has " + bits + " bits, expected a multiple of 8");
        }
        return new CodeField(type.name(), bits / 8, nestedPath(mappings, type.name()));
    }

    /** The field of byte vectors called {@code name}. Throws IllegalArgumentException if there is none or it has no byte vectors. */
    static CodeField ofVectors(MapperService mappings, MappedFieldType type, String name) {
        int dimension = dimension(mappings, type, name, "byte", "not a vector field" + BYTES, "vectors that are not bytes" + BYTES);
        return new CodeField(type.name(), dimension, nestedPath(mappings, type.name()));
    }

    private static int dimension(
        MapperService mappings, MappedFieldType type, String name, String dataType, String otherField, String otherVectors
    ) {
        if (type == null) {
            throw new IllegalArgumentException("no field [" + name + "]");
        }
        if (!"knn_vector".equals(type.typeName())) {
            throw new IllegalArgumentException("field [" + name + "] is a " + type.typeName() + ", " + otherField);
        }
        Vectors vectors = VECTORS.computeIfAbsent(mappings.documentMapper().mappers().getMapper(type.name()), CodeField::vectors);
        if (!vectors.type.equals(dataType) || vectors.dimension == 0) {
            throw new IllegalArgumentException("field [" + name + "] holds " + otherVectors);
        }
        return vectors.dimension;
    }

    /** The path of the innermost nested object that contains a field, or null if none does. */
    private static String nestedPath(MapperService mappings, String name) {
        for (int dot = name.lastIndexOf('.'); dot > 0; dot = name.lastIndexOf('.', dot - 1)) {
            ObjectMapper object = mappings.getObjectMapper(name.substring(0, dot));
            if (object != null && object.nested().isNested()) {
                return object.fullPath();
            }
        }
        return null;
    }

    private static Vectors vectors(Mapper mapper) {
        try (XContentBuilder json = XContentFactory.jsonBuilder()) {
            json.startObject();
            mapper.toXContent(json, ToXContent.EMPTY_PARAMS);
            json.endObject();
            Map<String, Object> mapping = XContentHelper.convertToMap(BytesReference.bytes(json), false, MediaTypeRegistry.JSON).v2();
            Map<?, ?> settings = (Map<?, ?>) mapping.get(mapper.simpleName());
            String type = String.valueOf(settings.get("data_type")).toLowerCase(Locale.ROOT);
            return new Vectors(type, settings.get("dimension") instanceof Number dimension ? dimension.intValue() : 0);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /**
     * Checks that the field belongs to the documents that the enclosing query searches: the objects of the path of a
     * {@code nested} query, else whole documents. Throws IllegalArgumentException otherwise, as the query would match nothing.
     *
     * @param filtered whether the query has a filter, which is refused inside a {@code nested} query
     */
    void checkScope(QueryShardContext context, boolean filtered) {
        ObjectMapper scope = context.nestedScope().getObjectMapper();
        String path = scope == null ? null : scope.fullPath();
        if (!Objects.equals(nestedPath, path)) {
            throw new IllegalArgumentException(
                nestedPath == null
                    ? "field [" + name + "] is outside of nested [" + path + "]: expected a field inside it"
                    : "field [" + name + "] is inside nested [" + nestedPath + "]: put this query into a nested query with that path"
            );
        }
        if (path != null && filtered) {
            throw new IllegalArgumentException(
                "[filter] is not supported inside a nested query: put a filter on nested objects beside this query into a bool, "
                    + "and a filter on documents into a bool around the nested query"
            );
        }
    }
}
