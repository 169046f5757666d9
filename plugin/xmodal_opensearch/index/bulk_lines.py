"""Documents as the lines of bulk bodies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from xmodal.errors import ConfigError
from xmodal.index.documents import DocumentBatch
from xmodal.modality import MODALITIES
from xmodal_opensearch.client.bulk import Line
from xmodal_opensearch.index.mapping import RESERVED_FIELDS, SELF_TEST_ID, Layout, field_of, is_reserved

MAX_ID_BYTES = 512


def index_lines(batch: DocumentBatch, layout: Layout) -> Iterator[Line]:
    """Yield whole documents, each replacing the document of the same id.

    Raises ConfigError for a document that the server would refuse, before it is sent.
    """
    sources = source_codes(batch, layout)
    for id_, codes, fields in zip(batch.ids, sources, batch.fields, strict=True):
        yield index_line(id_, codes, json.loads(fields))


def source_codes(batch: DocumentBatch, layout: Layout) -> list[dict[str, Any]]:
    """Return the code fields of each document, as the layout stores them."""
    sources: list[dict[str, Any]] = [{} for _ in batch.ids]
    for modality in MODALITIES:
        rows = np.flatnonzero(batch.present[modality])
        _, codes = batch.codes(modality)
        for row, value in zip(rows, layout.values(codes), strict=True):
            sources[row][field_of(modality)] = value
    return sources


def index_line(id_: str, codes: Mapping[str, Any], fields: Mapping[str, Any]) -> Line:
    """One whole document; ``codes`` are the code fields as the layout holds them."""
    check_id(id_)
    try:
        simple = _UNCHANGED_TYPES.issuperset(map(type, fields.values()))
        text = _encode(fields if simple and type(fields) is dict else _normalised(dict(fields)))
        if "." in text or not _RESERVED.isdisjoint(fields):
            _check_names(id_, fields)
        named = _quoted(id_)
        own = f'"xmodal":{{"id":{named}}}'
        for name, value in codes.items():
            own += f',"{name}":{_code_text(value)}'
        source = f"{text[:-1]}, {own}}}" if fields else f"{{{own}}}"
        return Line(id_, f'{{"index":{{"_id":{named}}}}}\n{source}\n'.encode())
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the fields of {id_!r} cannot be stored ({error}): expected text, finite numbers, "
            "true/false, or lists of these"
        ) from None


def check_id(id_: str) -> None:
    """Raises ConfigError for an id that the server would not take, and for our own."""
    if id_ == SELF_TEST_ID:
        raise ConfigError(f"id {id_!r} is that of the index' own self-test document: rename")
    if not is_usable(id_):
        raise ConfigError(
            f"id {id_[:40]!r}... has {len(id_.encode())} bytes, OpenSearch takes {MAX_ID_BYTES}"
        )


def is_usable(id_: str) -> bool:
    """Whether a document of the user's can have this id."""
    fits = len(id_) <= MAX_ID_BYTES // 4 or len(id_.encode()) <= MAX_ID_BYTES
    return fits and id_ != SELF_TEST_ID


# One encoder for all documents: json.dumps makes a new one each time, which loading would notice.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


_quoted = json.encoder.encode_basestring


_UNCHANGED_TYPES = frozenset((str, int, bool, type(None)))


_RESERVED = frozenset(RESERVED_FIELDS)


def _check_names(id_: str, fields: Mapping[str, Any]) -> None:
    """Raises ConfigError if a field's name is ours, or with dots lies in what is."""
    taken = next((name for name in fields if is_reserved(str(name))), None)
    if taken is not None:
        raise ConfigError(
            f"the fields of {id_!r} have one called {taken!r}, which is reserved: rename"
        )


def _code_text(value: Any) -> str:
    """The JSON of a code as a layout holds it; Python writes lists of integers as JSON does."""
    if isinstance(value, list):
        return str(value).replace(" ", "")
    return json.dumps(value, separators=(",", ":"))


def _normalised(value: Any) -> Any:
    """Whole floats as integers: as keywords 10.0 and 10 must be one value, as everywhere."""
    if isinstance(value, str | int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_normalised(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _normalised(one) for name, one in value.items()}
    return value
