// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.Arrays;

import org.apache.lucene.search.BooleanClause.Occur;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.MatchAllDocsQuery;
import org.apache.lucene.search.MatchNoDocsQuery;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.QueryVisitor;
import org.apache.lucene.search.ScoreMode;
import org.apache.lucene.search.Weight;

/** Lucene query on some fields, restricted to the documents that match a filter. */
abstract class FilteredQuery extends Query {
    final String[] fields;
    /** Null without a filter. */
    final Query filter;

    FilteredQuery(String[] fields, Query filter) {
        this.fields = fields;
        this.filter = filter;
    }

    /** A copy with another filter; null for none. */
    abstract Query with(Query newFilter);

    @Override
    public final Query rewrite(IndexSearcher searcher) throws IOException {
        if (filter == null) {
            return this;
        }
        Query rewritten = filter.rewrite(searcher);
        if (rewritten instanceof MatchNoDocsQuery) {
            return rewritten;
        }
        if (rewritten instanceof MatchAllDocsQuery) {
            rewritten = null;
        }
        return rewritten == filter ? this : with(rewritten);
    }

    /** The weight of the filter, or null without a filter. */
    final Weight filterWeight(IndexSearcher searcher) throws IOException {
        return filter == null ? null : searcher.createWeight(filter, ScoreMode.COMPLETE_NO_SCORES, 1);
    }

    @Override
    public final void visit(QueryVisitor visitor) {
        if (Arrays.stream(fields).anyMatch(visitor::acceptField)) {
            visitor.visitLeaf(this);
        }
        if (filter != null) {
            filter.visit(visitor.getSubVisitor(Occur.FILTER, this));
        }
    }
}
