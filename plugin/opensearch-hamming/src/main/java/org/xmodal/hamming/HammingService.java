// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

import org.apache.logging.log4j.LogManager;
import org.apache.logging.log4j.Logger;
import org.opensearch.cluster.service.ClusterService;
import org.opensearch.common.settings.Settings;
import org.opensearch.core.index.shard.ShardId;
import org.opensearch.index.query.QueryShardContext;
import org.opensearch.index.shard.IndexEventListener;
import org.opensearch.index.shard.IndexShard;
import org.opensearch.threadpool.Scheduler;
import org.opensearch.threadpool.ThreadPool;

/**
 * What the parts of the plugin share on a node: the columns, and for each shard a {@link ShardWarmer}.
 *
 * <p>The server offers plugins no word of a refresh, so we look: once a second every shard is asked for its count of
 * refreshes, which costs nothing, and only where it has moved are the new segments read, on the server's own threads
 * for warming.
 */
public final class HammingService implements IndexEventListener {
    private static final Logger LOG = LogManager.getLogger(HammingService.class);

    final CodeCache columns = new CodeCache();
    private final Map<ShardId, ShardWarmer> shards = new ConcurrentHashMap<>();
    private volatile HammingSettings.Load load = HammingSettings.Load.USED;
    private volatile Scheduler.Cancellable ticking;

    void start(ClusterService cluster, ThreadPool threads) {
        Settings settings = cluster.getSettings();
        load = HammingSettings.LOAD.get(settings);
        cluster.getClusterSettings().addSettingsUpdateConsumer(HammingSettings.LOAD, value -> load = value);
        cluster.getClusterSettings().addSettingsUpdateConsumer(HammingSettings.BREAKER_LIMIT, value -> columns.limit(value.getBytes()));
        ticking = threads.scheduleWithFixedDelay(
            this::look, HammingSettings.LOAD_INTERVAL.get(settings), ThreadPool.Names.WARMER
        );
    }

    void stop() {
        if (ticking != null) {
            ticking.cancel();
        }
    }

    @Override
    public void afterIndexShardStarted(IndexShard shard) {
        shards.put(shard.shardId(), new ShardWarmer(shard, columns));
    }

    @Override
    public void beforeIndexShardClosed(ShardId id, IndexShard shard, Settings settings) {
        shards.remove(id);
    }

    /** The loader of a shard of this node, or null where it has not started. */
    ShardWarmer shard(ShardId id) {
        return shards.get(id);
    }

    /** A query named these fields. */
    void used(QueryShardContext context, List<CodeField> fields) {
        ShardWarmer shard = shards.get(new ShardId(context.index(), context.getShardId()));
        if (shard != null) {
            shard.use(fields);
        }
    }

    private void look() {
        shards.forEach((id, shard) -> {
            try {
                shard.look(load);
            } catch (Exception e) {
                // A shard that closes meanwhile; or a real fault, which the next query will tell its user.
                LOG.debug("reading columns of {} ahead failed", id, e);
            }
        });
    }
}
