// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;

import org.apache.lucene.index.BinaryDocValues;
import org.apache.lucene.index.ByteVectorValues;
import org.apache.lucene.index.DocValuesType;
import org.apache.lucene.index.FieldInfo;
import org.apache.lucene.index.KnnVectorValues;
import org.apache.lucene.index.LeafReader;
import org.apache.lucene.index.VectorEncoding;
import org.apache.lucene.search.DocIdSetIterator;
import org.apache.lucene.util.BytesRef;

/**
 * The codes of one field in one segment, read where Lucene keeps them.
 *
 * <p>The k-NN plugin keeps a binary vector in one of two ways, both of them the code's plain bytes: as binary doc
 * values (no {@code index.knn}, or old indices) or as a byte vector (its engines faiss and lucene). Which one it was
 * is asked of the segment itself, so an index that changed in between has both.
 */
abstract class DocValuesCodes {
    /** Over documents with a code, ascending. */
    final DocIdSetIterator iterator;
    /** How many documents have a code, or an upper bound. */
    final int size;

    private DocValuesCodes(DocIdSetIterator iterator, int size) {
        this.iterator = iterator;
        this.size = size;
    }

    /** The code of the document that the iterator stands on. */
    abstract BytesRef code() throws IOException;

    /** Whether the segment may hold codes of the field, and this reader may show them. */
    static boolean exist(LeafReader reader, String field) {
        FieldInfo info = reader.getFieldInfos().fieldInfo(field);
        return info != null && (isVector(info) || info.getDocValuesType() == DocValuesType.BINARY);
    }

    /** The field's codes, or null where the segment has none. */
    static DocValuesCodes open(LeafReader reader, String field) throws IOException {
        FieldInfo info = reader.getFieldInfos().fieldInfo(field);
        if (info == null) {
            return null;
        }
        if (isVector(info)) {
            ByteVectorValues values = reader.getByteVectorValues(field);
            return values == null ? null : new Vectors(values, values.iterator());
        }
        BinaryDocValues values = reader.getBinaryDocValues(field);
        return values == null ? null : new DocValues(values, reader.maxDoc());
    }

    private static boolean isVector(FieldInfo info) {
        return info.getVectorDimension() > 0 && info.getVectorEncoding() == VectorEncoding.BYTE;
    }

    private static final class DocValues extends DocValuesCodes {
        private final BinaryDocValues values;

        DocValues(BinaryDocValues values, int maxDoc) {
            super(values, (int) Math.min(values.cost(), maxDoc));
            this.values = values;
        }

        @Override
        BytesRef code() throws IOException {
            return values.binaryValue();
        }
    }

    private static final class Vectors extends DocValuesCodes {
        private final ByteVectorValues values;
        private final KnnVectorValues.DocIndexIterator at;
        private final BytesRef code = new BytesRef();

        Vectors(ByteVectorValues values, KnnVectorValues.DocIndexIterator at) {
            super(at, values.size());
            this.values = values;
            this.at = at;
        }

        @Override
        BytesRef code() throws IOException {
            code.bytes = values.vectorValue(at.index());
            code.length = code.bytes.length;
            return code;
        }
    }
}
