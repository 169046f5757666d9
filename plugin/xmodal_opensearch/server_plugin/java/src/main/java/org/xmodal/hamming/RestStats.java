// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.util.List;

import org.opensearch.core.common.Strings;
import org.opensearch.rest.RestRequest;
import org.opensearch.rest.action.RestActions;

/** {@code GET _plugins/_hamming/stats}, or {@code _plugins/_hamming/{nodes}/stats}. */
final class RestStats extends Versioned.BaseHandler {
    @Override
    public String getName() {
        return "hamming_stats";
    }

    @Override
    public List<Route> routes() {
        return List.of(
            new Route(RestRequest.Method.GET, "/_plugins/_hamming/stats"),
            new Route(RestRequest.Method.GET, "/_plugins/_hamming/{nodes}/stats")
        );
    }

    @Override
    RestChannelConsumer prepare(RestRequest request, Versioned.Executor client) {
        StatsAction.Request stats = new StatsAction.Request(Strings.splitStringByCommaToArray(request.param("nodes")));
        return channel -> client.execute(StatsAction.TYPE, stats, new RestActions.NodesResponseRestListener<>(channel));
    }
}
