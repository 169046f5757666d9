// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.Arrays;

import org.apache.lucene.util.BytesRef;

/** Keys computed from {@link DocValuesCodes}, one document at a time: slower than cached codes, without heap. */
final class DocValuesDistances implements Distances {
    private final DocValuesCodes codes;
    private final int width;
    private final ComparedCode[] queries;

    /** {@code width}: bytes of a code. */
    DocValuesDistances(DocValuesCodes codes, int width, ComparedCode[] queries) {
        this.codes = codes;
        this.width = width;
        this.queries = queries;
    }

    @Override
    public void block(int from, int to, int[] out) throws IOException {
        Arrays.fill(out, 0, to - from, ABSENT);
        for (int doc = seek(from); doc < to; doc = codes.iterator.nextDoc()) {
            out[doc - from] = currentKey();
        }
    }

    @Override
    public int key(int doc) throws IOException {
        return seek(doc) == doc ? currentKey() : ABSENT;
    }

    private int seek(int doc) throws IOException {
        int at = codes.iterator.docID();
        return at < doc ? codes.iterator.advance(doc) : at;
    }

    private int currentKey() throws IOException {
        BytesRef code = codes.code();
        if (code.length != width) {
            return ABSENT;
        }
        int min = ABSENT;
        for (ComparedCode query : queries) {
            min = Math.min(min, query.key(code.bytes, code.offset));
        }
        return min;
    }
}
