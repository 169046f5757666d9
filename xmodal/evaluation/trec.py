"""TREC files: runs and relevance judgements, for trec_eval and similar tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from xmodal.evaluation.metrics import shared_labels
from xmodal.evaluation.protocol import Part
from xmodal.modality import DIRECTIONS, Modality


def write_trec(folder: Path, name: str, query: Part, database: Part) -> None:
    """Write ``NAME.image-text.run``, ``NAME.text-image.run`` and ``NAME.qrels`` into ``folder``."""
    for source, target in DIRECTIONS:
        path = folder / f"{name}.{source}-{target}.run"
        _write_lines(path, trec_run(query, database, source, target))
    _write_lines(folder / f"{name}.qrels", trec_qrels(query, database))


def trec_run(
    query: Part, database: Part, source: Modality, target: Modality, depth: int = 1000
) -> Iterator[str]:
    """Yield lines of a run, ``query Q0 document rank score tag``: ``depth`` documents per query.

    Queries are codes of modality ``source``, documents codes of ``target``. Ties are ordered by id.
    The score is minus the distance; tools that sort by it may order ties differently.
    """
    distances = query.codes[source].distances(database.codes[target])
    ids = np.array(database.ids)
    for query_id, row in zip(query.ids, distances, strict=True):
        for rank, column in enumerate(np.lexsort((ids, row))[:depth], 1):
            yield f"{_token(query_id)} Q0 {_token(ids[column])} {rank} {-int(row[column])} xmodal"


def trec_qrels(query: Part, database: Part) -> Iterator[str]:
    """Yield lines of relevance judgements, ``query 0 document gain``; gain is shared labels."""
    gains = shared_labels(query.labels, database.labels)
    for query_id, row in zip(query.ids, gains, strict=True):
        for column in np.flatnonzero(row > 0):
            yield f"{_token(query_id)} 0 {_token(database.ids[column])} {int(row[column])}"


def _token(name: str) -> str:
    """Replace white space, which separates the columns of TREC files."""
    return "_".join(str(name).split())


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
