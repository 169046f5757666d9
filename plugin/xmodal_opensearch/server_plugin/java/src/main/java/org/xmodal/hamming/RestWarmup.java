// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.util.List;

import org.opensearch.core.common.Strings;
import org.opensearch.core.xcontent.ToXContent;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.rest.BytesRestResponse;
import org.opensearch.rest.RestRequest;
import org.opensearch.rest.RestResponse;
import org.opensearch.rest.action.RestBuilderListener;

/**
 * {@code POST _plugins/_hamming/warmup/{index}}, with {@code ?fields=} or for all code fields.
 *
 * <p>GET is accepted like in k-NN's warmup API. {@code POST {index}/_plugins/_hamming/warm} is an older path.
 */
final class RestWarmup extends Versioned.BaseHandler {
    @Override
    public String getName() {
        return "hamming_warmup";
    }

    @Override
    public List<Route> routes() {
        return List.of(
            new Route(RestRequest.Method.POST, "/_plugins/_hamming/warmup/{index}"),
            new Route(RestRequest.Method.GET, "/_plugins/_hamming/warmup/{index}"),
            new Route(RestRequest.Method.POST, "/{index}/_plugins/_hamming/warm")
        );
    }

    @Override
    RestChannelConsumer prepare(RestRequest request, Versioned.Executor client) {
        String[] indices = Strings.splitStringByCommaToArray(request.param("index"));
        List<String> fields = List.of(request.paramAsStringArray("fields", Strings.EMPTY_ARRAY));
        WarmupAction.Request warmup = new WarmupAction.Request(indices, fields);
        return channel -> client.execute(WarmupAction.TYPE, warmup, new RestBuilderListener<WarmupAction.Response>(channel) {
            @Override
            public RestResponse buildResponse(WarmupAction.Response response, XContentBuilder builder) throws Exception {
                response.toXContent(builder, ToXContent.EMPTY_PARAMS);
                return new BytesRestResponse(response.getStatus(), builder);
            }
        });
    }
}
