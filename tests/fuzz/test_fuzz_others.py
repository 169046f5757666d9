"""Three seconds of fuzzing of each target: indexes, models, queries and settings."""

from __future__ import annotations

import platform
import sys
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


@pytest.mark.parametrize("target", [name for name in available() if name not in READERS])
def test_nothing_but_exceptions_of_xmodal_is_raised(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="there is no atheris for this version of Python")
    result = fuzz(target, SECONDS, tmp_path, random_seed=1)
    print(result.line())
    assert not result.findings, result.details()
