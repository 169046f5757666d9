"""Prometheus metrics of a service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
LAG_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
DOWNLOAD_RESULTS = ("ok", "refused", "failed")
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Metrics of one service, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "xmodal_requests", "Answered requests.", ["path", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "xmodal_request_seconds",
            "Seconds from the head of a request to the end of its response.",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.running = Gauge(
            "xmodal_requests_running", "Requests in progress.", registry=self._registry
        )
        self.batches = Histogram(
            "xmodal_batch_size",
            "Inputs in one batch.",
            ["work"],
            buckets=SIZES,
            registry=self._registry,
        )

        self.downloads = Counter(
            "xmodal_picture_downloads",
            "Downloads of pictures that requests name by an address.",
            ["result"],
            registry=self._registry,
        )
        for result in DOWNLOAD_RESULTS:
            self.downloads.labels(result)  # a rate needs the value 0

        self.refused = Counter(
            "xmodal_requests_refused",
            "Requests that were refused before they were processed.",
            ["reason"],
            registry=self._registry,
        )
        self.bytes = Counter(
            "xmodal_body_bytes",
            "Bytes of the bodies of requests and responses.",
            ["direction"],
            registry=self._registry,
        )
        self.connections = Gauge("xmodal_connections", "Open connections.", registry=self._registry)
        self.closed = Counter(
            "xmodal_connections_closed",
            "Connections that the service closed because of a limit.",
            ["reason"],
            registry=self._registry,
        )
        self.lag = Histogram(
            "xmodal_event_loop_lag_seconds",
            "Delay of a timer of the event loop, measured ten times per second.",
            buckets=LAG_SECONDS,
            registry=self._registry,
        )
        self.queue = Gauge(
            "xmodal_queue_length",
            "Inputs that wait for a thread.",
            ["work"],
            registry=self._registry,
        )

    def observe_batch(self, work: str, size: int) -> None:
        """Record a batch of ``size`` inputs; ``work`` is texts, pictures or searches."""
        self.batches.labels(work).observe(size)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
