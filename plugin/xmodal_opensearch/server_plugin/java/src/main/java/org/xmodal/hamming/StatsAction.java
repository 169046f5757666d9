// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.List;

import org.opensearch.action.ActionType;
import org.opensearch.action.FailedNodeException;
import org.opensearch.action.support.ActionFilters;
import org.opensearch.action.support.nodes.BaseNodeResponse;
import org.opensearch.action.support.nodes.BaseNodesRequest;
import org.opensearch.action.support.nodes.BaseNodesResponse;
import org.opensearch.action.support.nodes.TransportNodesAction;
import org.opensearch.cluster.ClusterName;
import org.opensearch.cluster.node.DiscoveryNode;
import org.opensearch.cluster.service.ClusterService;
import org.opensearch.common.inject.Inject;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.xcontent.ToXContentFragment;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.threadpool.ThreadPool;
import org.opensearch.transport.TransportService;

/** Collects the {@link NodeStats} of the nodes. */
public final class StatsAction extends TransportNodesAction<StatsAction.Request, StatsAction.Response, StatsAction.NodeRequest, StatsAction.NodeResponse> {
    static final String NAME = "cluster:monitor/hamming/stats";
    static final ActionType<Response> TYPE = new ActionType<>(NAME, Response::new);

    private final HammingService service;

    @Inject
    public StatsAction(
        ThreadPool threads, ClusterService cluster, TransportService transport, ActionFilters filters, HammingService service
    ) {
        super(NAME, threads, cluster, transport, filters, Request::new, NodeRequest::new, ThreadPool.Names.MANAGEMENT, NodeResponse.class);
        this.service = service;
    }

    @Override
    protected Response newResponse(Request request, List<NodeResponse> nodes, List<FailedNodeException> failures) {
        return new Response(clusterService.getClusterName(), nodes, failures);
    }

    @Override
    protected NodeRequest newNodeRequest(Request request) {
        return new NodeRequest();
    }

    @Override
    protected NodeResponse newNodeResponse(StreamInput in) throws IOException {
        return new NodeResponse(in);
    }

    @Override
    protected NodeResponse nodeOperation(NodeRequest request) {
        return new NodeResponse(clusterService.localNode(), service.cache.stats());
    }

    /** Request to the cluster: the named nodes, or all. */
    public static final class Request extends BaseNodesRequest<Request> {
        Request(String... nodes) {
            super(nodes);
        }

        Request(StreamInput in) throws IOException {
            super(in);
        }
    }

    /** Request to one node. */
    public static final class NodeRequest extends Versioned.BaseNodeRequest {
        NodeRequest() {}

        NodeRequest(StreamInput in) throws IOException {
            super(in);
        }
    }

    /** Response of one node. */
    public static final class NodeResponse extends BaseNodeResponse {
        private final NodeStats stats;

        NodeResponse(DiscoveryNode node, NodeStats stats) {
            super(node);
            this.stats = stats;
        }

        NodeResponse(StreamInput in) throws IOException {
            super(in);
            stats = NodeStats.read(in);
        }

        @Override
        public void writeTo(StreamOutput out) throws IOException {
            super.writeTo(out);
            stats.writeTo(out);
        }
    }

    /** Responses of all nodes, by node id. */
    public static final class Response extends BaseNodesResponse<NodeResponse> implements ToXContentFragment {
        Response(ClusterName cluster, List<NodeResponse> nodes, List<FailedNodeException> failures) {
            super(cluster, nodes, failures);
        }

        Response(StreamInput in) throws IOException {
            super(in);
        }

        @Override
        protected List<NodeResponse> readNodesFrom(StreamInput in) throws IOException {
            return in.readList(NodeResponse::new);
        }

        @Override
        protected void writeNodesTo(StreamOutput out, List<NodeResponse> nodes) throws IOException {
            out.writeList(nodes);
        }

        @Override
        public XContentBuilder toXContent(XContentBuilder builder, Params params) throws IOException {
            builder.startObject("nodes");
            for (NodeResponse node : getNodes()) {
                builder.startObject(node.getNode().getId());
                builder.field("name", node.getNode().getName());
                node.stats.toXContent(builder, params);
                builder.endObject();
            }
            return builder.endObject();
        }
    }
}
