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
 * Cache of the codes on this node. An entry holds the codes of one field in one segment.
 *
 * <p>The key of a segment is its core, which refreshes and deletes do not change, so each segment is read once. Entries are
 * removed when the core is closed. The size of all entries is counted on a circuit breaker of the plugin. If an entry
 * exceeds its limit, the query reads the codes from doc values, which is slower, and does not fail.
 */
final class CodeCache {
    private static final long QUIET_NANOS = 60L * 1_000_000_000;

    /** The entries of one segment, by field. */
    private static final class Segment {
        final Map<String, CompletableFuture<SegmentCodes>> entries = new ConcurrentHashMap<>();
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

    /**
     * The codes of {@code field}, loaded if they are not in the cache, for a query; counted as a hit or a miss.
     *
     * @param reader the query's reader of a segment, with the wrappers of its request
     * @param segment the reader of the shard inside it
     * @param width bytes of a code
     * @return null if the query must read the codes from its own reader: the circuit breaker's limit is exceeded, the reader
     *     has no cache key, or a wrapper changes the values (field masking of the security plugin)
     */
    SegmentCodes get(LeafReader reader, LeafReader segment, String field, int width) throws IOException {
        IndexReader.CacheHelper core = reader.getCoreCacheHelper();
        if (core == null || !DocValuesCodes.sameValues(reader, segment, field)) {
            misses.increment();
            fallbacks.increment();
            return null;
        }
        SegmentCodes codes = find(core.getKey(), field, width);
        if (codes != null) {
            hits.increment();
            return codes;
        }
        misses.increment();
        codes = load(reader, field, width);
        if (codes == null) {
            fallbacks.increment();
        }
        return codes;
    }

    private SegmentCodes find(IndexReader.CacheKey key, String field, int width) {
        Segment segment = segments.get(key);
        CompletableFuture<SegmentCodes> entry = segment == null ? null : segment.entries.get(field);
        SegmentCodes codes = entry == null || entry.isCompletedExceptionally() ? null : entry.getNow(null);
        return codes != null && codes.words == CodeWords.count(width) ? codes : null;
    }

    /**
     * Loads an entry unless it is in the cache. Concurrent calls for the same entry wait for the first one.
     *
     * <p>Codes are read from the innermost reader: the wrappers belong to one request, with its timeout, whereas all requests
     * share the entry. Callers check that the request's own reader has the field and does not change its values.
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
        CompletableFuture<SegmentCodes> entry = new CompletableFuture<>();
        CompletableFuture<SegmentCodes> other = segment.entries.putIfAbsent(field, entry);
        if (other != null) {
            return await(other);
        }
        SegmentCodes codes = null;
        try {
            codes = read(FilterLeafReader.unwrap(wrapped), field, width);
            return codes;
        } finally {
            // Complete before checking the segment: if the segment is dropped concurrently, the later of the two releases the bytes.
            entry.complete(codes);
            if (codes == null || segments.get(core.getKey()) != segment) {
                if (segment.entries.remove(field, entry) && codes != null) {
                    release(codes);
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
        DocValuesCodes stored = DocValuesCodes.open(reader, field);
        if (stored == null) {
            return null;
        }
        long bytes = SegmentCodesLoader.bytes(stored.size, reader.maxDoc(), width);
        if (!reserve(bytes, field)) {
            return null;
        }
        SegmentCodes codes = null;
        try {
            codes = SegmentCodesLoader.load(stored, reader.maxDoc(), width);
        } finally {
            if (codes == null) {
                breaker.addWithoutBreaking(-bytes);
            }
        }
        loaded.increment();
        loadNanos.add(System.nanoTime() - start);
        return codes;
    }

    /**
     * Reserves {@code bytes} on the circuit breaker; returns whether they fit.
     *
     * <p>A breaker that trips writes to the server's log, and each search tries to load the entries that do not fit. For
     * {@code QUIET_NANOS} after a trip, a request above the limit is therefore refused without calling the breaker.
     */
    private boolean reserve(long bytes, String field) {
        boolean recent = refused && System.nanoTime() - refusedAt < QUIET_NANOS;
        if (recent && breaker.getUsed() + bytes > breaker.getLimit()) {
            return false;
        }
        try {
            breaker.addEstimateBytesAndMaybeBreak(bytes, "hamming codes of " + field);
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
        Segment added = new Segment();
        segment = segments.putIfAbsent(core.getKey(), added);
        if (segment != null) {
            return segment;
        }
        try {
            core.addClosedListener(this::drop);
        } catch (AlreadyClosedException e) {
            segments.remove(core.getKey());
            return null;
        }
        return added;
    }

    private void drop(IndexReader.CacheKey key) {
        Segment segment = segments.remove(key);
        if (segment != null) {
            clear(segment);
        }
    }

    private void clear(Segment segment) {
        segment.entries.forEach((field, entry) -> {
            // An entry that is still being loaded is released by load(), which checks whether the segment is still listed.
            SegmentCodes codes = entry.getNow(null);
            if (codes != null && segment.entries.remove(field, entry)) {
                release(codes);
            }
        });
    }

    private void release(SegmentCodes codes) {
        breaker.addWithoutBreaking(-codes.bytes());
    }

    /** Sets the circuit breaker's limit. Clears the cache if it is larger than that. */
    void setLimit(long bytes) {
        breaker.setLimitAndOverhead(bytes, breaker.getOverhead());
        refused = false;
        if (breaker.getUsed() > bytes) {
            segments.values().forEach(this::clear);
        }
    }

    NodeStats stats() {
        long entries = 0;
        long bytes = 0;
        for (Segment segment : segments.values()) {
            for (CompletableFuture<SegmentCodes> entry : segment.entries.values()) {
                SegmentCodes codes = entry.getNow(null);
                if (codes != null) {
                    entries++;
                    bytes += codes.bytes();
                }
            }
        }
        return new NodeStats(
            entries, bytes, breaker.getUsed(), breaker.getLimit(), breaker.getTrippedCount(),
            loaded.sum(), loadNanos.sum() / 1_000_000, hits.sum(), misses.sum(), fallbacks.sum()
        );
    }
}
