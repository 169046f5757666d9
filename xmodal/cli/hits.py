"""Hits of a search: as a table, as lines for other programs, as JSON."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xmodal.cli.output import print_line, print_table, shown_path
from xmodal.cli.preview import print_preview, protocol
from xmodal.escapes import escape_controls
from xmodal.index.contract import Hit, nearest_to_json, shown_source
from xmodal.modality import Modality
from xmodal.retrieval.reasons import why

HEADER = ("rank", "distance", "confidence", "why", "caption", "file")
TABLE_WIDTH = 80
"""Columns of a terminal from which a table is printed, in characters; else a block per hit."""


def print_hits(
    hits: Sequence[Hit], target: Modality, first_rank: int = 1, *, preview: bool = False
) -> None:
    """Print hits, best first; ``target``: the searched modality.

    To a terminal as a table, or as blocks if it is narrow; long paths are wrapped, not cut. To a
    pipe or file as one line a hit, the columns of HEADER separated by tabs. ``preview``: to a
    terminal as blocks with the pictures.
    """
    rows = [_cells(hit, target, rank) for rank, hit in enumerate(hits, start=first_rank)]
    if not sys.stdout.isatty():
        for row in rows:
            print_line("\t".join(row))
        return
    rows = [(*cells, shown_path(file)) for *cells, file in rows]
    by = protocol() if preview else None
    if by is None and shutil.get_terminal_size().columns >= TABLE_WIDTH:
        print_table([HEADER, *rows], wrapped=("why", "caption", "file"))
    else:
        for hit, (rank, distance, confidence, why, caption, file) in zip(hits, rows, strict=True):
            picture = shown_source(hit, "image", target)
            if by is not None and picture is not None:
                print_preview(Path(picture), by)
            print_line(f"{rank}. {file}")
            print_line(f"   {caption}")
            print_line(f"   distance {distance}, confidence {confidence}, {why}")


def hit_to_json(hit: Hit, target: Modality) -> dict[str, Any]:
    """Return all that is known about a hit, None where it is not."""
    return {
        "id": hit.id,
        **({} if hit.index_name is None else {"index": hit.index_name}),
        "distance": hit.distance,
        "similarity": hit.similarity,
        "confidence": hit.confidence,
        "score": hit.score,
        "ranks": None if hit.ranks is None else dict(hit.ranks),
        "matched": list(hit.matched),
        "nearest": nearest_to_json(hit, target),
        "fields": dict(hit.fields),
    }


def _cells(hit: Hit, target: Modality, rank: int) -> tuple[str, ...]:
    """Return the columns of a hit: those of HEADER."""
    confidence = "-" if hit.confidence is None else f"{hit.confidence:.0%}"
    caption = shown_source(hit, "text", target) or "-"
    file = shown_source(hit, "image", target) or hit.id
    cells = (str(rank), str(hit.distance), confidence, why(hit), caption, file)
    return tuple(map(escape_controls, cells))
