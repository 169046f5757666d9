"""The contract of an index: storage of codes with exact Hamming search, on every backend.

One document per id; a document has fields and any number of ``image`` and ``text`` codes, at least
one in total. A search compares queries with the codes of one modality, ``target``. Every backend
returns the same hits, id by id:

- **Codes alone** (BinaryCodes) are searched by Hamming distance. The distance of a document is the
  smallest distance of its codes of ``target``; ``nearest`` is the position of that code among them,
  and of codes at equal distances the lowest position. Hits are ordered by distance; **equal
  distances are ordered by id** (code point).
- **Weights** (:class:`~xmodal.index.query_codes.QueryCodes`) order documents by the weighted
  Hamming distance of their nearest code, then by its Hamming distance, then by id.
- **Vectors**, where the index stores them, order the first ``window`` documents again, and all that
  tie with the last of them in both distances: by the largest cosine of their vectors, then by
  Hamming distance, then by id. ``distance`` and ``nearest`` are then of the code of that vector.
  Documents after the window follow in their first order.
- ``distance`` is always a Hamming distance; ``radius`` limits it for each code, before the window.
- Hits, ``k``, ``len``, ``get``, ``delete`` and the counts of facets refer to documents, never to
  codes: a document is at most one hit of a query.
- A document without a code of ``target`` is never a hit.
- ``where`` (see :mod:`xmodal.index.filters`) and ``radius`` apply before the best k are selected:
  ``search`` is exact for every filter.
- ``add`` replaces the whole document of the same id; of equal ids in one call the last is stored.
- An index stores the fingerprint of the encoder of its codes and refuses another fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, runtime_checkable

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, missing_extra
from xmodal.modality import Modality
from xmodal.operating_system import file_path

if TYPE_CHECKING:
    from xmodal.index.documents import Codes, DocumentBatch
    from xmodal.index.query_codes import QueryCodes

MAX_FACET_LENGTH = 80
WINDOW = 300
"""Documents of the first stage whose vectors are compared."""
BACKENDS: dict[str, EntryPoint] = {}
"""Installed backends by scheme. They are read when a scheme is unknown: that takes 12 ms."""


class Hit(NamedTuple):
    """One found document; unknown values are None.

    ``distance``: Hamming distance in bits. ``fields``: stored fields. ``score``: sum of reciprocal
    ranks, of a fused search. ``confidence``: calibrated probability of a match, 0 to 1. ``ranks``:
    rank from 1 in each list of a fused search, "codes" and "words"; None where a list lacks it.
    ``nearest``: position, from 0, of the nearest code among the document's codes of the searched
    modality; :func:`nearest_source` returns the caption or picture of this code. ``similarity``:
    cosine of the vectors if these ranked the hit, else 1 - 2 D / (sum of weights) for the weighted
    Hamming distance D; -1 to 1. ``matched``: words of the query that the document contains.
    ``index_name``: index of the document, where a search covers several, in which documents may
    have equal ids; else None. Hits of equal distances and ids are ordered by it.

    >>> hit = xmodal.Hit("a.jpg", 3, {"text": "a red circle"})
    >>> hit.id, hit.distance, hit.fields["text"], hit.confidence
    ('a.jpg', 3, 'a red circle', None)
    """

    id: str
    distance: int
    fields: Mapping[str, Any]
    score: float | None = None
    confidence: float | None = None
    ranks: Mapping[str, int | None] | None = None
    nearest: int | None = None
    similarity: float | None = None
    matched: tuple[str, ...] = ()
    index_name: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The id and the index, which together are of one document."""
        return self.id, self.index_name or ""


Hits = list[list[Hit]]
"""One list of hits, best first, for each query of a batch."""

Facets = dict[str, list[tuple[str, int]]]
"""Values of each field with the number of documents that have them, most frequent first."""

NAME_FIELDS = ("text", "image")
"""Fields that identify a document, which are excluded from facets."""


def nearest_source(hit: Hit, target: Modality) -> str | None:
    """Return the caption or the path of the picture whose code is nearest, or None if unknown.

    ``target``: the searched modality. The stored field of this name is one text, or a list of texts
    in the order of the codes.
    """
    return None if hit.nearest is None else source_at(hit.fields.get(target), hit.nearest)


def shown_source(hit: Hit, modality: Modality, target: Modality) -> str | None:
    """Return the caption ("text") or the path of the picture ("image") that represents a hit.

    It is the nearest one if ``modality`` is the searched one, ``target``, else the first one. None
    if the document has none in its fields.
    """
    nearest = nearest_source(hit, target) if modality == target else None
    return nearest if nearest is not None else source_at(hit.fields.get(modality), 0)


def source_at(sources: Any, position: int) -> str | None:
    """Return the caption or path at ``position`` of a stored field: one value, or a list."""
    values = sources if isinstance(sources, list) else [sources]
    value = values[position] if position < len(values) else None
    return None if value is None or value == "" else str(value)


def nearest_to_json(hit: Hit, target: Modality) -> dict[str, Any] | None:
    """Return ``nearest`` of a hit for JSON: its position and its caption or picture; or None."""
    if hit.nearest is None:
        return None
    return {"position": hit.nearest, str(target): nearest_source(hit, target)}


class WordsQuery(NamedTuple):
    """Query of full-text search; see :func:`xmodal.index.words.tokens` for the words of a text.

    Documents with any of the words of ``excluded`` are no hits.
    """

    text: str
    excluded: str = ""


