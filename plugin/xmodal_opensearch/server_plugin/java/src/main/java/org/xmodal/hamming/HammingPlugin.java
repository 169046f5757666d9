// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.function.Supplier;

import org.opensearch.action.ActionRequest;
import org.opensearch.cluster.metadata.IndexNameExpressionResolver;
import org.opensearch.cluster.node.DiscoveryNodes;
import org.opensearch.cluster.service.ClusterService;
import org.opensearch.common.settings.ClusterSettings;
import org.opensearch.common.settings.IndexScopedSettings;
import org.opensearch.common.settings.Setting;
import org.opensearch.common.settings.Settings;
import org.opensearch.common.settings.SettingsFilter;
import org.opensearch.core.action.ActionResponse;
import org.opensearch.core.common.breaker.CircuitBreaker;
import org.opensearch.core.common.io.stream.NamedWriteableRegistry;
import org.opensearch.index.IndexModule;
import org.opensearch.indices.breaker.BreakerSettings;
import org.opensearch.plugins.ActionPlugin;
import org.opensearch.plugins.CircuitBreakerPlugin;
import org.opensearch.plugins.SearchPlugin;
import org.opensearch.rest.RestController;
import org.opensearch.rest.RestHandler;
import org.opensearch.threadpool.ThreadPool;

/** OpenSearch plugin for exact Hamming search over binary knn_vector fields, with the codes cached in memory. */
public final class HammingPlugin extends Versioned.BasePlugin implements SearchPlugin, ActionPlugin, CircuitBreakerPlugin {
    private final HammingService service = new HammingService();

    @Override
    Collection<Object> start(ClusterService cluster, ThreadPool threads) {
        service.start(cluster, threads);
        return List.of(service);
    }

    @Override
    public List<Setting<?>> getSettings() {
        return HammingSettings.all();
    }

    @Override
    public List<QuerySpec<?>> getQueries() {
        return List.of(
            new QuerySpec<>(
                HammingQueryBuilder.NAME, in -> new HammingQueryBuilder(service, in), parser -> HammingParser.parse(service, parser)
            ),
            new QuerySpec<>(CosineQueryBuilder.NAME, CosineQueryBuilder::new, CosineQueryBuilder::parse),
            new QuerySpec<>(TwoStageQueryBuilder.NAME, TwoStageQueryBuilder::new, TwoStageQueryBuilder::parse)
        );
    }

    @Override
    public List<NamedWriteableRegistry.Entry> getNamedWriteables() {
        List<NamedWriteableRegistry.Entry> entries = new ArrayList<>(HammingQueryBuilder.otherNames(service));
        entries.add(CosineQueryBuilder.otherName());
        return entries;
    }

    @Override
    public void onIndexModule(IndexModule index) {
        index.addIndexEventListener(service);
        index.addSearchOperationListener(new AliasFilters());
    }

    @Override
    public List<ActionHandler<? extends ActionRequest, ? extends ActionResponse>> getActions() {
        return List.of(
            new ActionHandler<>(StatsAction.TYPE, StatsAction.class), new ActionHandler<>(WarmupAction.TYPE, WarmupAction.class)
        );
    }

    @Override
    public List<RestHandler> getRestHandlers(
        Settings settings, RestController controller, ClusterSettings clusterSettings, IndexScopedSettings indexSettings,
        SettingsFilter filter, IndexNameExpressionResolver names, Supplier<DiscoveryNodes> nodes
    ) {
        return List.of(new RestStats(), new RestWarmup());
    }

    @Override
    public BreakerSettings getCircuitBreaker(Settings settings) {
        return new BreakerSettings(
            "hamming", HammingSettings.BREAKER_LIMIT.get(settings).getBytes(), 1.0, CircuitBreaker.Type.MEMORY,
            CircuitBreaker.Durability.PERMANENT
        );
    }

    @Override
    public void setCircuitBreaker(CircuitBreaker breaker) {
        service.cache.setBreaker(breaker);
    }

    @Override
    public void close() {
        service.stop();
    }
}
