// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.List;
import java.util.Map;

import org.opensearch.action.ActionType;
import org.opensearch.action.support.ActionFilters;
import org.opensearch.action.support.broadcast.BroadcastRequest;
import org.opensearch.action.support.broadcast.BroadcastResponse;
import org.opensearch.action.support.broadcast.node.TransportBroadcastByNodeAction;
import org.opensearch.cluster.ClusterState;
import org.opensearch.cluster.block.ClusterBlockException;
import org.opensearch.cluster.block.ClusterBlockLevel;
import org.opensearch.cluster.metadata.IndexNameExpressionResolver;
import org.opensearch.cluster.routing.ShardRouting;
import org.opensearch.cluster.routing.ShardsIterator;
import org.opensearch.cluster.service.ClusterService;
import org.opensearch.common.inject.Inject;
import org.opensearch.core.action.support.DefaultShardOperationFailedException;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.common.io.stream.Writeable;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.threadpool.ThreadPool;
import org.opensearch.transport.TransportService;

/** Loads the codes of indices into the caches of all nodes that hold a shard, and responds when that is done. */
public final class WarmupAction extends TransportBroadcastByNodeAction<WarmupAction.Request, WarmupAction.Response, WarmupAction.ShardResult> {
    // Security roles name this permission: do not rename it.
    static final String NAME = "indices:admin/hamming/warm";
    static final ActionType<Response> TYPE = new ActionType<>(NAME, Response::new);

    private final HammingService service;

    @Inject
    public WarmupAction(
        ClusterService cluster, TransportService transport, ActionFilters filters, IndexNameExpressionResolver names,
        HammingService service
    ) {
        super(NAME, cluster, transport, filters, names, Request::new, ThreadPool.Names.WARMER);
        this.service = service;
    }

    @Override
    protected ShardResult shardOperation(Request request, ShardRouting routing) throws IOException {
        ShardWarmer shard = service.shard(routing.shardId());
        if (shard == null) {
            return new ShardResult(0, 0);
        }
        Map<String, Integer> fields = request.fields.isEmpty() ? shard.codeFields() : shard.codeFields(request.fields);
        fields.forEach(shard::recordUse);
        ShardWarmer.LoadResult result = shard.load(fields);
        return new ShardResult(result.entries(), result.refused());
    }

    @Override
    protected ShardsIterator shards(ClusterState state, Request request, String[] indices) {
        return state.routingTable().allShards(indices);
    }

    @Override
    protected ClusterBlockException checkGlobalBlock(ClusterState state, Request request) {
        return state.blocks().globalBlockedException(ClusterBlockLevel.READ);
    }

    @Override
    protected ClusterBlockException checkRequestBlock(ClusterState state, Request request, String[] indices) {
        return state.blocks().indicesBlockedException(ClusterBlockLevel.READ, indices);
    }

    @Override
    protected ShardResult readShardResult(StreamInput in) throws IOException {
        return new ShardResult(in.readVInt(), in.readVInt());
    }

    @Override
    protected Request readRequestFrom(StreamInput in) throws IOException {
        return new Request(in);
    }

    @Override
    protected Response newResponse(
        Request request, int total, int successful, int failed, List<ShardResult> results,
        List<DefaultShardOperationFailedException> failures, ClusterState state
    ) {
        int entries = results.stream().mapToInt(ShardResult::entries).sum();
        int refused = results.stream().mapToInt(ShardResult::refused).sum();
        return new Response(total, successful, failed, failures, entries, refused);
    }

    /** The indices, and their fields; an empty list means all code fields. */
    public static final class Request extends BroadcastRequest<Request> {
        private final List<String> fields;

        Request(String[] indices, List<String> fields) {
            super(indices);
            this.fields = fields;
        }

        Request(StreamInput in) throws IOException {
            super(in);
            fields = in.readStringList();
        }

        @Override
        public void writeTo(StreamOutput out) throws IOException {
            super.writeTo(out);
            out.writeStringCollection(fields);
        }
    }

    /** Result of one shard; see {@link ShardWarmer.LoadResult}. */
    public record ShardResult(int entries, int refused) implements Writeable {
        @Override
        public void writeTo(StreamOutput out) throws IOException {
            out.writeVInt(entries);
            out.writeVInt(refused);
        }
    }

    /** Sums of the results of all shards. */
    public static final class Response extends BroadcastResponse {
        private final int entries;
        private final int refused;

        Response(
            int total, int successful, int failed, List<DefaultShardOperationFailedException> failures, int entries, int refused
        ) {
            super(total, successful, failed, failures);
            this.entries = entries;
            this.refused = refused;
        }

        Response(StreamInput in) throws IOException {
            super(in);
            entries = in.readVInt();
            refused = in.readVInt();
        }

        @Override
        public void writeTo(StreamOutput out) throws IOException {
            super.writeTo(out);
            out.writeVInt(entries);
            out.writeVInt(refused);
        }

        @Override
        protected void addCustomXContentFields(XContentBuilder builder, Params params) throws IOException {
            builder.field("cache_entries", entries).field("refused_by_breaker", refused);
            builder.field("columns", entries); // former name of cache_entries
        }
    }
}
