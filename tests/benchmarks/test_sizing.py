"""The model of a scan and the simulation of a cluster, with cases that have a known answer."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The simulation, which uses the model."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("harness.cluster_simulation")


@pytest.fixture
def model(bench: Any) -> Any:
    """2 ms for a request, 0.5 ns for a code, 0.25 ns for a word of it."""
    return bench.ScanModel(2.0, 0.5, 0.25)


def test_model_predicts_other_sizes_and_widths_from_small_ones(bench: Any) -> None:
    true = bench.ScanModel(2.0, 0.5, 0.25, 0.01, 0.3)
    sizes = [(codes, words) for codes in (1_000, 100_000, 1_000_000) for words in (1, 4)]
    rows = {(codes, words): true.predict(codes, 64 * words) for codes, words in sizes}
    high = {(codes, words): true.predict_95(codes, 64 * words) for codes, words in sizes}
    fitted = bench.ScanModel.fit(rows, high)
    assert fitted.predict(20_000_000, 128) == pytest.approx(2 + 0.01 * math.log2(20_000) + 20)
    assert fitted.predict_95(20_000_000, 128) == pytest.approx(true.predict_95(20_000_000, 128))
    assert fitted.predict(0, 64) == pytest.approx(2.0)


def test_model_has_no_negative_time(bench: Any) -> None:
    rows = {(1_000, 1): 2.0, (1_000, 4): 2.0, (1_000_000, 1): 2.5, (1_000_000, 4): 2.3}
    fitted = bench.ScanModel.fit(rows)
    assert fitted.per_word == 0 <= min(fitted.per_code, fitted.per_doubling)
    assert fitted.predict(10**9, 256) >= fitted.predict(10**6, 64) > 2.0


def test_rare_queries_take_the_time_of_a_task(bench: Any, model: Any) -> None:
    cluster = bench.Cluster(nodes=4, cores=1, shards=4)
    found = bench.simulate(cluster, model, 8_000_000, 64, 0.001, spread=0, queries=50)
    assert found.p50 == found.p95 == pytest.approx(model.predict(2_000_000, 64) + 4 * bench.MERGE)


def test_more_shards_than_cores_wait(bench: Any, model: Any) -> None:
    found = bench.simulate(
        bench.Cluster(1, 2, 6), model, 6_000_000, 64, 0.001, spread=0, queries=50
    )
    assert found.p50 == pytest.approx(3 * model.predict(1_000_000, 64) + 6 * bench.MERGE)


def test_waiting_agrees_with_the_formula_of_one_server(bench: Any, model: Any) -> None:
    """Pollaczek and Khinchine: the mean wait is u * s / (2 * (1 - u)) for a constant time s."""
    service, busy = model.predict(20_000_000, 64), 0.6
    rate = busy / service * 1e3
    found = bench.simulate(
        bench.Cluster(1, 1, 1), model, 20_000_000, 64, rate, spread=0, queries=20_000
    )
    assert found.utilisation == pytest.approx(busy)
    assert service < found.p50 < service * (1 + busy / (1 - busy))
    assert found.p95 > found.p50


def test_overloaded_cluster_has_no_times(bench: Any, model: Any) -> None:
    found = bench.simulate(bench.Cluster(2, 4, 8), model, 10**9, 64, 100, spread=0.1)
    assert math.isinf(found.p95) and found.utilisation > 1


def test_copies_are_on_different_nodes(bench: Any) -> None:
    placed = bench.Cluster(nodes=5, cores=2, shards=7, copies=2).placement()
    assert placed.shape == (7, 2) and (placed[:, 0] != placed[:, 1]).all()
    assert np.bincount(placed.ravel(), minlength=5).max() <= 4
