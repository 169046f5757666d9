// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.Collection;
import java.util.function.Supplier;

import org.apache.lucene.index.ByteVectorValues;
import org.apache.lucene.index.KnnVectorValues;
import org.apache.lucene.search.BulkScorer;
import org.apache.lucene.search.DocIdSetIterator;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.Scorer;
import org.apache.lucene.search.ScorerSupplier;
import org.apache.lucene.search.Weight;
import org.apache.lucene.util.FixedBitSet;
import org.opensearch.action.ActionRequest;
import org.opensearch.action.ActionType;
import org.opensearch.cluster.metadata.IndexNameExpressionResolver;
import org.opensearch.cluster.service.ClusterService;
import org.opensearch.core.action.ActionListener;
import org.opensearch.core.action.ActionResponse;
import org.opensearch.core.common.io.stream.NamedWriteableRegistry;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.xcontent.NamedXContentRegistry;
import org.opensearch.env.Environment;
import org.opensearch.env.NodeEnvironment;
import org.opensearch.index.query.QueryBuilder;
import org.opensearch.plugins.Plugin;
import org.opensearch.repositories.RepositoriesService;
import org.opensearch.rest.BaseRestHandler;
import org.opensearch.rest.RestRequest;
import org.opensearch.script.ScriptService;
import org.opensearch.threadpool.ThreadPool;
import org.opensearch.transport.TransportRequest;
import org.opensearch.transport.client.Client;
import org.opensearch.transport.client.node.NodeClient;
import org.opensearch.watcher.ResourceWatcherService;

/** What differs between server versions: this file for 3.x with Lucene 10, {@code lucene9} for 2.x with Lucene 9. */
final class Versioned {
    private Versioned() {}

    /** Weight whose scorers all come from {@code scorerSupplier}. */
    abstract static class BaseWeight extends Weight {
        BaseWeight(Query query) {
            super(query);
        }
    }

    /** ScorerSupplier with a BulkScorer of its own. */
    abstract static class BulkScorerSupplier extends ScorerSupplier {
        @Override
        public abstract BulkScorer bulkScorer() throws IOException;
    }

    /** Scorer of a weight. */
    abstract static class BaseScorer extends Scorer {
        BaseScorer(Weight weight) {}
    }

    /** Sets bit {@code doc - offset} of each document from the iterator's current one to {@code end} (exclusive). */
    static void intoBitSet(DocIdSetIterator iterator, int end, FixedBitSet bits, int offset) throws IOException {
        iterator.intoBitSet(end, bits, offset);
    }

    /** Byte vectors of a segment: an iterator over its documents, and the vector of the current one. */
    static final class Vectors {
        final DocIdSetIterator iterator;
        private final ByteVectorValues values;
        private final KnnVectorValues.DocIndexIterator index;

        Vectors(ByteVectorValues values) {
            this.values = values;
            index = values.iterator();
            iterator = index;
        }

        byte[] current() throws IOException {
            return values.vectorValue(index.index());
        }
    }

    /** {@code query} restricted to documents that match {@code filter}. */
    static QueryBuilder restrict(QueryBuilder query, QueryBuilder filter) {
        return query.filter(filter);
    }

    /** Request to one node, as part of a request to several. */
    abstract static class BaseNodeRequest extends TransportRequest {
        BaseNodeRequest() {}

        BaseNodeRequest(StreamInput in) throws IOException {
            super(in);
        }
    }

    /** Plugin with the components that {@code start} returns. */
    abstract static class BasePlugin extends Plugin {
        abstract Collection<Object> start(ClusterService cluster, ThreadPool threads);

        @Override
        public final Collection<Object> createComponents(
            Client client, ClusterService cluster, ThreadPool threads, ResourceWatcherService watcher, ScriptService scripts,
            NamedXContentRegistry xContent, Environment environment, NodeEnvironment node, NamedWriteableRegistry writeables,
            IndexNameExpressionResolver names, Supplier<RepositoriesService> repositories
        ) {
            return start(cluster, threads);
        }
    }

    /** Executes an action on the node. */
    interface Executor {
        <Q extends ActionRequest, R extends ActionResponse> void execute(ActionType<R> type, Q request, ActionListener<R> listener);
    }

    /** REST handler that executes an action. */
    abstract static class BaseHandler extends BaseRestHandler {
        abstract RestChannelConsumer prepare(RestRequest request, Executor client);

        @Override
        protected final RestChannelConsumer prepareRequest(RestRequest request, NodeClient client) {
            return prepare(request, client::execute);
        }
    }
}
