// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;

import org.apache.lucene.index.LeafReader;
import org.apache.lucene.search.Explanation;
import org.apache.lucene.util.BytesRef;

/** Explains the score of a document: the field and the query code of the minimum distance, and the bytes that differ. */
final class HammingExplainer {
    private static final int MAX_BYTES_SHOWN = 16;

    private final HammingQuery query;
    private final float[] scores;

    HammingExplainer(HammingQuery query, float[] scores) {
        this.query = query;
        this.scores = scores;
    }

    Explanation explain(LeafReader reader, int doc) throws IOException {
        int min = Distances.ABSENT;
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
                int distance = distance(code, query.codes[c]);
                if (distance < min) {
                    min = distance;
                    best = "distance " + distance + " of " + 8 * query.width + " bits between field " + field
                        + (query.codes.length == 1 ? "" : " and code " + c + " of " + query.codes.length + " (counted from 0)")
                        + "; " + differing(code, query.codes[c]);
                }
            }
        }
        if (min == Distances.ABSENT) {
            return Explanation.noMatch(best);
        }
        if (min > query.maxDistance) {
            return Explanation.noMatch(best + "; more than max_distance " + query.maxDistance);
        }
        float boost = scores[0];
        String times = boost == 1 ? "" : ", times boost " + boost;
        return Explanation.match(scores[min], "1 / (1 + distance)" + times, Explanation.match(min, best));
    }

    private static int distance(BytesRef code, byte[] other) {
        int sum = 0;
        for (int i = 0; i < other.length; i++) {
            sum += Integer.bitCount((code.bytes[code.offset + i] ^ other[i]) & 0xFF);
        }
        return sum;
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
