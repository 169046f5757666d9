// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;

import org.apache.lucene.index.DocValues;
import org.apache.lucene.index.LeafReader;
import org.apache.lucene.index.LeafReaderContext;
import org.apache.lucene.search.ConjunctionUtils;
import org.apache.lucene.search.DocIdSetIterator;
import org.apache.lucene.search.Explanation;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.ScoreMode;
import org.apache.lucene.search.Scorer;
import org.apache.lucene.search.ScorerSupplier;
import org.apache.lucene.search.Weight;
import org.apache.lucene.util.BytesRef;

/**
 * Lucene query that scores documents with (1 + cosine) / 2, the cosine of a byte vector of the document and the query's.
 *
 * <p>It matches documents that have a vector and match the filter. The dot product and the squared norms are exact integers.
 * The cosine with a vector of zeros is 0. Vectors are read from the Lucene index, one document at a time.
 */
final class CosineQuery extends FilteredQuery {
    final String field;
    final byte[] vector;

    /** {@code filter} may be null. */
    CosineQuery(String field, byte[] vector, Query filter) {
        super(new String[] { field }, filter);
        this.field = field;
        this.vector = vector;
    }

    /** Dot product of two byte vectors, the second at an offset. */
    private static long dot(byte[] a, byte[] bytes, int offset) {
        int sum = 0; // at most 2^14 per element
        for (int i = 0; i < a.length; i++) {
            sum += a[i] * bytes[offset + i];
        }
        return sum;
    }

    private static long squaredNorm(byte[] bytes, int offset, int length) {
        int sum = 0;
        for (int i = offset; i < offset + length; i++) {
            sum += bytes[i] * bytes[i];
        }
        return sum;
    }

    private double cosine(BytesRef other) {
        double norms = Math.sqrt((double) squaredNorm(vector, 0, vector.length) * squaredNorm(other.bytes, other.offset, other.length));
        return norms == 0 ? 0 : dot(vector, other.bytes, other.offset) / norms;
    }

    private static float score(double cosine, float boost) {
        return boost * (float) ((1 + cosine) / 2);
    }

    @Override
    Query with(Query newFilter) {
        return new CosineQuery(field, vector, newFilter);
    }

    @Override
    public Weight createWeight(IndexSearcher searcher, ScoreMode scoreMode, float boost) throws IOException {
        return new CosineWeight(filterWeight(searcher), boost);
    }

    private final class CosineWeight extends Versioned.BaseWeight {
        /** Weight of the filter, or null without a filter. */
        private final Weight filtering;
        private final float boost;

        CosineWeight(Weight filtering, float boost) {
            super(CosineQuery.this);
            this.filtering = filtering;
            this.boost = boost;
        }

        @Override
        public ScorerSupplier scorerSupplier(LeafReaderContext context) throws IOException {
            LeafReader reader = context.reader();
            if (!DocValuesCodes.exist(reader, field)) {
                return null;
            }
            ScorerSupplier filtered = filtering == null ? null : filtering.scorerSupplier(context);
            if (filtering != null && filtered == null) {
                return null;
            }
            return new ScorerSupplier() {
                @Override
                public Scorer get(long leadCost) throws IOException {
                    DocValuesCodes vectors = DocValuesCodes.open(reader, field);
                    if (vectors == null) {
                        return new CosineScorer(CosineWeight.this, null, DocIdSetIterator.empty(), boost);
                    }
                    if (filtered == null) {
                        return new CosineScorer(CosineWeight.this, vectors, vectors.iterator, boost);
                    }
                    List<DocIdSetIterator> both = List.of(filtered.get(leadCost).iterator(), vectors.iterator);
                    return new CosineScorer(CosineWeight.this, vectors, ConjunctionUtils.intersectIterators(both), boost);
                }

                @Override
                public long cost() {
                    return filtered == null ? reader.maxDoc() : filtered.cost();
                }
            };
        }

        @Override
        public Explanation explain(LeafReaderContext context, int doc) throws IOException {
            if (filtering != null && !filtering.explain(context, doc).isMatch()) {
                return Explanation.noMatch("the document does not match the filter " + filter);
            }
            DocValuesCodes vectors = DocValuesCodes.open(context.reader(), field);
            if (vectors == null || vectors.iterator.advance(doc) != doc) {
                return Explanation.noMatch("the document has no vector in " + field);
            }
            double cosine = cosine(vectors.code());
            String times = boost == 1 ? "" : ", times boost " + boost;
            return Explanation.match(
                score(cosine, boost), "(1 + cosine) / 2" + times,
                Explanation.match(cosine, "cosine of " + vector.length + " numbers in field " + field)
            );
        }

        @Override
        public boolean isCacheable(LeafReaderContext context) {
            return DocValues.isCacheable(context, field) && (filtering == null || filtering.isCacheable(context));
        }
    }

    private final class CosineScorer extends Versioned.BaseScorer {
        private final DocValuesCodes vectors;
        private final DocIdSetIterator documents;
        private final float boost;

        CosineScorer(Weight weight, DocValuesCodes vectors, DocIdSetIterator documents, float boost) {
            super(weight);
            this.vectors = vectors;
            this.documents = documents;
            this.boost = boost;
        }

        @Override
        public DocIdSetIterator iterator() {
            return documents;
        }

        @Override
        public int docID() {
            return documents.docID();
        }

        @Override
        public float score() throws IOException {
            return CosineQuery.score(cosine(vectors.code()), boost);
        }

        @Override
        public float getMaxScore(int upTo) {
            return boost;
        }
    }

    @Override
    public String toString(String defaultField) {
        return "vector_cosine(" + field + " ~ " + vector.length + " numbers" + (filter == null ? "" : " if " + filter) + ")";
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof CosineQuery query && field.equals(query.field) && Arrays.equals(vector, query.vector)
            && Objects.equals(filter, query.filter);
    }

    @Override
    public int hashCode() {
        return Objects.hash(classHash(), field, Arrays.hashCode(vector), filter);
    }
}
