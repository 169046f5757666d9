"""DocumentBatch: documents as columns; argument of ``Index.add``, result of ``Index.get``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError, ConfigError
from xmodal.index.validation import check_ids
from xmodal.modality import MODALITIES, Modality

Packed = Mapping[Modality, npt.NDArray[np.uint8]]
Offsets = Mapping[Modality, npt.NDArray[np.int64]]
Vectors = Mapping[Modality, npt.NDArray[np.int8]]
Codes = BinaryCodes | Sequence[BinaryCodes]
"""Codes of n documents: one code each, or for each document its codes, of which there may be 0."""


@dataclass(frozen=True, eq=False)
class DocumentBatch:
    """Codes and fields of ``n`` documents; document i has any number of codes of each modality.

    ``packed[modality]``: (m, bits / 8) uint8, the codes of document 0, then those of document 1,
    and so on. ``offsets[modality]``: (n + 1,) int64; the codes of document i are
    ``packed[modality][offsets[modality][i] : offsets[modality][i + 1]]``. ``fields``: one JSON
    object per document, as text. ``vectors[modality]``: (m, dim) int8, one per code; an empty
    mapping for documents without vectors. ``origins``: one text per document, see
    :mod:`xmodal.index.origins`, "" if unknown; an empty list if all are unknown. Columns are not
    copied and must not be changed later. Raises CodeError for columns that do not fit together or
    codes of two widths.
    """

    ids: list[str]
    packed: Packed
    offsets: Offsets
    fields: list[str]
    vectors: Vectors = field(default_factory=dict)
    origins: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.ids)
        if len(self.fields) != n or len(self.origins) not in (0, n):
            raise CodeError(
                f"a batch has {len(self.fields)} fields and {len(self.origins)} origins for {n} "
                f"ids, expected {n} each, or no origins"
            )
        for modality in MODALITIES:
            packed, offsets = self.packed[modality], self.offsets[modality]
            if packed.ndim != 2 or 8 * packed.shape[1] != self.bits:
                raise CodeError(
                    f"a batch has {modality} codes of shape {packed.shape} beside codes of "
                    f"{self.bits} bits, expected one width"
                )
            ends = (offsets[0], offsets[-1]) if offsets.shape == (n + 1,) else None
            if ends != (0, len(packed)) or (offsets[1:] < offsets[:-1]).any():
                raise CodeError(
                    f"{modality} offsets of shape {offsets.shape} do not fit {n} ids and "
                    f"{len(packed)} codes, expected {n + 1} offsets that rise from 0 to "
                    f"{len(packed)}"
                )
        self._check_vectors()

    def _check_vectors(self) -> None:
        """Raise CodeError unless there are no vectors, or one per code of one dimension."""
        if not self.vectors:
            return
        shapes = {m: (len(self.packed[m]), self.dim) for m in MODALITIES}
        for modality, shape in shapes.items():
            found = self.vectors.get(modality)
            if found is None or found.shape != shape or found.dtype != np.int8:
                given = "none" if found is None else f"{found.dtype} of shape {found.shape}"
                raise CodeError(
                    f"{modality} vectors are {given}, expected int8 of shape {shape}: one per code"
                )

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        *,
        image: Codes | None = None,
        text: Codes | None = None,
        fields: Sequence[Mapping[str, Any]] | None = None,
        image_vectors: npt.NDArray[np.int8] | None = None,
        text_vectors: npt.NDArray[np.int8] | None = None,
    ) -> DocumentBatch:
        """Return a batch of documents; copies its arguments.

        ``image`` and ``text``: BinaryCodes with one code per id, or a sequence with one BinaryCodes
        per id, which contains the 0 or more codes of the document. ``image_vectors`` and
        ``text_vectors``: (m, dim) int8, one per code in this order. Raises CodeError without any
        code or for codes of another number than ``ids``, ConfigError for ids or fields that cannot
        be stored.
        """
        check_ids(ids)
        given: dict[Modality, Codes | None] = {"image": image, "text": text}
        columns = {modality: codes for modality, codes in given.items() if codes is not None}
        n = len(ids)
        for modality, codes in columns.items():
            if len(codes) != n:
                raise CodeError(
                    f"{len(codes)} {modality} codes for {n} ids, expected one per id, or one "
                    "sequence per id"
                )
        widths = {modality: _widths(codes) for modality, codes in columns.items()}
        if not any(widths.values()):
            raise CodeError("documents without any code: pass image codes, text codes or both")
        if len(set().union(*widths.values())) > 1:
            found = ", ".join(f"{sorted(width)} {modality}" for modality, width in widths.items())
            raise CodeError(f"codes have {found} bits, expected one width")
        if fields is not None and len(fields) != n:
            raise ConfigError(f"{len(fields)} sets of fields for {n} ids, expected one per id")
        bits = set().union(*widths.values()).pop()
        packed: dict[Modality, npt.NDArray[np.uint8]] = {}
        offsets: dict[Modality, npt.NDArray[np.int64]] = {}
        for modality in MODALITIES:
            packed[modality], offsets[modality] = _column(columns.get(modality), n, bits)
        texts = ["{}"] * n
        if fields is not None:
            texts = [fields_to_json(values, id_) for values, id_ in zip(fields, ids, strict=True)]
        vectors = _vector_columns({"image": image_vectors, "text": text_vectors})
        return cls(list(ids), packed, offsets, texts, vectors)

    @classmethod
    def empty(cls, bits: int) -> DocumentBatch:
        """Return a batch of no documents."""
        return cls.of([], image=BinaryCodes.empty(bits))

    @classmethod
    def join(cls, parts: Sequence[DocumentBatch]) -> DocumentBatch:
        """Return the documents of all parts, in order.

        Raises CodeError for an empty list of parts or for several widths.
        """
        widths = {part.bits for part in parts}
        if len(widths) != 1:
            raise CodeError(f"cannot join batches of {sorted(widths)} bits, expected one width")
        with_origins = any(part.origins for part in parts)
        return cls(
            [id_ for part in parts for id_ in part.ids],
            {m: np.concatenate([part.packed[m] for part in parts]) for m in MODALITIES},
            {m: to_offsets(np.concatenate([p.counts(m) for p in parts])) for m in MODALITIES},
            [text for part in parts for text in part.fields],
            _join_vectors(parts),
            [text for part in parts for text in part.origin_texts()] if with_origins else [],
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def bits(self) -> int:
        """Width of the codes."""
        return 8 * int(self.packed["image"].shape[1])

    @property
    def dim(self) -> int | None:
        """Dimension of the vectors, None without vectors."""
        return next((int(column.shape[1]) for column in self.vectors.values()), None)

    @property
    def present(self) -> dict[Modality, npt.NDArray[np.bool_]]:
        """For each modality, which documents have a code of it, (n,) bool."""
        return {modality: self.counts(modality) > 0 for modality in MODALITIES}

    def counts(self, modality: Modality) -> npt.NDArray[np.int64]:
        """Return the number of codes of ``modality`` of each document, (n,)."""
        return np.diff(self.offsets[modality])

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> DocumentBatch:
        """Return the documents at ``rows``, in that order."""
        places = np.asarray(rows, dtype=np.int64)
        packed: dict[Modality, npt.NDArray[np.uint8]] = {}
        offsets: dict[Modality, npt.NDArray[np.int64]] = {}
        vectors: dict[Modality, npt.NDArray[np.int8]] = {}
        for modality in MODALITIES:
            starts = self.offsets[modality][places]
            counts = self.offsets[modality][places + 1] - starts
            new = to_offsets(counts)
            if counts.max(initial=0) <= 1:  # needs less memory than the general case
                positions = starts[counts == 1]
            else:
                positions = np.arange(new[-1]) + np.repeat(starts - new[:-1], counts)
            packed[modality] = self.packed[modality][positions]
            offsets[modality] = new
            if self.vectors:
                vectors[modality] = self.vectors[modality][positions]
        return DocumentBatch(
            [self.ids[row] for row in places],
            packed,
            offsets,
            [self.fields[row] for row in places],
            vectors,
            [self.origins[row] for row in places] if self.origins else [],
        )

    def origin_texts(self) -> list[str]:
        """Return the origin of each document as text, "" if unknown."""
        return self.origins or [""] * len(self)

    def without_vectors(self) -> DocumentBatch:
        """Return the documents with codes alone."""
        return replace(self, vectors={}) if self.vectors else self

    def codes(self, modality: Modality) -> tuple[list[str], BinaryCodes]:
        """Return all codes of ``modality``, m in document order, and the document id of each."""
        counts = self.counts(modality).tolist()
        ids = [id_ for id_, count in zip(self.ids, counts, strict=True) for _ in range(count)]
        return ids, BinaryCodes(self.packed[modality], self.bits)

    def fields_by_id(self) -> dict[str, dict[str, Any]]:
        """Return the decoded fields of each document, by id; of equal ids those of the last."""
        return {id_: json.loads(text) for id_, text in zip(self.ids, self.fields, strict=True)}


def to_batch(
    documents: DocumentBatch | Sequence[str],
    *,
    image: Codes | None,
    text: Codes | None,
    fields: Sequence[Mapping[str, Any]] | None,
) -> DocumentBatch:
    """Return the batch that the arguments of ``Index.add`` describe; see there for errors."""
    if not isinstance(documents, DocumentBatch):
        documents = DocumentBatch.of(documents, image=image, text=text, fields=fields)
    elif not (image is None and text is None and fields is None):
        raise ConfigError("a DocumentBatch has its own codes and fields: pass it alone")
    check_ids(documents.ids)
    coded = documents.counts("image") + documents.counts("text") > 0
    if not coded.all():
        id_ = documents.ids[int(np.argmin(coded))]
        raise CodeError(
            f"document {id_!r} has no code, expected an image code, a text code or both"
        )
    return documents


def match_vectors(documents: DocumentBatch, dim: int | None) -> DocumentBatch:
    """Return documents as an index with vectors of ``dim`` dimensions, or None, stores them.

    Raises CodeError for documents without vectors, or with others, if the index has vectors.
    """
    if dim is None or len(documents) == 0:
        return documents.without_vectors()
    if documents.dim != dim:
        found = "no vectors" if documents.dim is None else f"vectors of {documents.dim} dimensions"
        raise CodeError(
            f"these documents have {found}, this index holds vectors of {dim}: use the encoder "
            "that filled the index, or index all documents again into a new index"
        )
    return documents


def to_offsets(counts: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the offsets, (n + 1,), of ``n`` documents with these numbers of codes, or (n,) bool.

    True counts as one code.
    """
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _widths(codes: Codes) -> set[int]:
    """Return the different widths of the codes of one modality."""
    return {codes.bits} if isinstance(codes, BinaryCodes) else {each.bits for each in codes}


