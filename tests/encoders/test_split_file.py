"""The file of the ids of each part is written one id at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from xmodal.data.names import Names
from xmodal.encoders.folder import SPLIT, write_split
from xmodal.writing import write_json


@pytest.mark.parametrize(
    "split", [{}, {"train": ["a", 'é"\n', "c"], "query": []}, {"train": Names.numbers(12)}]
)
def test_the_file_is_that_of_write_json(split: dict[str, Sequence[str]], tmp_path: Path) -> None:
    write_split(tmp_path, split)
    write_json(tmp_path / "expected", {role: list(ids) for role, ids in split.items()})
    assert (tmp_path / SPLIT).read_bytes() == (tmp_path / "expected").read_bytes()
