"""Changes of an index by xmodal index: counts, and their output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xmodal.cli.output import info, print_json, print_line
from xmodal.cli.sources import Data
from xmodal.index.contract import Index

NUMBERS = ("added", "replaced", "unchanged", "moved", "removed", "missing")
"""Documents that are counted."""


@dataclass
class Changes:
    """Documents that an update changed.

    ``numbers``: of added, replaced, unchanged, moved, removed and missing documents; missing ones
    are no longer in the data and were not removed. ``codes``: number of codes of the data by
    modality. ``renamed``: ids of documents by id of item, because another source has this id.
    ``gone``: ids of missing documents.
    """

    numbers: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    renamed: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.numbers = Counter({name: self.numbers[name] for name in NUMBERS})

    def add(self, other: Changes) -> None:
        """Add the changes of another source."""
        self.numbers.update(other.numbers)
        self.codes.update(other.codes)
        self.renamed |= other.renamed

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

    def print_notes(self, data: Data, uri: str) -> None:
        """Print renamed and missing documents on standard error."""
        if self.renamed:
            item, id_ = next(iter(self.renamed.items()))
            info(
                f"  {len(self.renamed):,} x id of another source's document, stored under another "
                f"id: {item} as {id_}"
            )
        if self.numbers["missing"]:
            info(
                f"  {self.numbers['missing']:,} documents are no longer in {data} and stay in "
                f"{uri}: --prune removes them"
            )

    def show(
        self,
        data: Data,
        uri: str,
        documents: int,
        options: Mapping[str, Any],
        more: Mapping[str, Any],
    ) -> None:
        """Print the changes; ``documents``: number of the index, ``more``: further keys of JSON."""
        if options["as_json"]:
            result: dict[str, Any] = {"index": uri, "documents": documents, **self.codes}
            print_json(result | {"changes": self.numbers, "renamed": self.renamed, **more})
            return
        self.print_notes(data, uri)
        print_line(
            f"{uri}: {documents:,} documents; from {data}: {self.codes['image']:,} pictures, "
            f"{self.codes['text']:,} texts ({self.summary()})"
        )
