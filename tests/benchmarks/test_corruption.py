"""A sample of the mutations of ``benchmarks/corruption.py``: refused in one line, or no effect."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from xmodal.encoders.compressor import Compressor
from xmodal.encoders.load import load_encoder

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SAMPLE = 25
"""Mutations of each artefact."""


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """Modules of the benchmark."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("harness.mutations", "harness.artefacts")
    return {name.rpartition(".")[2]: importlib.import_module(name) for name in names}


def check(
    harness: dict[str, ModuleType], folder: Path, other: Path, use: Callable[[Path], Any]
) -> None:
    """Assert that a sample of mutations has right results, and that some are refused."""
    mutations = harness["mutations"]
    artefact = mutations.Artefact(folder.name, folder, other, use)
    expected = use(folder)
    results = set()
    for mutation in mutations.mutations(artefact, SAMPLE):
        result, message = mutations.classify(artefact, mutation, expected, other.parent)
        assert result in mutations.GOOD, (mutation, result, message)
        results.add(result)
    assert mutations.REFUSED in results


def test_index(harness: dict[str, ModuleType], tmp_path: Path) -> None:
    artefacts = harness["artefacts"]
    for number, name in enumerate(("one", "other")):
        artefacts.make_index(tmp_path / name, number)
    check(harness, tmp_path / "one", tmp_path / "other", artefacts.use_index)


def test_trained_encoder(harness: dict[str, ModuleType], model: Path, tmp_path: Path) -> None:
    check(harness, model, tmp_path / "none", harness["artefacts"].use_trained)


def test_portable_encoder(harness: dict[str, ModuleType], clip_path: Path, tmp_path: Path) -> None:
    check(harness, clip_path / "x.onnx", tmp_path / "none", harness["artefacts"].use_encoder)


def test_compressor(harness: dict[str, ModuleType], tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "other")):
        rng = np.random.default_rng(seed)
        weight, offset = (rng.standard_normal(s).astype(np.float32) for s in ((16, 12), (16,)))
        compressor = Compressor(weight, offset, {"settings": {"epochs": seed}})
        codes = compressor.encode(rng.standard_normal((300, 12)))
        compressor.save(tmp_path / name, codes, {"recall": rng.random(20).tolist()})
    check(harness, tmp_path / "one", tmp_path / "other", harness["artefacts"].use_compressor)


def test_cache(harness: dict[str, ModuleType], model: Path, tmp_path: Path) -> None:
    use = harness["artefacts"].use_cache(load_encoder(model))
    use(tmp_path / "one")
    check(harness, tmp_path / "one", tmp_path / "none", use)
    assert (tmp_path / "one").is_dir()


def test_same_seed_gives_the_same_bytes(harness: dict[str, ModuleType], tmp_path: Path) -> None:
    mutations = harness["mutations"]
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(range(256)) * 40)
        artefact = mutations.Artefact("x", tmp_path / name, tmp_path / "none", str)
        for mutation in mutations.mutations(artefact, 30):
            if mutation.kind in mutations.CHANGES:
                mutation.apply(tmp_path / name, tmp_path / "none")
        contents.append((tmp_path / name / "file").read_bytes())
    assert contents[0] == contents[1] != bytes(range(256)) * 40
