// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Collections;
import java.util.Map;
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

/**
 * A field that holds codes.
 *
 * <p>The class loader of this plugin does not see the classes of the k-NN plugin. The properties of the field are therefore
 * read from the mapper's JSON, the format of {@code GET _mapping}, which is a public interface.
 *
 * @param name the concrete field name, with aliases resolved
 * @param width bytes of a code
 * @param nestedPath the path of the innermost nested object that contains the field, or null if none does
 */
record CodeField(String name, int width, String nestedPath) {
    // Cached: serializing a mapping takes longer than a small search. A mapper is immutable, a changed mapping has new ones.
    private static final Map<Mapper, Integer> DIMENSIONS = Collections.synchronizedMap(new WeakHashMap<>());

    /** The code field called {@code name}. Throws IllegalArgumentException if there is none or it is not a code field. */
    static CodeField of(MapperService mappings, MappedFieldType type, String name) {
        if (type == null) {
            throw new IllegalArgumentException("no field [" + name + "]");
        }
        if (!"knn_vector".equals(type.typeName())) {
            throw new IllegalArgumentException("field [" + name + "] is a " + type.typeName() + ", not a code field" + EXPECTED);
        }
        Mapper mapper = mappings.documentMapper().mappers().getMapper(type.name());
        int bits = DIMENSIONS.computeIfAbsent(mapper, CodeField::bits);
        if (bits == 0) {
            throw new IllegalArgumentException("field [" + name + "] holds vectors that are not binary" + EXPECTED);
        }
        if (bits % 8 != 0) {
            throw new IllegalArgumentException("field [" + name + "] has " + bits + " bits, expected a multiple of 8");
        }
        return new CodeField(type.name(), bits / 8, nestedPath(mappings, type.name()));
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

    private static final String EXPECTED = ": expected a knn_vector with data_type binary";

    private static int bits(Mapper mapper) {
        try (XContentBuilder json = XContentFactory.jsonBuilder()) {
            json.startObject();
            mapper.toXContent(json, ToXContent.EMPTY_PARAMS);
            json.endObject();
            Map<String, Object> mapping = XContentHelper.convertToMap(BytesReference.bytes(json), false, MediaTypeRegistry.JSON).v2();
            Map<?, ?> settings = (Map<?, ?>) mapping.get(mapper.simpleName());
            boolean binary = "binary".equalsIgnoreCase(String.valueOf(settings.get("data_type")));
            return binary && settings.get("dimension") instanceof Number bits ? bits.intValue() : 0;
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
