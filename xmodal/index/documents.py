"""DocumentBatch: documents as columns; argument of ``Index.add``, result of ``Index.get``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError, ConfigError
from xmodal.index.validation import check_ids
from xmodal.modality import MODALITIES, Modality

Packed = Mapping[Modality, npt.NDArray[np.uint8]]
Present = Mapping[Modality, npt.NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class DocumentBatch:
    """Codes and fields of ``n`` documents; row i of every column belongs to ``ids[i]``.

    ``packed[modality]``: (n, bits / 8) uint8, zero where ``present[modality]``, (n,) bool, is
    False. ``fields``: one JSON object per document, as text. Columns are not copied and must not
    be changed later. Raises CodeError for columns of different lengths or codes of two widths.
    """

    ids: list[str]
    packed: Packed
    present: Present
    fields: list[str]

    def __post_init__(self) -> None:
        n = len(self.ids)
        shapes = {modality: self.packed[modality].shape for modality in MODALITIES}
        lengths = [len(self.fields), *(len(self.present[modality]) for modality in MODALITIES)]
        if set(shapes.values()) != {(n, self.bits // 8)} or set(lengths) != {n}:
            raise CodeError(
                f"columns of a batch have {len(self.fields)} fields and codes of shapes {shapes} "
                f"for {n} ids, expected one row per id and one width"
            )

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        *,
        image: BinaryCodes | None = None,
        text: BinaryCodes | None = None,
        fields: Sequence[Mapping[str, Any]] | None = None,
    ) -> DocumentBatch:
        """Return a batch of documents that all have the same modalities; copies its arguments.

        Raises CodeError without any code or for codes of another number than ``ids``, ConfigError
        for ids or fields that cannot be stored.
        """
        check_ids(ids)
        columns: dict[Modality, BinaryCodes | None] = {"image": image, "text": text}
        codes = {modality: column for modality, column in columns.items() if column is not None}
        if not codes:
            raise CodeError("documents without any code: pass image codes, text codes or both")
        n = len(ids)
        for modality, column in codes.items():
            if len(column) != n:
                raise CodeError(f"{len(column)} {modality} codes for {n} ids, expected one per id")
        if len({column.bits for column in codes.values()}) > 1:
            widths = ", ".join(f"{column.bits} {modality}" for modality, column in codes.items())
            raise CodeError(f"codes have {widths} bits, expected one width")
        if fields is not None and len(fields) != n:
            raise ConfigError(f"{len(fields)} sets of fields for {n} ids, expected one per id")
        packed, present = empty_columns(n, next(iter(codes.values())).bits)
        for modality, column in codes.items():
            packed[modality][:] = column.packed
            present[modality][:] = True
        texts = ["{}"] * n
        if fields is not None:
            texts = [fields_to_json(values, id_) for values, id_ in zip(fields, ids, strict=True)]
        return cls(list(ids), packed, present, texts)

    @classmethod
    def empty(cls, bits: int) -> DocumentBatch:
        """Return a batch of no documents."""
        return cls([], *empty_columns(0, bits), [])

    @classmethod
    def join(cls, parts: Sequence[DocumentBatch]) -> DocumentBatch:
        """Return the documents of all parts, in order.

        Raises CodeError for an empty list of parts or for several widths.
        """
        widths = {part.bits for part in parts}
        if len(widths) != 1:
            raise CodeError(f"cannot join batches of {sorted(widths)} bits, expected one width")
        return cls(
            [id_ for part in parts for id_ in part.ids],
            {m: np.concatenate([part.packed[m] for part in parts]) for m in MODALITIES},
            {m: np.concatenate([part.present[m] for part in parts]) for m in MODALITIES},
            [text for part in parts for text in part.fields],
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def bits(self) -> int:
        """Width of the codes."""
        return 8 * int(self.packed["image"].shape[1])

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> DocumentBatch:
        """Return the documents at ``rows``, in that order."""
        places = np.asarray(rows, dtype=np.int64)
        return DocumentBatch(
            [self.ids[row] for row in places],
            {modality: self.packed[modality][places] for modality in MODALITIES},
            {modality: self.present[modality][places] for modality in MODALITIES},
            [self.fields[row] for row in places],
        )

    def codes(self, modality: Modality) -> tuple[list[str], BinaryCodes]:
        """Return the ids of the documents that have a code of ``modality``, and these codes."""
        rows = np.flatnonzero(self.present[modality])
        codes = BinaryCodes(self.packed[modality][rows], self.bits)
        return [self.ids[row] for row in rows], codes

    def fields_by_id(self) -> dict[str, dict[str, Any]]:
        """Return the decoded fields of each document, by id; of equal ids those of the last."""
        return {id_: json.loads(text) for id_, text in zip(self.ids, self.fields, strict=True)}


def to_batch(
    documents: DocumentBatch | Sequence[str],
    *,
    image: BinaryCodes | None,
    text: BinaryCodes | None,
    fields: Sequence[Mapping[str, Any]] | None,
) -> DocumentBatch:
    """Return the batch that the arguments of ``Index.add`` describe; see there for errors."""
    if not isinstance(documents, DocumentBatch):
        return DocumentBatch.of(documents, image=image, text=text, fields=fields)
    if not (image is None and text is None and fields is None):
        raise ConfigError("a DocumentBatch has its own codes and fields: pass it alone")
    check_ids(documents.ids)
    coded = documents.present["image"] | documents.present["text"]
    if not coded.all():
        id_ = documents.ids[int(np.argmin(coded))]
        raise CodeError(
            f"document {id_!r} has no code, expected an image code, a text code or both"
        )
    return documents


def empty_columns(
    n: int, bits: int
) -> tuple[dict[Modality, npt.NDArray[np.uint8]], dict[Modality, npt.NDArray[np.bool_]]]:
    """Return ``packed`` and ``present`` of ``n`` documents without codes."""
    packed = {modality: np.zeros((n, bits // 8), np.uint8) for modality in MODALITIES}
    return packed, {modality: np.zeros(n, np.bool_) for modality in MODALITIES}


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
