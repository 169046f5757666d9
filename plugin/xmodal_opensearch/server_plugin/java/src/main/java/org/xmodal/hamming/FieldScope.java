// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import org.apache.lucene.index.Term;
import org.apache.lucene.search.BooleanClause.Occur;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.MatchAllDocsQuery;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.QueryVisitor;
import org.apache.lucene.search.TermQuery;

/**
 * A clause beside a query that names the field of its codes or vectors; the first rewrite of the query removes it.
 *
 * <p>An index with nested objects stores them as documents of their own, before their root document. The server restricts a
 * query of an unknown class to one of the two kinds by a filter, and a query with such a filter is scored one document at a
 * time, for a {@link HammingQuery} about ten times slower than by its {@link HammingBulkScorer}. For a required
 * {@link TermQuery} the server derives from the field which documents match and adds no filter. The values of a field are in
 * documents of one kind only, so none is needed.
 */
final class FieldScope extends TermQuery {
    private FieldScope(String field) {
        super(new Term(field));
    }

    /** {@code query} together with the field whose values it searches. */
    static Query around(Query query, String field) {
        return new BooleanQuery.Builder().add(query, Occur.MUST).add(new FieldScope(field), Occur.FILTER).build();
    }

    @Override
    public Query rewrite(IndexSearcher searcher) {
        return new MatchAllDocsQuery();
    }

    /** The term is no condition on documents: a percolator must not extract it. */
    @Override
    public void visit(QueryVisitor visitor) {
        visitor.visitLeaf(this);
    }
}
