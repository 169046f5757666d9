"""A process that has imported what fuzz targets need; each run of child.py is a fork of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from support.forks import forks


@pytest.fixture(scope="module")
def run_fork(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs child.py in a fork; returns its exit status and standard error."""
    pytest.importorskip("atheris", reason="there is no atheris for this version of Python")
    with forks(tmp_path_factory.mktemp("output"), "fuzz.child", "fuzz.prepared") as started:

        def run(*arguments: object) -> tuple[int, str]:
            ended = started.run(*arguments)
            return ended.status, ended.err

        yield run
