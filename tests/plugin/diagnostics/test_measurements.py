"""Measurements of doctor: collisions equal those of numpy, advice follows thresholds and tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from support.filled import BITS, random_codes

from xmodal.codes import BinaryCodes
from xmodal.modality import MODALITIES
from xmodal_opensearch.diagnostics import measurements
from xmodal_opensearch.diagnostics.measurements import (
    DiagnosticsReport,
    Latency,
    ModalityStats,
    advice,
    compare_strategies,
    diagnose,
    is_faster,
)
from xmodal_opensearch.index.approximate import Recall
from xmodal_opensearch.index.store import open_opensearch


def codes_with_repetitions(n: int, distinct: int, seed: int) -> BinaryCodes:
    """Return ``n`` codes drawn from ``distinct`` ones with different probabilities."""
    rng = np.random.default_rng(seed)
    weights = np.arange(1, distinct + 1)
    return random_codes(distinct, seed)[rng.choice(distinct, n, p=weights / weights.sum())]


def latency(strategy: str, *milliseconds: float) -> Latency:
    """Return the times of 16 queries."""
    times = milliseconds * (16 // len(milliseconds))
    return Latency(strategy, "text", times)


@pytest.mark.parametrize(
    ("strategy", "measured"),
    [
        ("script", ["script", "knn"]),
        ("knn", ["script", "knn"]),
        ("long", ["long"]),
        ("lucene-hnsw", ["script", "graph"]),
    ],
)
def test_diagnose_measures_collisions_latencies_and_recall(
    address: Callable[..., str], strategy: str, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurements, "QUERIES", 3)
    image, text = codes_with_repetitions(700, 20, 1), random_codes(700, 2)
    with open_opensearch(address(strategy=strategy), bits=BITS, create=True) as index:
        index.add([f"d{n}" for n in range(700)], image=image, text=text)
        index.add(["no picture"], text=random_codes(1, 3))
        progress: list[tuple[str, int, int]] = []
        report = diagnose(index, progress=lambda *one: progress.append(one))
        distinct, counts = np.unique(image.packed, axis=0, return_counts=True)
        assert report.modalities == [
            ModalityStats("image", 700, 700, len(distinct) / 700, counts.max()),
            ModalityStats("text", 701, 701, 1.0, 1),
        ]
        assert [(one.strategy, one.modality) for one in report.latencies] == [
            (one, modality) for modality in ("image", "text") for one in measured
        ]
        assert all(0 < one.milliseconds < 60_000 for one in report.latencies)
        assert progress == [("image codes", 700, 700), ("text codes", 701, 701)]
        assert f"only {len(distinct) / 700:.0%} of the image codes are distinct" in report.advice[0]
        assert f"has {counts.max()}: " in report.advice[0]
        assert not any("text codes are distinct" in line for line in report.advice)
        if strategy == "lucene-hnsw":
            recalls = [(one, index.measure_recall(10, target=one)) for one in MODALITIES]
            assert report.recalls == recalls
            assert all(0 < recall.value <= 1 and recall.queries == 32 for _, recall in recalls)
        else:
            assert report.recalls == []


def test_diagnose_of_an_empty_index(address: Callable[..., str]) -> None:
    with open_opensearch(address(), bits=BITS, create=True) as index:
        report = diagnose(index)
        assert report.modalities == [] and report.latencies == []
        assert len(report.advice) == 1 and "the index is empty" in report.advice[0]


def test_diagnose_reads_at_most_max_codes(
    address: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurements, "MAX_CODES", 5000)
    monkeypatch.setattr(measurements, "QUERIES", 1)
    with open_opensearch(address(), bits=BITS, create=True) as index:
        codes = random_codes(6000)
        index.add([f"d{n}" for n in range(6000)], image=codes)
        assert diagnose(index).modalities == [ModalityStats("image", 6000, 5000, 1.0, 1)]


@pytest.mark.parametrize(
    ("report", "parts"),
    [
        (DiagnosticsReport("", [ModalityStats("text", 9, 9, 0.5, 2)]), ["no change recommended"]),
        (
            DiagnosticsReport("", [ModalityStats("text", 1500, 1500, 0.499, 1200)]),
            ["only 50% of the text codes are distinct, the largest group of equal codes has 1,200"],
        ),
        (
            DiagnosticsReport("", recalls=[("image", Recall(0.95, 10, 32))]),
            ["no change recommended"],
        ),
        (
            DiagnosticsReport("", recalls=[("image", Recall(0.94, 10, 32))]),
            ["the graph finds 94% of the 10 nearest image codes"],
        ),
        (
            DiagnosticsReport("", latencies=[latency("script", 9.0), latency("knn", 7.0)]),
            ["strategy=knn is faster than script (7.0 and 9.0 ms): search with ?strategy=knn"],
        ),
        (
            DiagnosticsReport("", latencies=[latency("script", 9.0), latency("knn", 7.3)]),
            ["no change recommended"],
        ),
        (
            DiagnosticsReport("", latencies=[latency("script", 400.0), latency("graph", 2.0)]),
            ["an exact search takes 400 ms"],
        ),
    ],
)
def test_advice_follows_the_thresholds(
    address: Callable[..., str], report: DiagnosticsReport, parts: list[str]
) -> None:
    with open_opensearch(address(), bits=BITS, create=True) as index:
        index.add(["a"], text=random_codes(1))
        lines = advice(report, index)
    assert len(lines) == len(parts)
    for line, start in zip(lines, parts, strict=True):
        assert line.startswith(start)


def test_faster_needs_a_margin_for_most_queries() -> None:
    slow = [10.0] * 16
    assert is_faster([7.9] * 16, slow)
    assert not is_faster([8.1] * 16, slow)
    assert is_faster([5.0] * 15 + [20.0], slow)
    assert not is_faster([5.0] * 12 + [20.0] * 4, slow)  # by chance in 4 % of the measurements
    assert not is_faster([5.0] * 9, slow[:9])  # too few queries
    assert not is_faster([], [])


def test_strategies_of_equal_speed_are_not_distinguished_beside_load() -> None:
    """Times of 1,000 measurements whose fastest requests are up to twice too slow."""
    rng = np.random.default_rng(0)
    advised = 0
    for _ in range(1000):
        script, knn = (tuple(8 * rng.uniform(1, 2, 32)) for _ in range(2))
        lines = compare_strategies(
            [Latency("script", "text", script), Latency("knn", "text", knn)], "script"
        )
        assert len(lines) == 1
        advised += " no difference " not in lines[0]
    assert advised == 0


def test_strategies_are_compared_with_the_used_one() -> None:
    latencies = [
        latency("hamming", 3.0),
        latency("script", 9.0),
        latency("knn", 3.1),
        latency("graph", 1.0),
    ]
    script, knn = compare_strategies(latencies, "hamming")
    assert script == "strategy=script is slower than hamming (9.0 and 3.0 ms)"
    assert knn.startswith("strategy=knn: no difference from hamming")
    assert compare_strategies(latencies[:1], "hamming") == []
