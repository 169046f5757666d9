"""Three seconds of fuzzing of each target that reads data: tables, folders, cells, pictures."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.run import fuzz
from fuzz.targets import READERS, available
from support.forks import Forks, forks

pytestmark = [
    pytest.mark.slow,  # three seconds each
    pytest.mark.skipif(
        not (sys.platform == "linux" and platform.machine() == "x86_64"),
        reason="atheris is for Linux on x86-64",
    ),
]
SECONDS = 3


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """A process that has imported what the targets need, and forks for each."""
    pytest.importorskip("atheris", reason="there is no atheris for this version of Python")
    with forks(tmp_path_factory.mktemp("output"), "fuzz.child", "fuzz.prepared") as started:
        yield started


@pytest.mark.parametrize("target", [name for name in available() if name in READERS])
def test_nothing_but_exceptions_of_xmodal_is_raised(
    prepared: Forks, target: str, tmp_path: Path
) -> None:
    def run(*arguments: object) -> tuple[int, str]:
        ended = prepared.run(*arguments)
        return ended.status, ended.err

    result = fuzz(target, SECONDS, tmp_path, random_seed=1, run=run)
    print(result.line())
    assert not result.findings, result.details()
