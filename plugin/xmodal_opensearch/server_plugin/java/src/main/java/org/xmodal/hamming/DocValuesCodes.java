// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;

import org.apache.lucene.index.BinaryDocValues;
import org.apache.lucene.index.ByteVectorValues;
import org.apache.lucene.index.DocValuesType;
import org.apache.lucene.index.FieldInfo;
import org.apache.lucene.index.FilterLeafReader;
import org.apache.lucene.index.LeafReader;
import org.apache.lucene.index.VectorEncoding;
import org.apache.lucene.search.DocIdSetIterator;
import org.apache.lucene.util.BytesRef;

/**
 * Iterator over the codes of one field in one segment, read from the Lucene index.
 *
 * <p>The k-NN plugin stores a binary vector as its plain bytes, in one of two formats: binary doc values (without
 * {@code index.knn}, and in old indices) or a byte vector (engines faiss and lucene). The format is detected per segment,
 * because the segments of one index can differ after a change of its settings.
 */
abstract class DocValuesCodes {
    /** Package of the server's own wrappers, which check timeout and cancellation. */
    private static final String SERVER_WRAPPERS = "org.opensearch.search.internal";

    /** Documents with a code, ascending. */
    final DocIdSetIterator iterator;
    /** Number of documents with a code, or an upper bound of it. */
    final int size;

    private DocValuesCodes(DocIdSetIterator iterator, int size) {
        this.iterator = iterator;
        this.size = size;
    }

    /** The code of the iterator's current document. */
    abstract BytesRef code() throws IOException;

    /** Whether the segment has a field of that name in one of the two formats, visible to this reader. */
    static boolean exist(LeafReader reader, String field) {
        FieldInfo info = reader.getFieldInfos().fieldInfo(field);
        return info != null && (isVector(info) || info.getDocValuesType() == DocValuesType.BINARY);
    }

    /** Opens the codes of {@code field}, or returns null if the segment has none. */
    static DocValuesCodes open(LeafReader reader, String field) throws IOException {
        Object values = values(reader, field);
        if (values instanceof ByteVectorValues vectors) {
            return new VectorValues(new Versioned.Vectors(vectors), vectors.size());
        }
        return values instanceof BinaryDocValues binary ? new BinaryValues(binary, reader.maxDoc()) : null;
    }

    /** The values of a field, of one of two classes, or null if it has none. */
    private static Object values(LeafReader reader, String field) throws IOException {
        FieldInfo info = reader.getFieldInfos().fieldInfo(field);
        if (info == null) {
            return null;
        }
        return isVector(info) ? reader.getByteVectorValues(field) : reader.getBinaryDocValues(field);
    }

    /**
     * Whether a reader returns the values of {@code field} as the reader inside it does. A wrapper that changes values returns
     * values of a class of its own. Wrappers of the server change none and are not checked, as this costs microseconds.
     */
    static boolean sameValues(LeafReader wrapper, LeafReader inside, String field) throws IOException {
        LeafReader reader = wrapper;
        while (reader != inside && reader instanceof FilterLeafReader filter && reader.getClass().getPackageName().equals(SERVER_WRAPPERS)) {
            reader = filter.getDelegate();
        }
        return reader == inside || classOf(values(wrapper, field)) == classOf(values(inside, field));
    }

    private static Class<?> classOf(Object values) {
        return values == null ? null : values.getClass();
    }

    private static boolean isVector(FieldInfo info) {
        return info.getVectorDimension() > 0 && info.getVectorEncoding() == VectorEncoding.BYTE;
    }

    private static final class BinaryValues extends DocValuesCodes {
        private final BinaryDocValues values;

        BinaryValues(BinaryDocValues values, int maxDoc) {
            super(values, (int) Math.min(values.cost(), maxDoc));
            this.values = values;
        }

        @Override
        BytesRef code() throws IOException {
            return values.binaryValue();
        }
    }

    private static final class VectorValues extends DocValuesCodes {
        private final Versioned.Vectors vectors;
        private final BytesRef code = new BytesRef();

        VectorValues(Versioned.Vectors vectors, int size) {
            super(vectors.iterator, size);
            this.vectors = vectors;
        }

        @Override
        BytesRef code() throws IOException {
            code.bytes = vectors.current();
            code.length = code.bytes.length;
            return code;
        }
    }
}
