// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

import org.apache.lucene.document.BinaryDocValuesField;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.Field;
import org.apache.lucene.document.KnnByteVectorField;
import org.apache.lucene.document.StringField;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.index.NoMergePolicy;
import org.apache.lucene.index.Term;
import org.apache.lucene.index.VectorSimilarityFunction;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.store.ByteBuffersDirectory;
import org.apache.lucene.store.Directory;
import org.apache.lucene.util.BytesRef;
import org.opensearch.common.lucene.index.OpenSearchDirectoryReader;
import org.opensearch.common.settings.ClusterSettings;
import org.opensearch.common.settings.Settings;
import org.opensearch.core.index.shard.ShardId;
import org.opensearch.indices.breaker.HierarchyCircuitBreakerService;

/** A Lucene index of codes as a shard has it, its expected content, and a {@link HammingService} with a circuit breaker. */
final class TestShard implements AutoCloseable {
    /** Field of codes, missing in some documents. */
    static final String IMAGE = "image";
    /** Field of codes that few documents have. */
    static final String TEXT = "text";
    static final String RED = "red";
    private static final byte[] BYTES = { 0, 1, 3, -1 };

    /** How the k-NN plugin stores codes. */
    enum Storage { DOC_VALUES, VECTORS }

    /** A document: codes by field, and its tag. */
    record Stored(Map<String, byte[]> codes, String tag) {}

    final HammingService service = new HammingService();
    final int width;
    final Random random;
    final Map<String, Stored> documents = new HashMap<>();
    private final Storage storage;
    private final Directory directory = new ByteBuffersDirectory();
    final IndexWriter writer;

    /** {@code width}: bytes of a code. */
    TestShard(int width, Storage storage) throws IOException {
        this.width = width;
        this.storage = storage;
        random = new Random(width + storage.ordinal());
        writer = new IndexWriter(directory, new IndexWriterConfig().setMergePolicy(NoMergePolicy.INSTANCE));
        var settings = List.of(new HammingPlugin().getCircuitBreaker(Settings.EMPTY));
        var all = new ClusterSettings(Settings.EMPTY, ClusterSettings.BUILT_IN_CLUSTER_SETTINGS);
        service.cache.setBreaker(new HierarchyCircuitBreakerService(Settings.EMPTY, settings, all).getBreaker("hamming"));
    }

    /** A code of few distinct bytes, so that distances tie. */
    byte[] code() {
        byte[] code = new byte[width];
        for (int i = 0; i < width; i++) {
            code[i] = BYTES[random.nextInt(BYTES.length)];
        }
        return code;
    }

    /** Stores or replaces documents with the numbers from (inclusive) to to (exclusive) in a segment of their own. */
    void add(int from, int to) throws IOException {
        for (int i = from; i < to; i++) {
            Map<String, byte[]> codes = new HashMap<>();
            if (random.nextInt(10) > 0) {
                codes.put(IMAGE, code());
            }
            if (random.nextInt(10) == 0) {
                codes.put(TEXT, code());
            }
            put(String.valueOf(i), new Stored(codes, random.nextBoolean() ? RED : "blue"));
        }
        writer.flush();
    }

    void put(String id, Stored stored) throws IOException {
        Document document = new Document();
        document.add(new StringField("id", id, Field.Store.YES));
        document.add(new StringField("tag", stored.tag, Field.Store.NO));
        stored.codes.forEach((name, code) -> document.add(field(name, code)));
        documents.put(id, stored);
        writer.updateDocument(new Term("id", id), document);
    }

    private Field field(String name, byte[] code) {
        return storage == Storage.DOC_VALUES
            ? new BinaryDocValuesField(name, new BytesRef(code))
            : new KnnByteVectorField(name, code, VectorSimilarityFunction.EUCLIDEAN);
    }

    void delete(int id) throws IOException {
        documents.remove(String.valueOf(id));
        writer.deleteDocuments(new Term("id", String.valueOf(id)));
    }

    /** A new reader as the server opens it for a shard. */
    DirectoryReader open() throws IOException {
        return OpenSearchDirectoryReader.wrap(DirectoryReader.open(writer), new ShardId("index", "uuid", 0));
    }

    /** (id, score) of hits, ordered by score and id. */
    static List<Map.Entry<String, Float>> hits(IndexSearcher searcher, ScoreDoc[] docs) throws IOException {
        List<Map.Entry<String, Float>> hits = new ArrayList<>();
        for (ScoreDoc doc : docs) {
            hits.add(Map.entry(searcher.storedFields().document(doc.doc).get("id"), doc.score));
        }
        return sorted(hits);
    }

    static List<Map.Entry<String, Float>> sorted(List<Map.Entry<String, Float>> hits) {
        hits.sort(Map.Entry.<String, Float>comparingByValue().reversed().thenComparing(Map.Entry.comparingByKey()));
        return hits;
    }

    @Override
    public void close() throws IOException {
        writer.close();
        directory.close();
    }
}
