"""Diagnostics: measurements equal those of numpy, advice follows thresholds, repair restores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.filled import BITS, random_codes

from xmodal.codes import BinaryCodes
from xmodal.errors import IndexMismatch
from xmodal.modality import MODALITIES
from xmodal_opensearch import diagnostics
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.diagnostics import (
    DiagnosticsReport,
    Latency,
    ModalityStats,
    advice,
    diagnose,
    repair,
)
from xmodal_opensearch.index.approximate import Recall
from xmodal_opensearch.index.mapping import SELF_TEST_ID
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.loading.load import load

Rest = Callable[..., Any]


def codes_with_repetitions(n: int, distinct: int, seed: int) -> BinaryCodes:
    """Return ``n`` codes drawn from ``distinct`` ones with different probabilities."""
    rng = np.random.default_rng(seed)
    weights = np.arange(1, distinct + 1)
    return random_codes(distinct, seed)[rng.choice(distinct, n, p=weights / weights.sum())]


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
    monkeypatch.setattr(diagnostics, "QUERIES", 3)
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
    monkeypatch.setattr(diagnostics, "MAX_CODES", 5000)
    monkeypatch.setattr(diagnostics, "QUERIES", 1)
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
            DiagnosticsReport(
                "", latencies=[Latency("script", "text", 9.0), Latency("knn", "text", 7.0)]
            ),
            ["strategy=knn takes 7.0 ms, script 9.0 ms"],
        ),
        (
            DiagnosticsReport(
                "", latencies=[Latency("script", "text", 9.0), Latency("knn", "text", 7.3)]
            ),
            ["no change recommended"],
        ),
        (
            DiagnosticsReport(
                "", latencies=[Latency("script", "text", 400.0), Latency("graph", "text", 2)]
            ),
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


def run_repair(index: OpenSearchIndex) -> list[str]:
    """Repair the index and return the lines."""
    address = parse_address(str(index.handle.address))
    return repair(Server(address), address)


@pytest.mark.parametrize("strategy", ["script", "long"])
def test_repair_restores_self_test_and_settings(
    address: Callable[..., str], rest: Rest, tmp_path: Path, strategy: str
) -> None:
    uri = address(strategy=strategy)
    with open_opensearch(uri, bits=BITS, create=True) as index:
        assert run_repair(index) == ["found nothing to repair"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("xmodal_opensearch.loading.load.restore_settings", lambda index: False)
            load(index, [], checkpoints=tmp_path)
        assert diagnose(index).advice[0].startswith("a load was killed")
        rest("DELETE", f"/{index.handle.name}/_doc/{SELF_TEST_ID}?refresh=true")
        with pytest.raises(IndexMismatch, match="has lost its self-test document"):
            open_opensearch(uri)
        assert run_repair(index) == [
            "stored the self-test document again",
            "restored the settings of before the load",
        ]
        open_opensearch(uri).close()
        assert "killed" not in diagnose(index).advice[0]
        assert run_repair(index) == ["found nothing to repair"]
