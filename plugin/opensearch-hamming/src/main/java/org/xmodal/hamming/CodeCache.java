// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.LongAdder;

import org.apache.lucene.index.FilterLeafReader;
import org.apache.lucene.index.IndexReader;
import org.apache.lucene.index.LeafReader;
import org.apache.lucene.store.AlreadyClosedException;
import org.opensearch.core.common.breaker.CircuitBreaker;
import org.opensearch.core.common.breaker.CircuitBreakingException;

/**
 * All columns of this node, by segment and field.
 *
 * <p>The key is the segment's core, which outlives refreshes and deletes, so a column is read once in the life of a
 * segment; Lucene tells when the core closes, and then the column goes. Every byte is counted on a circuit breaker
 * of our own. Where it would trip there is no column, and the query reads the stored codes instead: slower, never
 * an error.
 */
final class CodeCache {
    private static final long QUIET_NANOS = 60L * 1_000_000_000;

    /** CodeCache of one segment, by field. */
    private static final class Segment {
        final Map<String, CompletableFuture<SegmentCodes>> columns = new ConcurrentHashMap<>();
    }

    private final Map<IndexReader.CacheKey, Segment> segments = new ConcurrentHashMap<>();
    private final LongAdder loaded = new LongAdder();
    private final LongAdder loadNanos = new LongAdder();
    private final LongAdder hits = new LongAdder();
    private final LongAdder misses = new LongAdder();
    private final LongAdder fallbacks = new LongAdder();
    private volatile CircuitBreaker breaker;
    private volatile boolean refused;
    private volatile long refusedAt;

    void setBreaker(CircuitBreaker breaker) {
        this.breaker = breaker;
    }

    /** The column for a query, read now if need be; null where the breaker forbids it or the reader has no identity. */
    SegmentCodes forQuery(LeafReader reader, String field, int width) throws IOException {
        IndexReader.CacheHelper core = reader.getCoreCacheHelper();
        SegmentCodes column = core == null ? null : find(core.getKey(), field, width);
        if (column != null) {
            hits.increment();
            return column;
        }
        misses.increment();
        column = load(reader, field, width);
        if (column == null) {
            fallbacks.increment();
        }
        return column;
    }

    private SegmentCodes find(IndexReader.CacheKey key, String field, int width) {
        Segment segment = segments.get(key);
        CompletableFuture<SegmentCodes> future = segment == null ? null : segment.columns.get(field);
        SegmentCodes column = future == null || future.isCompletedExceptionally() ? null : future.getNow(null);
        return column != null && column.words == CodeWords.count(width) ? column : null;
    }

    /**
     * Read a column unless it is here already; whoever asks for the same one meanwhile waits for the first.
     *
     * <p>It is read below all wrappers: they belong to one request, with its deadline, and the column to all of them.
     * Whether the request may see the field was decided before, by {@link DocValuesCodes#exist} on its own reader.
     */
    SegmentCodes load(LeafReader wrapped, String field, int width) throws IOException {
        IndexReader.CacheHelper core = wrapped.getCoreCacheHelper();
        if (core == null) {
            return null;
        }
        Segment segment = segmentOf(core);
        if (segment == null) {
            return null;
        }
        CompletableFuture<SegmentCodes> mine = new CompletableFuture<>();
        CompletableFuture<SegmentCodes> other = segment.columns.putIfAbsent(field, mine);
        if (other != null) {
            return await(other);
        }
        SegmentCodes column = null;
        try {
            column = read(FilterLeafReader.unwrap(wrapped), field, width);
            return column;
        } finally {
            // Told first and looked at second: whichever of this and the segment's end comes later gives the bytes back.
            mine.complete(column);
            if (column == null || segments.get(core.getKey()) != segment) {
                if (segment.columns.remove(field, mine) && column != null) {
                    release(column);
                }
            }
        }
    }

    private static SegmentCodes await(CompletableFuture<SegmentCodes> other) {
        try {
            return other.join();
        } catch (CompletionException e) {
            return null;
        }
    }

    private SegmentCodes read(LeafReader reader, String field, int width) throws IOException {
        long start = System.nanoTime();
        DocValuesCodes codes = DocValuesCodes.open(reader, field);
        if (codes == null) {
            return null;
        }
        long bytes = SegmentCodesLoader.bytes(codes.size, reader.maxDoc(), width);
        if (!reserve(bytes, field)) {
            return null;
        }
        SegmentCodes column = null;
        try {
            column = SegmentCodesLoader.load(codes, reader.maxDoc(), width);
        } finally {
            if (column == null) {
                breaker.addWithoutBreaking(-bytes);
            }
        }
        loaded.increment();
        loadNanos.add(System.nanoTime() - start);
        return column;
    }

    /**
     * Count {@code bytes} on the breaker, or say that they do not fit.
     *
     * <p>A breaker that trips writes to the server's log. Every search may ask for a column that does not fit, so for
     * some time after a refusal what is plainly too much is refused here, in silence.
     */
    private boolean reserve(long bytes, String field) {
        boolean recent = refused && System.nanoTime() - refusedAt < QUIET_NANOS;
        if (recent && breaker.getUsed() + bytes > breaker.getLimit()) {
            return false;
        }
        try {
            breaker.addEstimateBytesAndMaybeBreak(bytes, "hamming column " + field);
            return true;
        } catch (CircuitBreakingException e) {
            refusedAt = System.nanoTime();
            refused = true;
            return false;
        }
    }

    private Segment segmentOf(IndexReader.CacheHelper core) {
        Segment segment = segments.get(core.getKey());
        if (segment != null) {
            return segment;
        }
        Segment mine = new Segment();
        segment = segments.putIfAbsent(core.getKey(), mine);
        if (segment != null) {
            return segment;
        }
        try {
            core.addClosedListener(this::drop);
        } catch (AlreadyClosedException e) {
            segments.remove(core.getKey());
            return null;
        }
        return mine;
    }

    private void drop(IndexReader.CacheKey key) {
        Segment segment = segments.remove(key);
        if (segment != null) {
            empty(segment);
        }
    }

    private void empty(Segment segment) {
        segment.columns.forEach((field, future) -> {
            // One still being read is released by its reader, which looks whether its segment is still listed.
            SegmentCodes column = future.getNow(null);
            if (column != null && segment.columns.remove(field, future)) {
                release(column);
            }
        });
    }

    private void release(SegmentCodes column) {
        breaker.addWithoutBreaking(-column.bytes());
    }

    /** A new limit. If more is held, all of it is given back, and the next queries take what fits. */
    void limit(long bytes) {
        breaker.setLimitAndOverhead(bytes, breaker.getOverhead());
        refused = false;
        if (breaker.getUsed() > bytes) {
            segments.values().forEach(this::empty);
        }
    }

    NodeStats numbers() {
        long columns = 0;
        long bytes = 0;
        for (Segment segment : segments.values()) {
            for (CompletableFuture<SegmentCodes> future : segment.columns.values()) {
                SegmentCodes column = future.getNow(null);
                if (column != null) {
                    columns++;
                    bytes += column.bytes();
                }
            }
        }
        return new NodeStats(
            columns, bytes, breaker.getUsed(), breaker.getLimit(), breaker.getTrippedCount(),
            loaded.sum(), loadNanos.sum() / 1_000_000, hits.sum(), misses.sum(), fallbacks.sum()
        );
    }
}
