"""What doctor says is what numpy says; what it repairs is repaired."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.filled import BITS, random_codes

from xmodal.codes import BinaryCodes
from xmodal.errors import IndexMismatch
from xmodal_opensearch import diagnostics
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.diagnostics import Checkup, Latency, Side, advice, examine, repair
from xmodal_opensearch.index.mapping import SELF_TEST_ID
from xmodal_opensearch.index.store import OpenSearchIndex, Recall, open_opensearch
from xmodal_opensearch.loading.load import load

Rest = Callable[..., Any]


def few_distinct(n: int, kinds: int, seed: int) -> BinaryCodes:
    """Codes drawn from a few kinds, some more often than others."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(kinds, n, p=np.arange(1, kinds + 1) / (kinds * (kinds + 1) / 2))
    return random_codes(kinds, seed)[chosen]


@pytest.mark.parametrize(
    ("way", "ways"),
    [
        ("script", ["script", "knn"]),
        ("knn", ["script", "knn"]),
        ("long", ["long"]),
        ("lucene-hnsw", ["script", "graph"]),
    ],
)
def test_collisions_and_latencies(
    address: Callable[..., str], way: str, ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnostics, "ASKED", 3)
    image, text = few_distinct(700, 20, 1), random_codes(700, 2)
    with open_opensearch(address(strategy=way), bits=BITS, create=True) as index:
        index.add([f"d{n}" for n in range(700)], image=image, text=text)
        index.add(["no picture"], text=random_codes(1, 3))
        told: list[tuple[str, int, int]] = []
        found = examine(index, progress=lambda *one: told.append(one))
        kinds, counts = np.unique(image.packed, axis=0, return_counts=True)
        assert found.sides == [
            Side("image", 700, 700, len(kinds) / 700, counts.max()),
            Side("text", 701, 701, 1.0, 1),
        ]
        assert [(one.way, one.side) for one in found.latencies] == [
            (one, side) for side in ("image", "text") for one in ways
        ]
        assert all(0 < one.milliseconds < 60_000 for one in found.latencies)
        assert told == [("image codes", 700, 700), ("text codes", 701, 701)]
        assert f"only {len(kinds) / 700:.0%} of the image codes are distinct" in found.advice[0]
        assert f"equal ones has {counts.max()}" in found.advice[0]
        assert not any("text codes are distinct" in line for line in found.advice)
        if way == "lucene-hnsw":
            measured = {side: index.measure_recall(10, target=side) for side in ("image", "text")}
            assert found.recalls == list(measured.items())
            assert 0 < measured["text"].value <= 1 and measured["text"].queries == 32
        else:
            assert found.recalls == []


def test_an_empty_index(address: Callable[..., str]) -> None:
    with open_opensearch(address(), bits=BITS, create=True) as index:
        found = examine(index)
        assert found.sides == [] and found.latencies == []
        assert found.advice == ["the index is empty: fill it with xmodal-opensearch load"]


def test_only_the_first_codes_are_read(
    address: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnostics, "MOST_READ", 5000)
    monkeypatch.setattr(diagnostics, "ASKED", 1)
    with open_opensearch(address(), bits=BITS, create=True) as index:
        codes = random_codes(6000)
        index.add([f"d{n}" for n in range(6000)], image=codes)
        assert examine(index).sides == [Side("image", 6000, 5000, 1.0, 1)]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Checkup("", [Side("text", 9, 9, 0.5, 2)]), ["nothing to mend"]),
        (
            Checkup("", [Side("text", 1500, 1500, 0.499, 1200)]),
            ["only 50% of the text codes are distinct, the largest group of equal ones has 1,200"],
        ),
        (Checkup("", recalls=[("image", Recall(0.95, 10, 32))]), ["nothing to mend"]),
        (
            Checkup("", recalls=[("image", Recall(0.94, 10, 32))]),
            ["the graph finds 94% of the true 10 nearest image codes: use search, which is exact"],
        ),
        (
            Checkup("", latencies=[Latency("script", "text", 9.0), Latency("knn", "text", 7.0)]),
            ["strategy=knn answers in 7.0 ms, script in 9.0: ask with ?strategy=knn"],
        ),
        (
            Checkup("", latencies=[Latency("script", "text", 9.0), Latency("knn", "text", 7.3)]),
            ["nothing to mend"],
        ),
        (
            Checkup("", latencies=[Latency("script", "text", 400.0), Latency("graph", "text", 2)]),
            ["an exact search takes 400 ms: load into a new version with more shards"],
        ),
    ],
)
def test_advice(address: Callable[..., str], found: Checkup, words: list[str]) -> None:
    with open_opensearch(address(), bits=BITS, create=True) as index:
        index.add(["a"], text=random_codes(1))
        told = advice(found, index)
    assert len(told) == len(words)
    for line, start in zip(told, words, strict=True):
        assert line.startswith(start)


def repaired(index: OpenSearchIndex) -> list[str]:
    address = parse_address(str(index.handle.address))
    return repair(Server(address), address)


@pytest.mark.parametrize("way", ["script", "long"])
def test_repair(address: Callable[..., str], rest: Rest, tmp_path: Path, way: str) -> None:
    uri = address(strategy=way)
    with open_opensearch(uri, bits=BITS, create=True) as index:
        assert repaired(index) == ["nothing was to be repaired"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("xmodal_opensearch.loading.load.restore_settings", lambda index: False)
            load(index, [], checkpoints=tmp_path)
        assert examine(index).advice[0].startswith("a load was killed here and the settings")
        rest("DELETE", f"/{index.handle.name}/_doc/{SELF_TEST_ID}?refresh=true")
        with pytest.raises(IndexMismatch, match="has lost its self-test document"):
            open_opensearch(uri)
        assert repaired(index) == [
            "the self-test document was stored again",
            "the settings are as they were before the load",
        ]
        open_opensearch(uri).close()
        assert "killed" not in examine(index).advice[0]
        assert repaired(index) == ["nothing was to be repaired"]
