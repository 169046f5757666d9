"""The example notebook runs."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "06_retrievers.ipynb"


@pytest.mark.slow
def test_every_cell_of_the_notebook_runs(
    index_path: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the event loop and the sockets of the kernel
        import nbformat
        from nbclient import NotebookClient

        monkeypatch.setenv("XMODAL_INDEX", str(index_path))
        monkeypatch.setenv("XMODAL_MODEL", str(model))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        resources = {"metadata": {"path": str(tmp_path)}}
        done = NotebookClient(notebook, timeout=300, resources=resources).execute()
    cells = [cell for cell in done.cells if cell.cell_type == "code"]
    assert cells and all(cell.outputs[-1].output_type == "execute_result" for cell in cells)
