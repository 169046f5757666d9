"""Ownership tag: the description by which ``connect`` finds what it created in a cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass

TEMPLATE = "made by xmodal-opensearch connect (name {}, index {}, encoder {})"


@dataclass(frozen=True)
class OwnershipTag:
    """Name and index given to ``connect``, and the fingerprint of the encoder."""

    name: str
    index: str
    fingerprint: str

    def __str__(self) -> str:
        return TEMPLATE.format(self.name, self.index, self.fingerprint)

    @property
    def stem(self) -> str:
        """The prefix of the names of all created resources."""
        return f"{self.name}-{self.index}"

    def matches(self, other: OwnershipTag | None) -> bool:
        """Return whether ``other`` has the same name and index, with any fingerprint."""
        return other is not None and (other.name, other.index) == (self.name, self.index)


def read_tag(description: object) -> OwnershipTag | None:
    """Return the tag in a description, or None if ``connect`` did not write it."""
    pattern = re.escape(TEMPLATE).replace(r"\{\}", r"(\S+)")
    found = re.fullmatch(pattern, description) if isinstance(description, str) else None
    return None if found is None else OwnershipTag(*found.groups())


def tagged_source(tag: OwnershipTag, source: str) -> str:
    """Return the source of a stored search template with its tag as a comment in front."""
    return f"{{{{! {tag} }}}}{source}"


def read_source_tag(source: str) -> OwnershipTag | None:
    """Return the tag in the source of a stored search template, or None if it has none."""
    comment, end, _ = source.partition("}}")
    return read_tag(comment.removeprefix("{{!").strip()) if end else None
