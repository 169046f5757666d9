// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;

import org.apache.lucene.index.DocValues;
import org.apache.lucene.index.LeafReader;
import org.apache.lucene.index.LeafReaderContext;
import org.apache.lucene.search.BulkScorer;
import org.apache.lucene.search.DocIdSetIterator;
import org.apache.lucene.search.Explanation;
import org.apache.lucene.search.Scorer;
import org.apache.lucene.search.ScorerSupplier;
import org.apache.lucene.search.Weight;

/** Weight of a {@link HammingQuery}: makes the scorers of each segment. */
final class HammingWeight extends Versioned.BaseWeight {
    private final HammingQuery query;
    /** Weight of the filter, or null without a filter. */
    private final Weight filter;
    private final float boost;

    HammingWeight(HammingQuery query, Weight filter, float boost) {
        super(query);
        this.query = query;
        this.filter = filter;
        this.boost = boost;
    }

    @Override
    public ScorerSupplier scorerSupplier(LeafReaderContext context) throws IOException {
        boolean any = false;
        for (String field : query.fields) {
            any |= DocValuesCodes.exist(context.reader(), field);
        }
        ScorerSupplier filtered = filter == null || !any ? null : filter.scorerSupplier(context);
        if (!any || filter != null && filtered == null) {
            return null;
        }
        return new Supplier(context.reader(), filtered);
    }

    private Distances distances(LeafReader reader) throws IOException {
        List<Distances> found = new ArrayList<>();
        for (String field : query.fields) {
            if (!DocValuesCodes.exist(reader, field)) {
                continue;
            }
            SegmentCodes cached = query.service.codes(reader, field, query.width);
            DocValuesCodes stored = cached == null ? DocValuesCodes.open(reader, field) : null;
            if (cached != null) {
                found.add(cached.distances(query.codes));
            } else if (stored != null) {
                found.add(new DocValuesDistances(stored, query.width, query.codes));
            }
        }
        return MinDistances.of(found);
    }

    private final class Supplier extends Versioned.BulkScorerSupplier {
        private final LeafReader reader;
        private final ScorerSupplier filtered;

        Supplier(LeafReader reader, ScorerSupplier filtered) {
            this.reader = reader;
            this.filtered = filtered;
        }

        @Override
        public Scorer get(long leadCost) throws IOException {
            DocIdSetIterator candidates = candidates(leadCost);
            return new HammingScorer(HammingWeight.this, distances(reader), candidates, new CompetitiveKey(boost, query.maxKey()));
        }

        @Override
        public BulkScorer bulkScorer() throws IOException {
            DocIdSetIterator filterDocs = filtered == null ? null : filtered.get(Long.MAX_VALUE).iterator();
            CompetitiveKey competitive = new CompetitiveKey(boost, query.maxKey());
            return new HammingBulkScorer(distances(reader), filterDocs, competitive, reader.maxDoc());
        }

        private DocIdSetIterator candidates(long leadCost) throws IOException {
            return filtered == null ? DocIdSetIterator.all(reader.maxDoc()) : filtered.get(leadCost).iterator();
        }

        @Override
        public long cost() {
            return filtered == null ? reader.maxDoc() : filtered.cost();
        }
    }

    /** The number of codes of a segment without deleted or hidden documents, for a query without filter and max_distance; else -1 (unknown). */
    @Override
    public int count(LeafReaderContext context) throws IOException {
        LeafReader reader = context.reader();
        boolean all = filter == null && query.fields.length == 1 && query.maxDistance >= 8 * query.width;
        if (!all || reader.getLiveDocs() != null) {
            return -1;
        }
        if (!DocValuesCodes.exist(reader, query.fields[0])) {
            return 0;
        }
        SegmentCodes cached = query.service.codes(reader, query.fields[0], query.width);
        return cached == null ? -1 : cached.count;
    }

    @Override
    public Explanation explain(LeafReaderContext context, int doc) throws IOException {
        if (filter != null && !filter.explain(context, doc).isMatch()) {
            return Explanation.noMatch("the document does not match the filter " + query.filter);
        }
        return new HammingExplainer(query, boost).explain(context.reader(), doc);
    }

    @Override
    public boolean isCacheable(LeafReaderContext context) {
        return DocValues.isCacheable(context, query.fields) && (filter == null || filter.isCacheable(context));
    }
}
