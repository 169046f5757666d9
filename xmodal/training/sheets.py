"""Sheets of small pictures that methods save beside the encoder: ``synthetic-010.png``.

The folder's format has the pattern of the name, :data:`xmodal.encoders.folder.SHEET`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xmodal.retrieval.gallery import write_sheet


def save_sheet(folder: Path, name: str, epoch: int, rows: Sequence[npt.NDArray[np.uint8]]) -> None:
    """Draw ``rows`` of pictures, each (m, height, width, 3), as NAME-EPOCH.png in ``folder``."""
    write_sheet(folder / f"{name}-{epoch:03}.png", rows, f"{name}, epoch {epoch}")
