"""Indexing of a source: encode what is new or changed, and store it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from xmodal.data.dataset import Dataset
from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.index.contract import Index
from xmodal.modality import MODALITIES

if TYPE_CHECKING:
    from xmodal.encoders.encoder import Encoder
    from xmodal.index.filling import Filling

NUMBERS = ("added", "replaced", "unchanged", "moved", "removed", "missing")
"""Documents that are counted."""


@dataclass
class Changes:
    """Documents that an update changed.

    ``numbers``: of added, replaced, unchanged, moved, removed and missing documents; missing ones
    are no longer in the data and were not removed. ``codes``: number of codes of the data by
    modality. ``renamed``: ids of documents by id of item, because another source has this id.
    ``gone``: ids of missing documents. ``problems``: unusable input by kind.
    """

    numbers: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    renamed: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.numbers = Counter({name: self.numbers[name] for name in NUMBERS})

    def add(self, other: Changes) -> None:
        """Add the changes of another source."""
        self.numbers.update(other.numbers)
        self.codes.update(other.codes)
        self.renamed |= other.renamed
        self.problems.update(other.problems)

    def prune(self, index: Index) -> None:
        """Remove the missing documents from an index."""
        if self.gone:
            index.delete(self.gone)
        self.numbers["removed"] += len(self.gone)
        self.numbers["missing"] -= len(self.gone)

    def summary(self) -> str:
        """Return the numbers that are not 0 as text, except missing ones."""
        shown = (f"{n:,} {name}" for name, n in self.numbers.items() if n and name != "missing")
        return ", ".join(shown) or "nothing changed"


def update_source(
    filling: Filling,
    encoder: Encoder,
    dataset: Dataset,
    source: str,
    *,
    problems: Problems,
    reuse: bool = True,
    vectors: bool = True,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Changes:
    """Make the documents of ``source`` in an index those of ``dataset``.

    ``problems``: record of unusable items. ``reuse``: see
    :func:`~xmodal.index.update.plan_update`. ``vectors``: False stores codes alone. ``cache``:
    folder of cached features. Documents without an item stay, see :meth:`Changes.prune`.
    """
    from xmodal.encoders.pipeline import encode_stream
    from xmodal.index.update import plan_update

    target = filling.index
    update = plan_update(target, dataset, source, reuse=reuse, progress=progress)
    codes, stored, existing = Counter(update.counts), 0, 0
    for batch in update.rewritten:
        target.add(batch)
        stored, existing = stored + len(batch), existing + update.number_existing(batch)
    options = {"source": source, "problems": problems, "cache": cache, "vectors": vectors}
    for batch in encode_stream(encoder, update.encode.items, **options):  # type: ignore[arg-type]
        filling.add(update.with_origins(batch))
        stored, existing = stored + len(batch), existing + update.number_existing(batch)
        codes.update({modality: int(batch.counts(modality).sum()) for modality in MODALITIES})
        if progress is not None:
            progress("indexed", stored + update.unchanged, len(dataset))
    if update.moved:
        target.delete(update.moved)
    numbers = {
        "added": stored - existing - min(len(update.moved), stored - existing),
        "replaced": existing,
        "unchanged": update.unchanged,
        "moved": len(update.moved),
        "missing": len(update.gone),
    }
    counted = Counter(problems.count_by_kind())
    return Changes(Counter(numbers), codes, dict(update.apart), update.gone, counted)
