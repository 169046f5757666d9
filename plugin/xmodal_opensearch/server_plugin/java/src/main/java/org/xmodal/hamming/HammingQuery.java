// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.Arrays;
import java.util.Objects;

import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.ScoreMode;
import org.apache.lucene.search.Weight;

/**
 * Lucene query that scores documents with 1 / (1 + key), where key is the smallest key (see {@link Distances}) of a code of the
 * document and a code of the query.
 *
 * <p>It matches documents that have a code with a Hamming distance of at most {@code maxDistance} and match the filter.
 */
final class HammingQuery extends FilteredQuery {
    final HammingService service;
    /** Bytes of a code. */
    final int width;
    final ComparedCode[] codes;
    final int maxDistance;

    HammingQuery(HammingService service, String[] fields, int width, ComparedCode[] codes, int maxDistance, Query filter) {
        super(fields, filter);
        this.service = service;
        this.width = width;
        this.codes = codes;
        this.maxDistance = maxDistance;
    }

    /** The largest key of a matching document. With weights, {@link ComparedCode} applies {@code maxDistance}. */
    int maxKey() {
        return codes[0].weighted() ? CompetitiveKey.MAX : maxDistance;
    }

    @Override
    Query with(Query newFilter) {
        return new HammingQuery(service, fields, width, codes, maxDistance, newFilter);
    }

    @Override
    public Weight createWeight(IndexSearcher searcher, ScoreMode scoreMode, float boost) throws IOException {
        return new HammingWeight(this, filterWeight(searcher), boost);
    }

    @Override
    public String toString(String field) {
        StringBuilder text = new StringBuilder("hamming(").append(String.join(",", fields)).append(" ~ ");
        for (int c = 0; c < codes.length; c++) {
            text.append(c == 0 ? "" : ",").append(codes[c]);
        }
        if (maxDistance < 8 * width) {
            text.append(" within ").append(maxDistance);
        }
        if (filter != null) {
            text.append(" if ").append(filter.toString(field));
        }
        return text.append(")").toString();
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof HammingQuery query && Arrays.equals(fields, query.fields) && width == query.width
            && Arrays.equals(codes, query.codes) && maxDistance == query.maxDistance && Objects.equals(filter, query.filter);
    }

    @Override
    public int hashCode() {
        return Objects.hash(classHash(), Arrays.hashCode(fields), width, Arrays.hashCode(codes), maxDistance, filter);
    }
}
