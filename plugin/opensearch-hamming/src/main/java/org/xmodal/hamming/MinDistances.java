// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.List;

/** The least distance over several fields: a document is as near as its nearest code. */
final class MinDistances implements Distances {
    private final List<Distances> fields;
    private final int[] other = new int[BLOCK];

    private MinDistances(List<Distances> fields) {
        this.fields = fields;
    }

    static Distances of(List<Distances> fields) {
        return fields.size() == 1 ? fields.get(0) : new MinDistances(fields);
    }

    @Override
    public void block(int from, int to, int[] out) throws IOException {
        fields.get(0).block(from, to, out);
        for (int f = 1; f < fields.size(); f++) {
            fields.get(f).block(from, to, other);
            Kernels.lower(other, to - from, out);
        }
    }

    @Override
    public int at(int doc) throws IOException {
        int least = ABSENT;
        for (Distances field : fields) {
            least = Math.min(least, field.at(doc));
        }
        return least;
    }
}
