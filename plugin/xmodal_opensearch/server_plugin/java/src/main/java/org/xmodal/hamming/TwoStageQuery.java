// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.Objects;

import org.apache.lucene.search.BooleanClause.Occur;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.MatchNoDocsQuery;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.QueryVisitor;
import org.apache.lucene.search.ScoreMode;
import org.apache.lucene.search.Weight;

/**
 * Lucene query that matches the {@code window} documents of a shard with the highest scores of {@code first}, and all documents
 * that tie with the last of them, and scores them by {@code second}; a document that {@code second} does not match has score 0.
 *
 * <p>{@code first} is searched when the weight is created, by the searcher of the request. Deleted documents, timeout,
 * cancellation and threads are those of that searcher.
 */
final class TwoStageQuery extends Query {
    final Query first;
    final Query second;
    final int window;
    /** See {@link #limitTo}; null without a filter. */
    private volatile Query filter;

    TwoStageQuery(Query first, Query second, int window) {
        this.first = first;
        this.second = second;
        this.window = window;
    }

    /** Restricts {@code first} to documents that match a filter, before the query is searched. */
    void limitTo(Query newFilter) {
        filter = newFilter;
    }

    /** {@code first} with the filter. */
    Query filtered() {
        if (filter == null) {
            return first;
        }
        return new BooleanQuery.Builder().add(first, Occur.MUST).add(filter, Occur.FILTER).build();
    }

    @Override
    public Query rewrite(IndexSearcher searcher) throws IOException {
        Query newFirst = first.rewrite(searcher);
        Query newSecond = second.rewrite(searcher);
        if (newFirst instanceof MatchNoDocsQuery) {
            return newFirst;
        }
        if (newFirst == first && newSecond == second) {
            return this;
        }
        TwoStageQuery rewritten = new TwoStageQuery(newFirst, newSecond, window);
        rewritten.limitTo(filter);
        return rewritten;
    }

    @Override
    public Weight createWeight(IndexSearcher searcher, ScoreMode scoreMode, float boost) throws IOException {
        Window found = searcher.search(filtered(), new WindowCollector.Manager(window));
        Weight scoring = scoreMode.needsScores() ? searcher.createWeight(searcher.rewrite(second), ScoreMode.COMPLETE, boost) : null;
        return new TwoStageWeight(this, searcher, found, scoring);
    }

    /** {@code second} is not visited: its terms are no condition on documents. */
    @Override
    public void visit(QueryVisitor visitor) {
        visitor.visitLeaf(this);
        first.visit(visitor.getSubVisitor(Occur.MUST, this));
    }

    @Override
    public String toString(String field) {
        String limited = filter == null ? "" : " if " + filter.toString(field);
        return "two_stage(" + first.toString(field) + limited + ", best " + window + " by " + second.toString(field) + ")";
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof TwoStageQuery query && first.equals(query.first) && second.equals(query.second)
            && window == query.window;
    }

    @Override
    public int hashCode() {
        return Objects.hash(classHash(), first, second, window);
    }
}
