// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.Arrays;
import java.util.List;

/** Smallest key over several fields: the key of a document is that of its nearest code. Without a field no document has a key. */
final class MinDistances implements Distances {
    private final List<Distances> fields;
    private final int[] scratch = new int[BLOCK];

    private MinDistances(List<Distances> fields) {
        this.fields = fields;
    }

    static Distances of(List<Distances> fields) {
        return fields.size() == 1 ? fields.get(0) : new MinDistances(fields);
    }

    @Override
    public void block(int from, int to, int[] out) throws IOException {
        Arrays.fill(out, 0, to - from, ABSENT);
        for (Distances field : fields) {
            field.block(from, to, scratch);
            Kernels.min(scratch, to - from, out);
        }
    }

    @Override
    public int key(int doc) throws IOException {
        int min = ABSENT;
        for (Distances field : fields) {
            min = Math.min(min, field.key(doc));
        }
        return min;
    }
}
