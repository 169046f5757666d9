"""Three seconds of fuzzing of each target that reads data: tables, folders, cells, pictures."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz.run import fuzz
from fuzz.targets import READERS, available

pytestmark = [
    pytest.mark.slow,  # three seconds each
    pytest.mark.skipif(
        not (sys.platform == "linux" and platform.machine() == "x86_64"),
        reason="atheris is for Linux on x86-64",
    ),
]
SECONDS = 3


@pytest.mark.parametrize("target", [name for name in available() if name in READERS])
def test_nothing_but_exceptions_of_xmodal_is_raised(
    run_fork: Callable[..., tuple[int, str]], target: str, tmp_path: Path
) -> None:
    result = fuzz(target, SECONDS, tmp_path, random_seed=1, run=run_fork)
    print(result.line())
    assert not result.findings, result.details()
