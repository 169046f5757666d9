"""The program ``benchmarks/reading.py`` with few rows."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
@pytest.mark.parametrize("name", ["csv", "jsonl", "parquet", "tar"])
def test_every_format_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    reading = importlib.import_module("reading")
    path = tmp_path / f"rows.{name}"
    reading.FORMATS[name](path, reading.rows(120, seed=1))
    for function in ("iterate", "read"):
        assert min(reading.measure(function, path, 120)[:2]) > 0
    with pytest.raises(SystemExit, match="120 items"):
        reading.measure("iterate", path, 121)
