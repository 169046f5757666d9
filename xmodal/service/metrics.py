"""Prometheus metrics of a service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
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

    def observe_batch(self, work: str, size: int) -> None:
        """Record a batch of ``size`` inputs; ``work`` is texts, pictures or searches."""
        self.batches.labels(work).observe(size)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
