"""Which segments are merged, and their merging.

A segment belongs to a level by the number of its documents: each level is ``FANOUT`` times larger
than the one before. ``FANOUT`` segments of a level are merged, so that their number grows with the
logarithm of the number of documents, and a document is written again about once per level. A
segment with many deleted documents, or with words of an earlier version, is written again alone.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from xmodal.index.documents import DocumentBatch
from xmodal.index.segments.columns import Column
from xmodal.index.segments.document_merging import MergedDocuments, order_of_ids
from xmodal.index.segments.field_merging import merge_field_columns
from xmodal.index.segments.segment import Segment, to_meta, write_segment
from xmodal.index.segments.word_columns import merge_word_columns
from xmodal.modality import MODALITIES, Modality

FANOUT = 8
"""Segments of one level that are merged."""
SMALLEST = 1000
"""Documents below which all segments belong to one level."""
MAX_DELETED = 0.2
"""Share of deleted documents above which a segment is written again."""
log = logging.getLogger(__name__)


def plan(segments: Sequence[Segment]) -> list[list[int]]:
    """Return groups of segments, by number, that are to be written as one segment each."""
    groups: dict[int, list[list[int]]] = defaultdict(list)  # by level
    for number, segment in enumerate(segments):
        groups[_level(segment.live_count)].append([number])
    size = [segment.live_count for segment in segments]
    level = 0
    while level <= max(groups, default=-1):
        if len(groups[level]) >= FANOUT:
            joined = sorted(number for group in groups.pop(level) for number in group)
            groups[_level(sum(size[number] for number in joined))].append(joined)
            level = 0
        else:
            level += 1
    found = [group for some in groups.values() for group in some]
    return [group for group in found if len(group) > 1 or _is_rewritten(segments[group[0]])]


def written(segments: Sequence[Segment], folder: Path) -> Iterator[Segment]:
    """Yield the segments of a save: all on disk with their deletions, groups of them merged."""
    groups = plan(segments)
    merged = {number for group in groups for number in group}
    for number, segment in enumerate(segments):
        if number not in merged:
            on_disk = segment if segment.record else segment.write(folder)
            yield on_disk.with_deletions_on_disk(folder)
    for group in groups:
        yield merge([segments[number] for number in group], folder)


def joined_in_memory(segments: Sequence[Segment]) -> Iterator[Segment]:
    """Yield segments on disk, then those in memory, of which groups were joined as by a save."""
    in_memory = [one for one in segments if one.record is None]
    yield from (one for one in segments if one.record is not None)
    groups = plan(in_memory)
    joined = {number for group in groups for number in group}
    yield from (one for number, one in enumerate(in_memory) if number not in joined)
    for group in groups:
        parts = [in_memory[number].take(in_memory[number].live_rows()) for number in group]
        yield Segment.of(DocumentBatch.join(parts))


def merge(segments: Sequence[Segment], folder: Path) -> Segment:
    """Write the live documents of segments, which have no common ids, as one segment."""
    rows = [segment.live_rows() for segment in segments]
    sizes = [len(some) for some in rows]
    log.info("merging %d segments of %s documents", len(segments), f"{sum(sizes):,}")
    order = order_of_ids(segments, rows)
    numbers = np.repeat(np.arange(len(segments), dtype=np.int16), sizes)
    documents = MergedDocuments(segments, numbers[order], np.concatenate(rows)[order])
    columns: dict[str, Column] = {}
    for name in ("id", "fields", "origin"):
        if any(f"{name}.ends" in segment.columns.names for segment in segments):
            columns |= documents.texts(name)
    columns |= documents.id_samples()
    counts: dict[Modality, int] = {}
    for modality in MODALITIES:
        added, counts[modality] = documents.codes(modality)
        columns |= added
    stored = [(segment, len(segment), some) for segment, some in zip(segments, rows, strict=True)]
    columns |= merge_field_columns(
        [(one.fields.columns, n, some) for one, n, some in stored], order
    )
    columns |= merge_word_columns([(one.words.columns, n, some) for one, n, some in stored], order)
    meta = to_meta(len(documents), segments[0].bits, counts, segments[0].dim)
    return write_segment(folder, columns, meta)


def _level(documents: int) -> int:
    """Return the level of a segment of so many documents."""
    level, limit = 0, SMALLEST * FANOUT
    while documents >= limit:
        level, limit = level + 1, limit * FANOUT
    return level


def _is_rewritten(segment: Segment) -> bool:
    """Whether a segment is written again alone."""
    is_sparse = segment.live_count < (1 - MAX_DELETED) * len(segment)
    return is_sparse or (segment.record is not None and not segment.has_words)
