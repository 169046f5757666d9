"""Bulk lines of documents, built in this process or in several, in the order of the documents."""

from __future__ import annotations

import json
import multiprocessing
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import numpy as np

from xmodal.errors import ConfigError
from xmodal.index.documents import DocumentBatch
from xmodal.index.validation import check_ids, check_width
from xmodal_opensearch.client import bulk
from xmodal_opensearch.index.bulk_lines import index_line, several_codes, source_codes
from xmodal_opensearch.index.mapping import Layout
from xmodal_opensearch.index.store import OpenSearchIndex

PART = bulk.MAX_BATCH_LINES
"""Documents that a process builds at a time."""
AHEAD = 2
"""Parts of each process that are built, or being built, before they are needed."""

Built = tuple[list[bulk.Line], dict[str, str]]
"""Lines of documents, and the reasons of those that cannot be stored, by id."""


def lines(
    index: OpenSearchIndex,
    batches: Iterable[DocumentBatch],
    refused: dict[str, str],
    *,
    processes: int = 1,
) -> Generator[bulk.Line, None, None]:
    """Yield the bulk lines of all valid documents; add reasons of others to ``refused`` by id.

    Lines and their order are the same for any number of ``processes``; 1 is this process. Raises
    CodeError for codes of another width.
    """
    layout, words = index.handle.layout, index.handle.has_words
    for made, reasons in _built(_storable(index, batches), layout, words, processes):
        refused.update(reasons)
        yield from made


def build(batch: DocumentBatch, layout: Layout, words: bool) -> Built:
    """Return the lines of one batch; ``words``: with the tokens of the documents."""
    made: list[bulk.Line] = []
    refused: dict[str, str] = {}
    for id_, codes, fields, origin in zip(
        batch.ids, source_codes(batch, layout), batch.fields, batch.origin_texts(), strict=True
    ):
        try:
            check_ids([id_])
            made.append(index_line(id_, codes, json.loads(fields), origin=origin, words=words))
        except ConfigError as error:
            refused[id_] = str(error)
    return made, refused


def _storable(index: OpenSearchIndex, batches: Iterable[DocumentBatch]) -> Iterator[DocumentBatch]:
    """Yield parts of the batches, after the mapping of the index has the fields for them."""
    for batch in batches:
        check_width(batch.bits, index.bits)
        stored = index.handle.with_storable_vectors(batch)
        index.handle.map_nested_codes(several_codes(batch))
        if batch.origins:
            index.handle.map_origins()
        for start in range(0, len(stored), PART):
            rows = np.arange(start, min(start + PART, len(stored)))
            yield stored if len(rows) == len(stored) else stored.take(rows)


def _built(
    parts: Iterable[DocumentBatch], layout: Layout, words: bool, processes: int
) -> Iterator[Built]:
    """Yield the lines of each part."""
    if processes == 1:
        for part in parts:
            yield build(part, layout, words)
        return
    spawn = multiprocessing.get_context("spawn")  # threads of this process may hold locks
    pending: deque[Future[Built]] = deque()
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        try:
            for part in parts:
                pending.append(pool.submit(build, part, layout, words))
                if len(pending) >= AHEAD * processes:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
