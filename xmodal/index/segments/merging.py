"""Which segments are merged, and their merging.

A segment belongs to a level by the number of its documents: each level is ``FANOUT`` times larger
than the one before. ``FANOUT`` segments of a level are merged, so that their number grows with the
logarithm of the number of documents, and a document is written again about once per level. A
segment with many deleted documents is written again alone.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

from xmodal.index.documents import DocumentBatch
from xmodal.index.segments.segment import Segment

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
    return [group for group in found if len(group) > 1 or _is_sparse(segments[group[0]])]


def merge(segments: Sequence[Segment]) -> Segment:
    """Return the documents of segments, which have no common ids, as one segment in memory."""
    log.info(
        "merging %d segments of %s documents",
        *(len(segments), f"{sum(one.live_count for one in segments):,}"),
    )
    return Segment.of(DocumentBatch.join([one.take(one.live_rows()) for one in segments]))


def _level(documents: int) -> int:
    """Return the level of a segment of so many documents."""
    level, limit = 0, SMALLEST * FANOUT
    while documents >= limit:
        level, limit = level + 1, limit * FANOUT
    return level


def _is_sparse(segment: Segment) -> bool:
    return segment.live_count < (1 - MAX_DELETED) * len(segment)
