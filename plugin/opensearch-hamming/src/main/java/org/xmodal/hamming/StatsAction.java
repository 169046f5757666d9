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
import org.opensearch.transport.TransportRequest;
import org.opensearch.transport.TransportService;

/** Asks every node for its {@link NodeStats}. */
public final class StatsAction extends TransportNodesAction<StatsAction.Request, StatsAction.Response, StatsAction.One, StatsAction.Node> {
    static final String NAME = "cluster:monitor/hamming/stats";
    static final ActionType<Response> TYPE = new ActionType<>(NAME, Response::new);

    private final HammingService service;

    @Inject
    public StatsAction(
        ThreadPool threads, ClusterService cluster, TransportService transport, ActionFilters filters, HammingService service
    ) {
        super(NAME, threads, cluster, transport, filters, Request::new, One::new, ThreadPool.Names.MANAGEMENT, Node.class);
        this.service = service;
    }

    @Override
    protected Response newResponse(Request request, List<Node> nodes, List<FailedNodeException> failures) {
        return new Response(clusterService.getClusterName(), nodes, failures);
    }

    @Override
    protected One newNodeRequest(Request request) {
        return new One();
    }

    @Override
    protected Node newNodeResponse(StreamInput in) throws IOException {
        return new Node(in);
    }

    @Override
    protected Node nodeOperation(One request) {
        return new Node(clusterService.localNode(), service.columns.numbers());
    }

    /** To the cluster: all nodes, or those named. */
    public static final class Request extends BaseNodesRequest<Request> {
        Request(String... nodes) {
            super(nodes);
        }

        Request(StreamInput in) throws IOException {
            super(in);
        }
    }

    /** To one node. */
    public static final class One extends TransportRequest {
        One() {}

        One(StreamInput in) throws IOException {
            super(in);
        }
    }

    /** What one node answers. */
    public static final class Node extends BaseNodeResponse {
        private final NodeStats numbers;

        Node(DiscoveryNode node, NodeStats numbers) {
            super(node);
            this.numbers = numbers;
        }

        Node(StreamInput in) throws IOException {
            super(in);
            numbers = NodeStats.read(in);
        }

        @Override
        public void writeTo(StreamOutput out) throws IOException {
            super.writeTo(out);
            numbers.writeTo(out);
        }
    }

    /** What all answer, by node. */
    public static final class Response extends BaseNodesResponse<Node> implements ToXContentFragment {
        Response(ClusterName cluster, List<Node> nodes, List<FailedNodeException> failures) {
            super(cluster, nodes, failures);
        }

        Response(StreamInput in) throws IOException {
            super(in);
        }

        @Override
        protected List<Node> readNodesFrom(StreamInput in) throws IOException {
            return in.readList(Node::new);
        }

        @Override
        protected void writeNodesTo(StreamOutput out, List<Node> nodes) throws IOException {
            out.writeList(nodes);
        }

        @Override
        public XContentBuilder toXContent(XContentBuilder builder, Params params) throws IOException {
            builder.startObject("nodes");
            for (Node node : getNodes()) {
                builder.startObject(node.getNode().getId());
                builder.field("name", node.getNode().getName());
                node.numbers.toXContent(builder, params);
                builder.endObject();
            }
            return builder.endObject();
        }
    }
}
