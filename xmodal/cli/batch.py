"""Many queries from a file, and their hits to a file: xmodal search --queries FILE --out FILE."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from xmodal.cli.hits import hit_to_json
from xmodal.cli.output import info, print_problems, progress_bars
from xmodal.data.problems import Problems
from xmodal.data.readers.columns import Columns
from xmodal.data.readers.read import read
from xmodal.errors import ConfigError, DataError, XmodalError
from xmodal.evaluation.trec import run_line
from xmodal.index.contract import Hit
from xmodal.modality import Modality, other_modality
from xmodal.retrieval.query import Query
from xmodal.retrieval.results import Results, fixed_types
from xmodal.retrieval.retriever import Retriever
from xmodal.writing import atomic_write, check_target

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 256
"""Queries that are searched at once."""
QUERY_COLUMN = "query"
Write = Callable[["NamedQuery", Query, Sequence[Hit]], None]


class NamedQuery(NamedTuple):
    """One query of a file: its id, its text and its picture, of which one may be missing."""

    id: str
    text: str | None
    image: str | None


def search_file(retriever: Retriever, path: Path, out: Path, options: Query) -> tuple[int, int]:
    """Search with the queries of a file, write their hits, and return the numbers of both.

    ``options``: a query whose options all queries have. Queries that cannot be used are printed.
    Nothing is written if the command is stopped. Raises DataError, ConfigError.
    """
    if out.suffix.lower() not in WRITERS:
        raise ConfigError(f"--out ends in {out.suffix!r}, expected one of {', '.join(WRITERS)}")
    check_target(out)
    problems = Problems()
    queries = read_queries(path, problems)
    targets: dict[Modality, Modality] = {}
    hits = 0
    with (
        progress_bars() as bars,
        atomic_write(out) as file,
        WRITERS[out.suffix.lower()](file) as write,
    ):
        for start in range(0, len(queries), BATCH):
            group = queries[start : start + BATCH]
            asked = [
                _with_target(replace(options, text=one.text, image=one.image), retriever, targets)
                for one in group
            ]
            for one, query, found in zip(group, asked, retriever.search_many(asked), strict=True):
                if isinstance(found, XmodalError):
                    problems.add("query that cannot be used", f"{one.id} ({found})")
                else:
                    write(one, query, found)
                    hits += len(found)
            bars("searched", start + len(group), len(queries))
    print_problems(problems)
    return len(queries), hits


def read_queries(path: Path, problems: Problems) -> list[NamedQuery]:
    """Return the queries of a text file, one on each line, or of a table that ``read`` accepts.

    Their ids are the numbers of the lines, or the ids of the items. The column "query" of a table
    has the texts, else the columns of captions and pictures. Raises DataError, ConfigError.
    """
    if path.suffix.lower() == ".txt":
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        found = [NamedQuery(str(n), line.strip(), None) for n, line in enumerate(lines, 1)]
        queries = [query for query in found if query.text]
        if not queries:
            raise DataError(f"{path} has no line with a text, expected a query on each line")
        return queries
    try:
        data = read(path, Columns(text=QUERY_COLUMN))
    except ConfigError:
        data = read(path)
    problems.extend(data.problems)
    return [
        NamedQuery(
            item.id,
            item.captions[0] if item.captions else None,
            str(item.images[0]) if item.images else None,
        )
        for item in data
    ]


def _with_target(query: Query, retriever: Retriever, targets: dict[Modality, Modality]) -> Query:
    """Return a query that searches the other modality if the index has none of its own."""
    if query.target is not None:
        return query
    own, index = query.searched, retriever.index
    if own not in targets:
        other = other_modality(own)
        missing = not index.count(own) and index.count(other)
        targets[own] = other if missing else own
        if missing:
            info(f"the index has no codes of {own}s: those of {other}s are searched")
    return replace(query, target=targets[own])


@contextmanager
def _json_lines(file: BinaryIO) -> Iterator[Write]:
    """Write one line for each query: its id, text, picture, target and hits."""

    def write(one: NamedQuery, query: Query, hits: Sequence[Hit]) -> None:
        found = [hit_to_json(hit, query.searched) for hit in hits]
        row = {"id": one.id, "text": one.text, "image": one.image, "target": query.searched}
        file.write(json.dumps(row | {"hits": found}, ensure_ascii=False).encode() + b"\n")

    yield write


@contextmanager
def _csv(file: BinaryIO) -> Iterator[Write]:
    """Write one row for each hit."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    rows = csv.writer(text)
    rows.writerow(_types())

    def write(one: NamedQuery, query: Query, hits: Sequence[Hit]) -> None:
        for row in _table(one, query, hits).to_pylist():
            rows.writerow(" ".join(v) if isinstance(v, list) else v for v in row.values())

    yield write
    text.detach()


@contextmanager
def _parquet(file: BinaryIO) -> Iterator[Write]:
    """Write one row for each hit."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    waiting: list[pa.Table] = []
    with pq.ParquetWriter(file, pa.schema(list(_types().items()))) as rows:

        def write(one: NamedQuery, query: Query, hits: Sequence[Hit]) -> None:
            waiting.append(_table(one, query, hits))
            if len(waiting) == BATCH:
                rows.write_table(pa.concat_tables(waiting))
                waiting.clear()

        yield write
        if waiting:
            rows.write_table(pa.concat_tables(waiting))


@contextmanager
def _run(file: BinaryIO) -> Iterator[Write]:
    """Write lines of a TREC run; the score is minus the rank, so that the order is that of hits."""

    def write(one: NamedQuery, query: Query, hits: Sequence[Hit]) -> None:
        for rank, hit in enumerate(hits, query.offset + 1):
            file.write(f"{run_line(one.id, hit.id, rank, -rank)}\n".encode())

    yield write


WRITERS: Mapping[str, Any] = {
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
    ".run": _run,
}
"""By ending of the file: a context with a function that writes the hits of one query."""


def _types() -> dict[str, pa.DataType]:
    import pyarrow as pa

    return {"query_id": pa.string(), "query": pa.string()} | fixed_types()


def _table(one: NamedQuery, query: Query, hits: Sequence[Hit]) -> pa.Table:
    """Return the hits of a query as a table without the stored fields."""
    import pyarrow as pa

    results = Results(one.text or one.image or "", hits, query.searched, query.offset + 1)
    table = results.to_arrow(fields=False)
    names = {"query_id": one.id, "query": results.title}
    for place, (name, value) in enumerate(names.items()):
        table = table.add_column(place, name, pa.array([value] * len(table), pa.string()))
    return table
