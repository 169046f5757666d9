"""Simulation of exact searches in a cluster: shards on nodes with cores, and a queue for each node.

A query is one task for each shard, on a random copy of it. A task is computed by one core for the
time that the model predicts for a request to one shard, times a random factor; tasks wait in the
order of their arrival. The answer is complete when the slowest shard has answered and the lists are
merged.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.scan_model import ScanModel, percentile

MERGE = 0.02
"""Milliseconds by which the coordinating node merges the hits of one shard. An assumption."""
MAX_UTILISATION = 0.95


@dataclass(frozen=True)
class Cluster:
    """``nodes`` with ``cores`` each; each of the ``shards`` has ``copies`` on different nodes."""

    nodes: int
    cores: int
    shards: int
    copies: int = 1

    def placement(self) -> NDArray[np.int64]:
        """Node of each copy, (shards, copies): round robin."""
        shards = np.arange(self.shards)[:, None]
        return (shards + np.arange(self.copies)[None, :]) % self.nodes


@dataclass(frozen=True)
class Outcome:
    """Milliseconds of a query, infinite in an overloaded cluster, and the share of busy cores."""

    p50: float
    p95: float
    utilisation: float


def simulate(
    cluster: Cluster,
    model: ScanModel,
    codes: int,
    bits: int,
    rate: float,
    *,
    spread: float,
    queries: int = 3_000,
    seed: int = 0,
) -> Outcome:
    """Queries arrive at random, ``rate`` of them a second.

    ``spread``: standard deviation of the logarithm of a task's time. The first fifth of the queries
    does not count.
    """
    mean = model.predict(codes / cluster.shards, bits)
    busy = rate * cluster.shards * mean * np.exp(spread**2 / 2) / 1e3
    utilisation = busy / (cluster.nodes * cluster.cores)
    if utilisation > MAX_UTILISATION:
        return Outcome(np.inf, np.inf, utilisation)
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1e3 / rate, queries))
    copies, placement = cluster.copies, cluster.placement()
    free = [[0.0] * cluster.cores for _ in range(cluster.nodes)]
    times = np.empty(queries)
    for number, arrival in enumerate(arrivals):
        work = mean * np.exp(rng.normal(0, spread, cluster.shards))
        chosen = placement[np.arange(cluster.shards), rng.integers(copies, size=cluster.shards)]
        end = arrival
        for node, duration in zip(chosen.tolist(), work.tolist(), strict=True):
            begin = max(arrival, free[node][0])
            heapq.heapreplace(free[node], begin + duration)
            end = max(end, begin + duration)
        times[number] = end - arrival + MERGE * cluster.shards
    counted = times[queries // 5 :].tolist()
    return Outcome(percentile(counted, 50), percentile(counted, 95), utilisation)