class WordsHit(NamedTuple):
    """A document found by full-text search: its BM25 score, and the query's words that it has.

    ``index_name``: see :class:`Hit`.
    """

    id: str
    score: float
    matched: tuple[str, ...]
    index_name: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The id and the index, which together are of one document."""
        return self.id, self.index_name or ""


@runtime_checkable
class FullTextIndex(Protocol):
    """An index that also ranks documents by the BM25 of their words."""

    def search_words(
        self,
        queries: Sequence[WordsQuery],
        k: int,
        *,
        target: Modality,
        where: Mapping[str, Any] | None = None,
    ) -> list[list[WordsHit]]:
        """Return for each query the best ``k`` documents that have one of its words.

        Ordered by score, then by id. Words are those of
        :func:`xmodal.index.words.document_words`. A document without a code of ``target`` is never
        a hit; ``where`` applies before the best ``k`` are selected. BM25 as in Lucene: k1 1.2,
        b .75, lengths rounded to 8 bits; Robertson, Zaragoza: The Probabilistic Relevance
        Framework: BM25 and Beyond (2009).
        """


@runtime_checkable
class Index(Protocol):
    """An index of codes; the module's docstring is the contract.

    >>> isinstance(xmodal.open_index("my.index"), xmodal.Index)
    True
    """

    @property
    def bits(self) -> int:
        """Width of every code in the index."""

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the encoder of the stored codes, or None if unknown."""

    @property
    def dim(self) -> int | None:
        """Dimension of the stored vectors, or None without vectors.

        The first documents of an empty index decide it.
        """

    def add(
        self,
        documents: DocumentBatch | Sequence[str],
        *,
        image: Codes | None = None,
        text: Codes | None = None,
        fields: Sequence[Mapping[str, Any]] | None = None,
    ) -> int:
        """Store documents and return their number.

        ``documents`` is a batch, or ids whose codes and fields are the other arguments, aligned
        with them: ``image`` and ``text`` are BinaryCodes with one code per id, or a sequence with
        one BinaryCodes per id, the codes of the document. An index without vectors stores the codes
        alone. Raises CodeError for codes of another width or number than ``documents``, for a
        document without a code, and for documents without vectors in an index with vectors;
        ConfigError for ids or fields that cannot be stored.
        """

    def search(
        self,
        queries: BinaryCodes | QueryCodes,
        k: int,
        *,
        target: Modality,
        where: Mapping[str, Any] | None = None,
        radius: int | None = None,
        window: int = WINDOW,
    ) -> Hits:
        """Return the best ``k`` documents for each query, within ``radius`` bits.

        ``window``: number of documents that vectors order again, at least ``k``. Every hit has
        ``nearest`` and ``similarity``. Raises CodeError for queries of another width or dimension,
        ConfigError for other bad arguments.
        """

    def measure(
        self, query: BinaryCodes | QueryCodes, ids: Sequence[str], *, target: Modality
    ) -> dict[str, Hit]:
        """Return the hits that documents would be for one query, by id.

        Documents that do not exist or have no code of ``target`` are absent.
        """

    def count(self, target: Modality, where: Mapping[str, Any] | None = None) -> int:
        """Return the number of documents with a code of ``target`` that pass the filters."""

    def get(self, ids: Sequence[str]) -> DocumentBatch:
        """Return codes and fields of the ids that exist, each once, in the order of ``ids``."""

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents and return their number; unknown ids are ignored."""

    def facets(self, max_values: int = 20) -> Facets:
        """Return fields by which a search can be narrowed, with their values.

        A field is a facet if it has at most ``max_values`` distinct values (written as text, as
        ``where`` compares them), none longer than 80 characters, and is none of ``NAME_FIELDS``.
        Equal counts are ordered by value.
        """

    def __len__(self) -> int:
        """Number of documents."""

    def close(self) -> None:
        """Make writes durable and release files and connections."""


def open_index(
    uri: str | Path,
    *,
    bits: int | None = None,
    fingerprint: str | None = None,
    create: bool = False,
    encoder: str | None = None,
) -> Index:
    """Open the index at ``uri``: a folder, or ``scheme://...`` of an installed backend.

    ``bits`` and ``fingerprint`` (of an encoder) are compared with those stored in the index. With
    ``create`` a missing index is created, which requires ``bits``. ``encoder`` is the former name
    of ``fingerprint``. Backends are registered as entry points ``xmodal.indexes``. Raises
    IndexMissing, IndexMismatch, ConfigError, ExtraMissing.

    >>> with xmodal.open_index("my.index") as index:
    ...     index.get(["00001.png"]).fields_by_id()["00001.png"]["colour"]
    'red'
    """
    scheme = str(uri).partition("://")[0] if "://" in str(uri) else "file"
    if scheme not in BACKENDS:
        BACKENDS.update({entry.name: entry for entry in entry_points(group="xmodal.indexes")})
    if scheme not in BACKENDS:
        known = ", ".join(sorted(f"{name}://" for name in BACKENDS if name != "file"))
        raise ConfigError(
            f"no index backend for {scheme}://, expected a folder"
            + (f" or one of {known}" if known else "")
            + "; is the package of this backend installed?"
        )
    address = file_path(str(uri)) if scheme == "file" else str(uri)
    try:
        opener = BACKENDS[scheme].load()
    except ModuleNotFoundError as error:
        raise missing_extra(error) or error from None
    opened = opener(address, bits=bits, fingerprint=fingerprint or encoder, create=create)
    return cast(Index, opened)


def to_facets(counts: Mapping[str, Mapping[str, int]], max_values: int) -> Facets:
    """Return the facets that :meth:`Index.facets` defines, from counts of values by field."""
    return {
        field: sorted(values.items(), key=lambda item: (-item[1], item[0]))
        for field, values in sorted(counts.items())
        if field not in NAME_FIELDS
        and 0 < len(values) <= max_values
        and all(len(value) <= MAX_FACET_LENGTH for value in values)
    }
