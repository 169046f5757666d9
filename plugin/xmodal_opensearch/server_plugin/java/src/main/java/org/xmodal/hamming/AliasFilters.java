// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import org.apache.lucene.search.BooleanClause.Occur;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.QueryVisitor;
import org.opensearch.index.shard.SearchOperationListener;
import org.opensearch.search.internal.SearchContext;

/**
 * Applies the filter of an index alias to the first stage of {@link TwoStageQuery}.
 *
 * <p>The server puts the filter beside the whole query, which alone would remove documents after the window is taken.
 */
final class AliasFilters implements SearchOperationListener {
    @Override
    public void onPreQueryPhase(SearchContext context) {
        apply(context);
    }

    @Override
    public void onPreFetchPhase(SearchContext context) {
        apply(context);
    }

    private static void apply(SearchContext context) {
        Query filter = context.aliasFilter();
        if (filter == null || context.query() == null) {
            return;
        }
        context.query().visit(new QueryVisitor() {
            @Override
            public void visitLeaf(Query query) {
                if (query instanceof TwoStageQuery stages) {
                    stages.limitTo(filter);
                }
            }

            @Override
            public QueryVisitor getSubVisitor(Occur occur, Query parent) {
                return this;
            }
        });
    }
}
