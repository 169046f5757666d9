// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.IntStream;

import org.apache.lucene.document.BinaryDocValuesField;
import org.apache.lucene.document.Document;
import org.apache.lucene.index.BinaryDocValues;
import org.apache.lucene.index.ByteVectorValues;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.FilterDirectoryReader;
import org.apache.lucene.index.FilterLeafReader;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.index.LeafReader;
import org.apache.lucene.index.memory.MemoryIndex;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.store.ByteBuffersDirectory;
import org.apache.lucene.util.BytesRef;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Which readers have entries in the cache, and when their memory is released. */
class CodeCacheTest {
    private static HammingQuery nearest(TestShard shard) {
        ComparedCode[] codes = { new ComparedCode(new byte[shard.width], null, 8 * shard.width) };
        return new HammingQuery(shard.service, new String[] { TestShard.IMAGE }, shard.width, codes, 8 * shard.width, null);
    }

    private static void assertEmpty(HammingService service) {
        NodeStats stats = service.cache.stats();
        assertEquals(List.of(0L, 0L, 0L), List.of(stats.entries(), stats.bytes(), stats.estimated()));
    }

    @ParameterizedTest
    @EnumSource
    void entriesAreReleasedWithTheirSegments(TestShard.Storage storage) throws IOException {
        try (TestShard shard = new TestShard(8, storage)) {
            shard.add(0, 3000);
            shard.add(3000, 3100);
            DirectoryReader first = shard.open();
            new IndexSearcher(first).search(nearest(shard), 10);
            NodeStats before = shard.service.cache.stats();
            assertEquals(2, before.entries());
            assertEquals(before.bytes(), before.estimated());
            assertTrue(before.bytes() >= 8 * 2700, before.toString());
            // A refresh shares the segments; deletes do not read them again.
            shard.delete(5);
            DirectoryReader second = shard.open();
            new IndexSearcher(second).search(nearest(shard), 10);
            assertEquals(2, shard.service.cache.stats().loaded());
            first.close();
            assertEquals(2, shard.service.cache.stats().entries());
            // A merge replaces them.
            shard.writer.getConfig().setMergePolicy(new org.apache.lucene.index.TieredMergePolicy());
            shard.writer.forceMerge(1);
            DirectoryReader merged = shard.open();
            new IndexSearcher(merged).search(nearest(shard), 10);
            assertEquals(3, shard.service.cache.stats().entries());
            second.close();
            assertEquals(1, shard.service.cache.stats().entries());
            merged.close();
            shard.writer.close(); // releases the segments that the writer keeps open for its readers
            assertEmpty(shard.service);
        }
    }

    /** A percolated document is an in-memory index, several are an index of their own that is never closed. */
    @Test
    void readersOfOneRequestLeaveNothing() throws IOException {
        try (TestShard shard = new TestShard(8, TestShard.Storage.DOC_VALUES); ByteBuffersDirectory other = new ByteBuffersDirectory()) {
            try (IndexWriter writer = new IndexWriter(other, new IndexWriterConfig())) {
                for (int i = 0; i < 3; i++) {
                    Document document = new Document();
                    document.add(new BinaryDocValuesField(TestShard.IMAGE, new BytesRef(new byte[8])));
                    writer.addDocument(document);
                }
            }
            DirectoryReader unclosed = DirectoryReader.open(other);
            Document document = new Document();
            document.add(new BinaryDocValuesField(TestShard.IMAGE, new BytesRef(new byte[8])));
            IndexSearcher memory = MemoryIndex.fromDocument(document, new org.apache.lucene.analysis.core.KeywordAnalyzer()).createSearcher();
            for (int i = 0; i < 5; i++) {
                assertEquals(3, new IndexSearcher(unclosed).count(nearest(shard)));
                assertEquals(1f, new IndexSearcher(unclosed).search(nearest(shard), 5).scoreDocs[2].score);
                assertEquals(1, memory.count(nearest(shard)));
            }
            assertEmpty(shard.service);
            NodeStats stats = shard.service.cache.stats();
            assertEquals(List.of(0L, 0L, 0L), List.of(stats.loaded(), stats.misses(), stats.fallbacks()));
            unclosed.close();
        }
    }

    /** Wraps the segments of a reader, like a plugin that restricts what a user may read. */
    private static final class Restricted extends FilterDirectoryReader {
        private final boolean masked;

        Restricted(DirectoryReader in, boolean masked) throws IOException {
            super(in, new SubReaderWrapper() {
                @Override
                public LeafReader wrap(LeafReader reader) {
                    return new RestrictedLeaf(reader, masked);
                }
            });
            this.masked = masked;
        }

        @Override
        protected DirectoryReader doWrapDirectoryReader(DirectoryReader in) throws IOException {
            return new Restricted(in, masked);
        }

        @Override
        public CacheHelper getReaderCacheHelper() {
            return in.getReaderCacheHelper();
        }
    }

    private static final class RestrictedLeaf extends FilterLeafReader {
        private final boolean masked;

        RestrictedLeaf(LeafReader in, boolean masked) {
            super(in);
            this.masked = masked;
        }

        /** With masking, every code consists of ones. */
        @Override
        public BinaryDocValues getBinaryDocValues(String field) throws IOException {
            BinaryDocValues values = in.getBinaryDocValues(field);
            return !masked || values == null ? values : new FilterBinaryDocValues(values) {
                @Override
                public BytesRef binaryValue() throws IOException {
                    byte[] ones = new byte[in.binaryValue().length];
                    java.util.Arrays.fill(ones, (byte) 255);
                    return new BytesRef(ones);
                }
            };
        }

