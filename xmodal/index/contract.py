"""The Index contract: what every store of codes promises, wherever it keeps them.

One document per item; a document may have an ``image`` code, a ``text`` code, or both, and fields.
A search names the side it looks at. Every backend gives the same answer, id by id:

- Hits come in order of distance; **equal distances come in order of id** (by code point).
- A document without a code on the searched side is never a hit.
- ``where`` (see :mod:`xmodal.index.filters`) and ``radius`` apply before the best k are selected:
  ``search`` is exact for every filter.
- ``add`` replaces the whole document of the same id; of equal ids in one call the last one stays.
- An index remembers the fingerprint of the encoder that made its codes and refuses another's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, missing_extra
from xmodal.modality import Modality

LONGEST_FACET = 80


class Hit(NamedTuple):
    """One found document: its id, its Hamming distance in bits, its stored fields."""

    id: str
    distance: int
    fields: Mapping[str, Any]


Hits = list[list[Hit]]
"""One list of hits, best first, for each query of a batch."""


Facets = dict[str, list[tuple[str, int]]]
"""For each field, the values that documents have there and how many have them, commonest first."""

NAMES = ("text", "image")
"""Fields by which a person recognises a document: they name it, they do not group it."""


class Addition(NamedTuple):
    """What one ``add`` stores: ``index.add(**addition._asdict())``."""

    ids: list[str]
    image: BinaryCodes | None
    text: BinaryCodes | None
    fields: list[Mapping[str, Any]]


@runtime_checkable
class Index(Protocol):
    """A store of codes that can be searched; the module's docstring is the contract."""

    @property
    def bits(self) -> int:
        """Width of every code in the index."""

    @property
    def encoder(self) -> str | None:
        """Fingerprint of the encoder whose codes these are; None if nobody said."""

    def add(
        self,
        ids: Sequence[str],
        *,
        image: BinaryCodes | None = None,
        text: BinaryCodes | None = None,
        fields: Sequence[Mapping[str, Any]] | None = None,
    ) -> int:
        """Store one document an id, with the codes and fields at its position; return how many.

        Raises CodeError for codes of other bits or of another number than ``ids``, ConfigError for
        ids or fields that cannot be stored.
        """

    def search(
        self,
        queries: BinaryCodes,
        k: int,
        *,
        target: Modality,
        where: Mapping[str, Any] | None = None,
        radius: int | None = None,
    ) -> Hits:
        """The best ``k`` documents on side ``target`` for each query, within ``radius`` bits.

        Raises CodeError for queries of other bits, ConfigError for other bad arguments.
        """

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents; ids that are not there are passed over. Return how many were removed.

        Raises BulkFailure if some of them are there and could not be removed.
        """

    def codes_of(self, ids: Sequence[str], side: Modality) -> tuple[list[str], BinaryCodes]:
        """Those of ``ids`` that have a code on ``side``, in their order, and these codes."""

    def fields_of(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """The fields of those of ``ids`` that are there."""

    def facets(self, most: int = 20) -> Facets:
        """What a search can be narrowed by: the fields that group documents, and their values.

        A field groups if it has at most ``most`` different values (written as text, as ``where``
        compares them), none longer than 80 characters, and is none of ``NAMES``. Equal counts come
        in order of value.
        """

    def __len__(self) -> int:
        """Number of documents."""

    def close(self) -> None:
        """Make everything durable and let go of files and connections."""


def open_index(
    uri: str | Path,
    *,
    bits: int | None = None,
    encoder: str | None = None,
    create: bool = False,
) -> Index:
    """Open the index at ``uri``: a folder, or ``scheme://...`` of an installed backend.

    ``bits`` and ``encoder`` (a fingerprint) are checked against what the index remembers; with
    ``create`` a missing index is made, for which ``bits`` is needed. Backends announce themselves
    through the entry points ``xmodal.indexes``. Raises IndexMissing, IndexMismatch, ConfigError,
    ExtraMissing.
    """
    scheme, found, _ = str(uri).partition("://")
    if not found:
        scheme = "file"
    backends = {entry.name: entry for entry in entry_points(group="xmodal.indexes")}
    if scheme not in backends:
        known = ", ".join(sorted(f"{name}://" for name in backends if name != "file"))
        raise ConfigError(
            f"no index backend for {scheme}://, expected a folder"
            + (f" or one of {known}" if known else "")
            + "; is the package that brings this backend installed?"
        )
    address = str(uri).removeprefix("file://") if scheme == "file" else str(uri)
    try:
        opener = backends[scheme].load()
    except ModuleNotFoundError as error:
        raise missing_extra(error) or error from None
    opened = opener(address, bits=bits, encoder=encoder, create=create)
    return cast(Index, opened)


def to_facets(counts: Mapping[str, Mapping[str, int]], most: int) -> Facets:
    """Those of the counted values, by field, that :meth:`Index.facets` promises."""
    return {
        field: sorted(values.items(), key=lambda one: (-one[1], one[0]))
        for field, values in sorted(counts.items())
        if field not in NAMES
        and 0 < len(values) <= most
        and all(len(value) <= LONGEST_FACET for value in values)
    }
