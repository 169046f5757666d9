"""Conversion of documents to lines of bulk request bodies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal.index.documents import DocumentBatch
from xmodal.index.origins import read_origin
from xmodal.index.words import document_words
from xmodal.modality import MODALITIES, Modality
from xmodal_opensearch.client.bulk import Line
from xmodal_opensearch.index.mapping import (
    RESERVED_FIELDS,
    SELF_TEST_ID,
    Layout,
    field_of,
    is_reserved,
    nested_path,
    vector_field,
)

MAX_ID_BYTES = 512


def index_lines(batch: DocumentBatch, layout: Layout, *, words: bool = False) -> Iterator[Line]:
    """Yield one line per document, which replaces the stored document of the same id.

    ``words``: with the tokens of the document. Raises ConfigError for ids, field names and values
    that the server would reject.
    """
    sources = source_codes(batch, layout)
    for id_, codes, fields, origin in zip(
        batch.ids, sources, batch.fields, batch.origin_texts(), strict=True
    ):
        yield index_line(id_, codes, json.loads(fields), origin=origin, words=words)


def source_codes(batch: DocumentBatch, layout: Layout) -> list[dict[str, Any]]:
    """Return the fields of codes and vectors of each document in the format of ``layout``."""
    sources: list[dict[str, Any]] = [{} for _ in batch.ids]
    for modality in MODALITIES:
        values = layout.values(BinaryCodes(batch.packed[modality], batch.bits))
        vectors = layout.vector_json(batch.vectors[modality]) if batch.vectors else []
        offsets = batch.offsets[modality].tolist()
        for source, start, end in zip(sources, offsets, offsets[1:], strict=False):
            source |= code_source(modality, values[start:end], vectors[start:end], layout)
    return sources


def code_source(
    modality: Modality, values: Sequence[Any], vectors: Sequence[Any], layout: Layout
) -> dict[str, Any]:
    """Return the fields of a document with these codes: flat for one, nested for several.

    ``vectors``: one per code, or none.
    """
    if len(values) > 1:
        objects = layout.objects(values)
        for one, vector in zip(objects, vectors, strict=False):
            one["vector"] = vector
        return {nested_path(modality): objects}
    flat = {field_of(modality): value for value in values}
    return flat | {vector_field(modality): vector for vector in vectors}


def several_codes(batch: DocumentBatch) -> list[Modality]:
    """Return the modalities of which a document has several codes."""
    return [modality for modality in MODALITIES if (batch.counts(modality) > 1).any()]


def index_line(
    id_: str,
    codes: Mapping[str, Any],
    fields: Mapping[str, Any],
    *,
    origin: str = "",
    words: bool = False,
) -> Line:
    """Return the line that stores one document; ``codes``: its code fields, see source_codes.

    ``origin``: text of :mod:`xmodal.index.origins`, "" if unknown. ``words``, errors: see
    :func:`index_lines`.
    """
    check_id(id_)
    try:
        simple = _UNCHANGED_TYPES.issuperset(map(type, fields.values()))
        text = _encode(fields if simple and type(fields) is dict else _normalised(dict(fields)))
        if "." in text or not _RESERVED.isdisjoint(fields):
            _check_names(id_, fields)
        json_id = _quote(id_)
        own = f'"id":{json_id}{_origin_json(origin)}'
        if words:
            own += f',"words":{_quote(" ".join(document_words(fields, id_)))}'
        reserved = f'"xmodal":{{{own}}}'
        for name, value in codes.items():
            reserved += f',"{name}":{_code_json(value)}'
        source = f"{text[:-1]}, {reserved}}}" if fields else f"{{{reserved}}}"
        return Line(id_, f'{{"index":{{"_id":{json_id}}}}}\n{source}\n'.encode())
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the fields of {id_!r} cannot be stored ({error}): expected text, finite numbers, "
            "true/false, or lists of these"
        ) from None


def check_id(id_: str) -> None:
    """Raise ConfigError for an id that is too long, or that of the self-test document."""
    if id_ == SELF_TEST_ID:
        raise ConfigError(f"id {id_!r} is reserved for the self-test document: use another id")
    if not is_usable(id_):
        raise ConfigError(
            f"id {id_[:40]!r}... has {len(id_.encode())} bytes, expected 1 to {MAX_ID_BYTES}: "
            "use another id"
        )


def is_usable(id_: str) -> bool:
    """Return whether a document of the user can have this id."""
    fits = len(id_) <= MAX_ID_BYTES // 4 or len(id_.encode()) <= MAX_ID_BYTES
    return fits and id_ not in ("", SELF_TEST_ID)


# json.dumps creates an encoder per call with these arguments, which is slow for many documents.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_quote = json.encoder.encode_basestring
_UNCHANGED_TYPES = frozenset((str, int, bool, type(None)))
_RESERVED = frozenset(RESERVED_FIELDS)


def _check_names(id_: str, fields: Mapping[str, Any]) -> None:
    """Raise ConfigError for a field with a reserved name."""
    name = next((name for name in fields if is_reserved(str(name))), None)
    if name is not None:
        raise ConfigError(
            f"the fields of {id_!r} have one called {name!r}, which is reserved: rename it"
        )


def _origin_json(origin: str) -> str:
    """Return the reserved fields of an origin as JSON, with a comma before them."""
    known = read_origin(origin)
    return "" if known is None else f',"source":{_quote(known.source)},"origin":{_quote(origin)}'


def _code_json(value: Any) -> str:
    """Return the JSON of codes and vectors: integers, names, base64; ``repr`` is fast."""
    return repr(value).replace(" ", "").replace("'", '"')


def _normalised(value: Any) -> Any:
    """Return a value with whole floats as integers, so that keywords of 10.0 and 10 are equal."""
    if isinstance(value, str | int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_normalised(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _normalised(item) for name, item in value.items()}
    return value
