// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

import org.apache.logging.log4j.LogManager;
import org.apache.logging.log4j.Logger;
import org.apache.lucene.index.LeafReader;
import org.opensearch.cluster.service.ClusterService;
import org.opensearch.common.lucene.index.OpenSearchLeafReader;
import org.opensearch.common.settings.Settings;
import org.opensearch.core.index.shard.ShardId;
import org.opensearch.index.shard.IndexEventListener;
import org.opensearch.index.shard.IndexShard;
import org.opensearch.threadpool.Scheduler;
import org.opensearch.threadpool.ThreadPool;

/**
 * State of the plugin on one node: the cache of codes, and a {@link ShardWarmer} per shard.
 *
 * <p>Plugins receive no event for a refresh. The refresh count of each shard is therefore polled, once a second by default,
 * and new segments are loaded on the server's warmer threads if it has changed.
 */
public final class HammingService implements IndexEventListener {
    private static final Logger LOG = LogManager.getLogger(HammingService.class);

    final CodeCache cache = new CodeCache();
    private final Map<ShardId, ShardWarmer> shards = new ConcurrentHashMap<>();
    private volatile HammingSettings.LoadPolicy load = HammingSettings.LoadPolicy.USED;
    private volatile Scheduler.Cancellable polling;

    void start(ClusterService cluster, ThreadPool threads) {
        Settings settings = cluster.getSettings();
        load = HammingSettings.LOAD.get(settings);
        cluster.getClusterSettings().addSettingsUpdateConsumer(HammingSettings.LOAD, value -> load = value);
        cluster.getClusterSettings().addSettingsUpdateConsumer(HammingSettings.BREAKER_LIMIT, value -> cache.setLimit(value.getBytes()));
        polling = threads.scheduleWithFixedDelay(
            this::poll, HammingSettings.LOAD_INTERVAL.get(settings), ThreadPool.Names.WARMER
        );
    }

    void stop() {
        if (polling != null) {
            polling.cancel();
        }
    }

    @Override
    public void afterIndexShardStarted(IndexShard shard) {
        shards.put(shard.shardId(), new ShardWarmer(shard, cache));
    }

    @Override
    public void beforeIndexShardClosed(ShardId id, IndexShard shard, Settings settings) {
        shards.remove(id);
    }

    /** The warmer of a shard on this node, or null if the shard has not started. */
    ShardWarmer shard(ShardId id) {
        return shards.get(id);
    }

    /**
     * The codes of a field in a segment, for a query; see {@link CodeCache#get}.
     *
     * <p>Only segments of a shard are cached. Other readers, such as the in-memory index of a percolated document, exist for
     * one request and may never be closed.
     *
     * @param width bytes of a code
     * @return null if the query must read the codes from its own reader
     */
    SegmentCodes codes(LeafReader reader, String field, int width) throws IOException {
        OpenSearchLeafReader segment = OpenSearchLeafReader.getOpenSearchLeafReader(reader);
        if (segment == null) {
            return null;
        }
        ShardWarmer shard = shards.get(segment.shardId());
        if (shard != null) {
            shard.recordUse(field, width);
        }
        return cache.get(reader, segment, field, width);
    }

    private void poll() {
        shards.forEach((id, shard) -> {
            try {
                shard.loadNewSegments(load);
            } catch (Exception e) {
                // The shard is being closed, or reading fails; in the second case the next query reports the error.
                LOG.debug("warming up {} failed", id, e);
            }
        });
    }
}
