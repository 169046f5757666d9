"""Writing of parts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from xmodal.checksums import with_digest
from xmodal.data.problems import Problems
from xmodal.data.remote import is_remote, write_remote
from xmodal.index.documents import DocumentBatch
from xmodal.index.parts.info import KEY, PartInfo
from xmodal.index.parts.tables import checksum, schema, to_table
from xmodal.modality import MODALITIES
from xmodal.writing import atomic_write

if TYPE_CHECKING:
    import pyarrow.parquet as pq

GROUP_ROWS = 4096
"""Documents of a row group; the last one of a part has the rest."""


def write_part(
    path: Path, info: PartInfo, batches: Iterable[DocumentBatch], problems: Problems
) -> PartInfo:
    """Write documents to a part, which replaces ``path`` when it is complete.

    ``info``: without the numbers, which are counted; ``problems``: those that ``batches`` records.
    Memory is that of some batches. Raises InUse if another process writes the file, OSError, and
    RemoteFailure.
    """
    with write_remote(path) if is_remote(path) else atomic_write(path) as file:
        return write_part_file(file, info, batches, problems)


def write_part_file(
    file: BinaryIO, info: PartInfo, batches: Iterable[DocumentBatch], problems: Problems
) -> PartInfo:
    """Write a part to an open file; see :func:`write_part`."""
    checksums: list[int] = []
    codes: Counter[str] = Counter()
    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for batch in _regrouped(batches, info):
            if writer is None:
                info = replace(info, dim=batch.dim)
                writer = stack.enter_context(_writer(file, info))
            writer.write_table(to_table(batch, writer.schema), row_group_size=GROUP_ROWS)
            checksums.append(checksum(batch))
            info = replace(info, documents=info.documents + len(batch))
            codes.update({modality: len(batch.packed[modality]) for modality in MODALITIES})
        if writer is None:
            writer = stack.enter_context(_writer(file, info))
        info = replace(
            info,
            codes={modality: codes[modality] for modality in MODALITIES},
            problems=problems.count_by_kind(),
        )
        content = with_digest(info.to_json() | {"checksums": checksums})
        writer.add_key_value_metadata({KEY.decode(): json.dumps(content, sort_keys=True)})
    return info


def _writer(file: BinaryIO, info: PartInfo) -> pq.ParquetWriter:
    """Return a writer, which must be closed also after an error: its destructor raises others."""
    import pyarrow.parquet as pq

    return pq.ParquetWriter(file, schema(info), compression="zstd", write_page_checksum=True)


def _regrouped(batches: Iterable[DocumentBatch], info: PartInfo) -> Iterator[DocumentBatch]:
    """Yield the documents in batches of GROUP_ROWS, the last one of the rest."""
    waiting: list[DocumentBatch] = []
    for batch in batches:
        waiting.append(batch if info.vectors else batch.without_vectors())
        if sum(map(len, waiting)) < GROUP_ROWS:
            continue
        joined = DocumentBatch.join(waiting)
        whole = len(joined) - len(joined) % GROUP_ROWS
        for start in range(0, whole, GROUP_ROWS):
            yield joined.take(range(start, start + GROUP_ROWS))
        waiting = [joined.take(range(whole, len(joined)))]
    if any(map(len, waiting)):
        yield DocumentBatch.join(waiting)
