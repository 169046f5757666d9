// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

import org.opensearch.Version;
import org.opensearch.common.settings.Settings;
import org.opensearch.common.xcontent.XContentHelper;
import org.opensearch.common.xcontent.json.JsonXContent;
import org.opensearch.core.common.io.stream.NamedWriteableRegistry;
import org.opensearch.http.HttpServerTransport;
import org.opensearch.knn.plugin.KNNPlugin;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.node.NodeValidationException;
import org.opensearch.percolator.PercolatorModulePlugin;
import org.opensearch.plugins.PluginInfo;
import org.opensearch.transport.Netty4ModulePlugin;

/** A server in this process with the hamming and the k-NN plugin; requests are sent over HTTP. */
final class TestNode implements AutoCloseable {
    private static final HttpClient HTTP = HttpClient.newHttpClient();

    private final Path folder;
    private final Node node;
    private final String url;

    /** Status and body of a response. */
    record Response(int status, String text) {
        Map<String, Object> json() {
            return XContentHelper.convertToMap(JsonXContent.jsonXContent, text, false);
        }
    }

    private static final class InProcess extends Node {
        InProcess(Settings settings, List<PluginInfo> plugins) {
            super(InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "test"), plugins, true);
        }
    }

    TestNode() throws IOException, NodeValidationException {
        folder = Files.createTempDirectory("hamming-node");
        Settings settings = Settings.builder()
            .put("path.home", folder.toString())
            .put("cluster.name", folder.getFileName().toString())
            .put("network.host", "127.0.0.1")
            .put("http.port", "0")
            .put("transport.port", "0")
            .put("discovery.type", "single-node")
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .build();
        List<PluginInfo> plugins = Stream.of(Netty4ModulePlugin.class, KNNPlugin.class, PercolatorModulePlugin.class, HammingPlugin.class)
            .map(type -> new PluginInfo(type.getName(), "of the test", "NA", Version.CURRENT, "1.8", type.getName(), null, List.of(), false))
            .toList();
        node = new InProcess(settings, plugins);
        node.start();
        url = "http://127.0.0.1:" + node.injector().getInstance(HttpServerTransport.class).boundAddress().publishAddress().getPort() + "/";
    }

    /** Sends a request; {@code body} may be null. */
    Response send(String method, String path, String body) {
        return send(method, path, body == null ? new byte[0] : body.getBytes(StandardCharsets.UTF_8), "application/json");
    }

    Response send(String method, String path, byte[] body, String type) {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url + path))
            .header("Content-Type", type)
            .method(method, BodyPublishers.ofByteArray(body))
            .build();
        try {
            HttpResponse<String> response = HTTP.send(request, BodyHandlers.ofString());
            return new Response(response.statusCode(), response.body());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    /** The body of the response to a request that must succeed. */
    Map<String, Object> json(String method, String path, String body) {
        Response response = send(method, path, body);
        if (response.status() >= 300) {
            throw new AssertionError(method + " " + path + " " + body + ": " + response);
        }
        return response.json();
    }

    /** The readers of queries that other nodes send. */
    NamedWriteableRegistry writeables() {
        return node.injector().getInstance(NamedWriteableRegistry.class);
    }

    /** The value at a path of keys and positions, such as {@code hits.hits.0._id}. */
    @SuppressWarnings("unchecked")
    static <T> T at(Object json, String path) {
        for (String key : path.split("\\.")) {
            json = json instanceof List<?> list ? list.get(Integer.parseInt(key)) : ((Map<String, Object>) json).get(key);
        }
        return (T) json;
    }

    @Override
    public void close() throws IOException {
        node.close();
        try (Stream<Path> files = Files.walk(folder)) {
            for (Path file : files.sorted((a, b) -> b.compareTo(a)).toList()) {
                Files.delete(file);
            }
        }
    }
}
