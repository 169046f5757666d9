"""Examples in the docstrings of public names: each name has one, and all of them run."""

from __future__ import annotations

import doctest
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import xmodal

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(
    photos_folder: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The working directory of the examples: photos, my.model and my.index."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(photos_folder, folder / "photos")
    shutil.copytree(model, folder / "my.model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with xmodal.Collection.create("my.index", model="my.model") as photos:
            photos.add("photos", label_column="labels")
        yield folder


def examples(name: str) -> list[doctest.DocTest]:
    """The docstrings of a public name and of its methods that have examples."""
    value = getattr(xmodal, name)
    globs = {"xmodal": xmodal}
    return [one for one in doctest.DocTestFinder().find(value, name, globs=globs) if one.examples]


@pytest.mark.parametrize("name", xmodal.__all__)
def test_public_name_has_an_example_that_runs(name: str, folder: Path) -> None:
    found = examples(name)
    assert name in [one.name for one in found], f"the docstring of xmodal.{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    report: list[str] = []
    for one in found:
        runner.run(one, out=report.append)
    assert runner.failures == 0, "".join(report)
