// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;

import org.apache.lucene.index.LeafReader;
import org.apache.lucene.search.Explanation;
import org.apache.lucene.util.BytesRef;

/** Explains the score of a document: the field and the query code of the smallest key, and the bytes that differ. */
final class HammingExplainer {
    private static final int MAX_BYTES_SHOWN = 16;

    private final HammingQuery query;
    private final float boost;

    HammingExplainer(HammingQuery query, float boost) {
        this.query = query;
        this.boost = boost;
    }

    Explanation explain(LeafReader reader, int doc) throws IOException {
        int min = Distances.ABSENT;
        int nearest = Distances.ABSENT;
        String best = "the document has no code in " + String.join(", ", query.fields);
        for (String field : query.fields) {
            DocValuesCodes codes = DocValuesCodes.open(reader, field);
            if (codes == null || codes.iterator.advance(doc) != doc) {
                continue;
            }
            BytesRef code = codes.code();
            if (code.length != query.width) {
                continue;
            }
            for (int c = 0; c < query.codes.length; c++) {
                int distance = query.codes[c].hamming(code.bytes, code.offset);
                int key = query.codes[c].key(code.bytes, code.offset);
                if (key < min || min == Distances.ABSENT && distance < nearest) {
                    best = compare(code, c, field);
                }
                min = Math.min(min, key);
                nearest = Math.min(nearest, distance);
            }
        }
        if (nearest == Distances.ABSENT) {
            return Explanation.noMatch(best);
        }
        if (min > query.maxKey()) {
            return Explanation.noMatch(best + "; more than max_distance " + query.maxDistance);
        }
        String times = boost == 1 ? "" : ", times boost " + boost;
        boolean weighted = query.codes[0].weighted();
        String formula = weighted ? "1 / (1 + key), key = weighted distance * " + (8 * query.width + 1) + " + distance" : "1 / (1 + distance)";
        return Explanation.match(CompetitiveKey.score(min, boost), formula + times, Explanation.match(min, best));
    }

    /** Describes the distance between a code of {@code field} and code c of the query. */
    private String compare(BytesRef code, int c, String field) {
        ComparedCode other = query.codes[c];
        int distance = other.hamming(code.bytes, code.offset);
        String weighted = other.weighted() ? "weighted distance " + other.weighted(code.bytes, code.offset) + ", " : "";
        String number = query.codes.length == 1 ? "" : " and code " + c + " of " + query.codes.length + " (counted from 0)";
        return weighted + "distance " + distance + " of " + 8 * query.width + " bits between field " + field + number + "; "
            + differing(code, other.code);
    }

    private static String differing(BytesRef code, byte[] other) {
        StringBuilder text = new StringBuilder();
        int differ = 0;
        for (int i = 0; i < other.length; i++) {
            int bits = Integer.bitCount((code.bytes[code.offset + i] ^ other[i]) & 0xFF);
            if (bits > 0 && differ++ < MAX_BYTES_SHOWN) {
                text.append(differ == 1 ? "" : ", ").append(i).append(" (").append(bits).append(bits == 1 ? " bit)" : " bits)");
            }
        }
        if (differ == 0) {
            return "no byte differs";
        }
        return "bytes that differ: " + text + (differ > MAX_BYTES_SHOWN ? " and " + (differ - MAX_BYTES_SHOWN) + " more" : "");
    }
}
