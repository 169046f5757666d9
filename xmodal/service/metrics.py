"""Figures of a running service, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Meters:
    """Counters of one service; two services in one process do not mix."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "xmodal_requests", "Requests answered.", ["path", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "xmodal_request_seconds",
            "Time from a request's head to its answer.",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.running = Gauge(
            "xmodal_requests_running", "Requests being answered.", registry=self._registry
        )
        self.batches = Histogram(
            "xmodal_batch_size",
            "How many calls were made together.",
            ["work"],
            buckets=SIZES,
            registry=self._registry,
        )

    def text(self) -> bytes:
        """All figures, in Prometheus' format."""
        return generate_latest(self._registry)