        /** With masking, no document has a vector. */
        @Override
        public ByteVectorValues getByteVectorValues(String field) throws IOException {
            return masked ? null : in.getByteVectorValues(field);
        }

        @Override
        public CacheHelper getCoreCacheHelper() {
            return in.getCoreCacheHelper();
        }

        @Override
        public CacheHelper getReaderCacheHelper() {
            return in.getReaderCacheHelper();
        }
    }

    /** A Lucene 10 FilterBinaryDocValues exists, one of Lucene 9 does too, but in another package. */
    private abstract static class FilterBinaryDocValues extends BinaryDocValues {
        final BinaryDocValues in;

        FilterBinaryDocValues(BinaryDocValues in) {
            this.in = in;
        }

        @Override
        public boolean advanceExact(int target) throws IOException {
            return in.advanceExact(target);
        }

        @Override
        public int docID() {
            return in.docID();
        }

        @Override
        public int nextDoc() throws IOException {
            return in.nextDoc();
        }

        @Override
        public int advance(int target) throws IOException {
            return in.advance(target);
        }

        @Override
        public long cost() {
            return in.cost();
        }
    }

    @ParameterizedTest
    @EnumSource
    void maskedValuesAreNotReadFromTheCache(TestShard.Storage storage) throws IOException {
        try (TestShard shard = new TestShard(8, storage)) {
            for (int i = 0; i < 20; i++) {
                shard.put("d" + i, new TestShard.Stored(Map.of(TestShard.IMAGE, new byte[8]), TestShard.RED));
            }
            try (DirectoryReader reader = shard.open()) {
                assertEquals(1f, new IndexSearcher(reader).search(nearest(shard), 1).scoreDocs[0].score);
                IndexSearcher masked = new IndexSearcher(new Restricted(reader, true));
                if (storage == TestShard.Storage.DOC_VALUES) {
                    assertEquals(1f / 65, masked.search(nearest(shard), 1).scoreDocs[0].score);
                    assertEquals(20, masked.count(nearest(shard)));
                } else {
                    assertEquals(0, masked.search(nearest(shard), 1).scoreDocs.length);
                    assertEquals(0, masked.count(nearest(shard)));
                }
                NodeStats stats = shard.service.cache.stats();
                assertTrue(stats.fallbacks() > 0);
                // A wrapper that changes nothing shares the entries.
                IndexSearcher unmasked = new IndexSearcher(new Restricted(reader, false));
                assertEquals(1f, unmasked.search(nearest(shard), 1).scoreDocs[0].score);
                assertEquals(stats.hits() + 1, shard.service.cache.stats().hits());
                assertEquals(stats.fallbacks(), shard.service.cache.stats().fallbacks());
            }
        }
    }

    @Test
    void concurrentLookupsLoadAnEntryOnce() throws Exception {
        try (TestShard shard = new TestShard(16, TestShard.Storage.DOC_VALUES)) {
            shard.add(0, 20_000);
            try (DirectoryReader reader = shard.open()) {
                LeafReader leaf = reader.leaves().get(0).reader();
                CountDownLatch start = new CountDownLatch(1);
                ExecutorService threads = Executors.newFixedThreadPool(4);
                Callable<SegmentCodes> load = () -> {
                    start.await();
                    return shard.service.codes(leaf, TestShard.IMAGE, shard.width);
                };
                List<Future<SegmentCodes>> found = IntStream.range(0, 4).mapToObj(i -> threads.submit(load)).toList();
                start.countDown();
                for (Future<SegmentCodes> one : found) {
                    assertSame(found.get(0).get(), one.get());
                }
                threads.shutdown();
                assertEquals(1, shard.service.cache.stats().loaded());
            }
        }
    }

    @Test
    void closedSegmentIsNotCached() throws IOException {
        try (TestShard shard = new TestShard(8, TestShard.Storage.DOC_VALUES)) {
            shard.add(0, 50);
            DirectoryReader reader = shard.open();
            LeafReader leaf = reader.leaves().get(0).reader();
            reader.close();
            shard.writer.close();
            try {
                assertNull(shard.service.cache.load(leaf, TestShard.IMAGE, 8));
            } catch (org.apache.lucene.store.AlreadyClosedException e) {
                // the search fails with the reason
            }
            assertEmpty(shard.service);
        }
    }

    @Test
    void limitRefusesEntriesAndClearsTheCache() throws IOException {
        try (TestShard shard = new TestShard(8, TestShard.Storage.DOC_VALUES)) {
            shard.add(0, 2000);
            try (DirectoryReader reader = shard.open()) {
                LeafReader leaf = reader.leaves().get(0).reader();
                shard.service.cache.setLimit(100);
                assertNull(shard.service.codes(leaf, TestShard.IMAGE, 8));
                assertNull(shard.service.codes(leaf, TestShard.IMAGE, 8));
                NodeStats refused = shard.service.cache.stats();
                assertEquals(List.of(1L, 2L, 0L), List.of(refused.tripped(), refused.fallbacks(), refused.estimated()));
                shard.service.cache.setLimit(1 << 20);
                assertNotNull(shard.service.codes(leaf, TestShard.IMAGE, 8));
                assertNotNull(shard.service.codes(leaf, TestShard.TEXT, 8));
                assertNull(shard.service.codes(leaf, "none", 8));
                assertEquals(2, shard.service.cache.stats().entries());
                shard.service.cache.setLimit(shard.service.cache.stats().bytes() - 1);
                assertEmpty(shard.service);
            }
        }
    }
}
