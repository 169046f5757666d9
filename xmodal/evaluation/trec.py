"""TREC files: runs and relevance judgements, for trec_eval and similar tools.

White space separates the columns of these files, so ids are written with white space, control
characters and "%" percent-encoded (``a b`` as ``a%20b``); ``urllib.parse.unquote`` restores them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.evaluation.metrics import shared_labels
from xmodal.evaluation.protocol import Part
from xmodal.features.units import Units
from xmodal.modality import DIRECTIONS, Modality
from xmodal.writing import atomic_write

DEPTH = 1000
"""Documents of each query in a run."""
SCORE_STEP = DEPTH
"""Difference of the scores of successive distances. trec_eval reads scores as float32, which holds
them exactly up to a distance of 16,777."""
CHUNK_CELLS = 1 << 21
"""Distances that are computed at once."""


def write_trec(folder: Path, name: str, query: Part, database: Part) -> None:
    """Write ``NAME.image-text.run``, ``NAME.text-image.run`` and ``NAME.qrels`` into ``folder``.

    Relevant are pairs that share a label.
    """
    for source, target in DIRECTIONS:
        path = folder / f"{name}.{source}-{target}.run"
        _write_lines(path, trec_run(query, database, source, target))
    _write_lines(folder / f"{name}.qrels", trec_qrels(query, database))


def write_caption_trec(
    folder: Path, name: str, units: Units, codes: Mapping[Modality, BinaryCodes]
) -> None:
    """Write a run and qrels of both directions into ``folder``; relevant is the own unit.

    The files are ``NAME.captions.image-text.run`` and ``.qrels``, with pictures as queries and
    captions as documents, and ``NAME.captions.text-image.run`` and ``.qrels``. ``codes`` have the
    rows of ``units``.
    """
    for source, target in DIRECTIONS:
        path = folder / f"{name}.captions.{source}-{target}"
        queries, documents = _names(units, source), _names(units, target)
        run = run_lines(queries, codes[source], documents, codes[target])
        _write_lines(path.with_name(f"{path.name}.run"), run)
        _write_lines(path.with_name(f"{path.name}.qrels"), caption_qrels(units, source, target))


def trec_run(
    query: Part, database: Part, source: Modality, target: Modality, depth: int = DEPTH
) -> Iterator[str]:
    """Yield the run of codes of modality ``source`` of ``query``; see :func:`run_lines`."""
    return run_lines(query.ids, query.codes[source], database.ids, database.codes[target], depth)


def run_lines(
    query_ids: Sequence[str],
    queries: BinaryCodes,
    document_ids: Sequence[str],
    documents: BinaryCodes,
    depth: int = DEPTH,
) -> Iterator[str]:
    """Yield lines of a run, ``query Q0 document rank score tag``: ``depth`` documents per query.

    Ties are ordered by id. The score is ``-(SCORE_STEP * distance + t)``, with t documents of the
    same distance before this one: no two scores of a query are equal, so that every tool that
    sorts by score ranks as here. ``depth`` is at most SCORE_STEP.
    """
    order = np.array(sorted(range(len(document_ids)), key=document_ids.__getitem__), np.int64)
    names = [_token(document_ids[row]) for row in order]
    by_id = documents[order]
    step = max(1, CHUNK_CELLS // max(1, len(names)))
    for start in range(0, len(query_ids), step):
        distances = queries[start : start + step].distances(by_id)
        for query_id, row in zip(query_ids[start : start + step], distances, strict=True):
            nearest = np.argsort(row, kind="stable")[:depth]
            found = row[nearest]
            tied_before = np.arange(len(found)) - np.searchsorted(found, found)
            scores = -(SCORE_STEP * found.astype(np.int64) + tied_before)
            for rank, (column, score) in enumerate(zip(nearest, scores, strict=True), 1):
                yield _line(_token(query_id), names[column], rank, score)


def run_line(query_id: str, document_id: str, rank: int, score: float) -> str:
    """Return one line of a run; a larger score is better."""
    return _line(_token(query_id), _token(document_id), rank, score)


def _line(query: str, document: str, rank: int, score: float) -> str:
    return f"{query} Q0 {document} {rank} {score} xmodal"


def trec_qrels(query: Part, database: Part) -> Iterator[str]:
    """Yield lines of relevance judgements, ``query 0 document gain``; gain is shared labels."""
    gains = shared_labels(query.labels, database.labels)
    for query_id, row in zip(query.ids, gains, strict=True):
        for column in np.flatnonzero(row > 0).tolist():
            yield f"{_token(query_id)} 0 {_token(database.ids[column])} {int(row[column])}"


def caption_qrels(units: Units, source: Modality, target: Modality) -> Iterator[str]:
    """Yield ``query 0 document 1`` for every picture and caption of one unit."""
    queries, documents = _names(units, source), _names(units, target)
    offsets = units.offsets(target)
    for query_id, unit in zip(queries, units.unit_of_rows(source), strict=True):
        for row in range(offsets[unit], offsets[unit + 1]):
            yield f"{_token(query_id)} 0 {_token(documents[row])} 1"


def _names(units: Units, modality: Modality) -> Sequence[str]:
    return units.image_ids if modality == "image" else units.text_ids


def _token(name: str) -> str:
    """Percent-encode white space, control characters and "%", so that ids stay distinct."""
    return "".join(
        char if char.isprintable() and not char.isspace() and char != "%" else _percent(char)
        for char in name
    )


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with atomic_write(path) as file:
        file.writelines(f"{line}\n".encode() for line in lines)
