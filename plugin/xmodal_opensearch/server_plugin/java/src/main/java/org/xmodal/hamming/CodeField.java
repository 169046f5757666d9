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
 * A field that holds codes: its true name (an alias is followed) and the bytes of a code.
 *
 * <p>The k-NN plugin's classes are not ours to see, so we ask the mapper what it would answer to {@code GET _mapping}:
 * that is a public contract, where class names are not.
 */
record CodeField(String name, int width) {
    // Telling the mapping as JSON takes longer than a small search, and a mapper never changes: a new mapping has new ones.
    private static final Map<Mapper, Integer> DIMENSIONS = Collections.synchronizedMap(new WeakHashMap<>());

    /** Throws IllegalArgumentException, with the reason, for a field that is unknown or holds no codes. */
    static CodeField of(MapperService mappings, MappedFieldType type, String name) {
        if (type == null) {
            throw new IllegalArgumentException("no field [" + name + "]");
        }
        if (!"knn_vector".equals(type.typeName())) {
            throw new IllegalArgumentException("field [" + name + "] is a " + type.typeName() + ", not a code field" + WANTED);
        }
        for (int dot = type.name().lastIndexOf('.'); dot > 0; dot = type.name().lastIndexOf('.', dot - 1)) {
            String parent = type.name().substring(0, dot);
            ObjectMapper object = mappings.getObjectMapper(parent);
            if (object != null && object.nested().isNested()) {
                throw new IllegalArgumentException(
                    "field [" + name + "] lies in nested [" + parent + "]: codes of nested documents are not searched by hamming"
                );
            }
        }
        Mapper mapper = mappings.documentMapper().mappers().getMapper(type.name());
        int bits = DIMENSIONS.computeIfAbsent(mapper, CodeField::bits);
        if (bits == 0) {
            throw new IllegalArgumentException("field [" + name + "] holds vectors that are not binary" + WANTED);
        }
        if (bits % 8 != 0) {
            throw new IllegalArgumentException("field [" + name + "] has " + bits + " bits, which is not a whole number of bytes");
        }
        return new CodeField(type.name(), bits / 8);
    }

    private static final String WANTED = ": hamming wants a knn_vector with data_type binary";

    private static int bits(Mapper mapper) {
        try (XContentBuilder json = XContentFactory.jsonBuilder()) {
            json.startObject();
            mapper.toXContent(json, ToXContent.EMPTY_PARAMS);
            json.endObject();
            Map<String, Object> told = XContentHelper.convertToMap(BytesReference.bytes(json), false, MediaTypeRegistry.JSON).v2();
            Map<?, ?> settings = (Map<?, ?>) told.get(mapper.simpleName());
            boolean binary = "binary".equalsIgnoreCase(String.valueOf(settings.get("data_type")));
            return binary && settings.get("dimension") instanceof Number bits ? bits.intValue() : 0;
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