def _column(
    codes: Codes | None, n: int, bits: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return a copy of the codes of ``n`` documents as ``packed`` and ``offsets`` of a batch."""
    if codes is None:
        return np.zeros((0, bits // 8), np.uint8), np.zeros(n + 1, np.int64)
    if isinstance(codes, BinaryCodes):
        return codes.packed.copy(), np.arange(n + 1)
    parts = [np.zeros((0, bits // 8), np.uint8), *(each.packed for each in codes)]
    return np.concatenate(parts), to_offsets([len(each) for each in codes])


def _vector_columns(
    given: Mapping[Modality, npt.NDArray[np.int8] | None],
) -> dict[Modality, npt.NDArray[np.int8]]:
    """Return a copy of the vectors of both modalities; without any, an empty mapping."""
    found = [vectors for vectors in given.values() if vectors is not None]
    if not found:
        return {}
    none = np.zeros((0, found[0].shape[1]), np.int8)
    return {m: (none if vectors is None else vectors).copy() for m, vectors in given.items()}


def _join_vectors(parts: Sequence[DocumentBatch]) -> dict[Modality, npt.NDArray[np.int8]]:
    """Return the vectors of all parts; none if one with documents lacks them."""
    filled = [part for part in parts if len(part)]
    if not filled or len({part.dim for part in filled}) > 1 or filled[0].dim is None:
        return {}
    return {m: np.concatenate([part.vectors[m] for part in filled]) for m in MODALITIES}


def fields_to_json(fields: Mapping[str, Any], id_: str) -> str:
    """Return fields as JSON. Raises ConfigError for what JSON or UTF-8 cannot represent."""
    try:
        text = json.dumps(dict(fields), ensure_ascii=False, allow_nan=False)
        text.encode()  # text that is not valid Unicode fails here, not at a later save
        return text
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the fields of {id_!r} cannot be stored ({error}): expected text, finite numbers, "
            "true/false, or lists of these"
        ) from None
