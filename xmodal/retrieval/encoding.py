"""From queries to the codes, weights and vectors that an index searches with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, IndexMissing, XmodalError
from xmodal.index.contract import Index
from xmodal.index.documents import DocumentBatch
from xmodal.index.query_codes import QueryCodes, to_query_codes
from xmodal.modality import MODALITIES, Modality, other_modality
from xmodal.retrieval.query import Query

if TYPE_CHECKING:
    from xmodal.encoders.encoder import Encoder

Outputs = npt.NDArray[np.floating[Any]]
SourceKey = tuple[Modality, Any]
"""Modality and identity of a source: a text, bytes, or the ``id`` of an object."""


class SourceOutputs(NamedTuple):
    """Outputs (bits,) of one source; without ``real`` they are the signs of its code."""

    values: Outputs
    real: bool


Encoded = Mapping[SourceKey, SourceOutputs | XmodalError]


def encode_queries(
    encoder: Encoder | None, index: Index, queries: Sequence[Query]
) -> list[QueryCodes | XmodalError]:
    """Return the codes of each query, or the error that prevented them.

    All texts are encoded in one batch, and so are all pictures. A query has one code, or one for
    each code of the document that it is ``like``. An unusable text or picture is an error of the
    queries that have it only.
    """
    errors: dict[int, XmodalError] = {}
    for position, query in enumerate(queries):
        try:
            query.check()
        except XmodalError as error:
            errors[position] = error
    usable = [query for position, query in enumerate(queries) if position not in errors]
    encoded = _encode_sources(encoder, usable)
    results: list[QueryCodes | XmodalError] = []
    for position, query in enumerate(queries):
        try:
            if position in errors:
                raise errors[position]
            results.append(_query_codes(index, query, encoded))
        except XmodalError as error:
            results.append(error)
    return results


def _encode_sources(encoder: Encoder | None, queries: Sequence[Query]) -> Encoded:
    """Return outputs of all texts and pictures of the queries, or the error of a source."""
    found: dict[SourceKey, SourceOutputs | XmodalError] = {}
    for modality in MODALITIES:
        sources = {
            _key(part, source): source
            for query in queries
            for part, source, _ in _sources(query)
            if part == modality
        }
        if not sources:
            continue
        try:
            found |= zip(sources, _encode(encoder, modality, list(sources.values())), strict=True)
        except XmodalError as error:
            if len(sources) == 1:
                found |= dict.fromkeys(sources, error)
                continue
            for key, source in sources.items():
                try:
                    (found[key],) = _encode(encoder, modality, [source])
                except XmodalError as reason:
                    found[key] = reason
    return found


def _encode(
    encoder: Encoder | None, modality: Modality, sources: Sequence[Any]
) -> list[SourceOutputs]:
    if encoder is None:
        raise ConfigError("this retriever has no encoder: search by document or by code")
    encoded = encoder.encode(modality, sources)
    real = encoded.outputs is not None
    rows = encoded.outputs if encoded.outputs is not None else encoded.codes.to_signs()
    return [SourceOutputs(row, real) for row in rows]


def _sources(query: Query) -> list[tuple[Modality, Any, float]]:
    """Return modality, source and signed weight of the texts and pictures of a query."""
    found: list[tuple[Modality, Any, float]] = []
    if query.text is not None:
        found.append(("text", query.text, query.weight("text")))
    if query.image is not None:
        found.append(("image", query.image, query.weight("image")))
    found += [("text", text, -query.weight("not")) for text in query.not_text]
    return found


def _key(modality: Modality, source: Any) -> SourceKey:
    return modality, source if isinstance(source, str | bytes) else id(source)


def _query_codes(index: Index, query: Query, encoded: Encoded) -> QueryCodes:
    """Return the codes of one query; raise the error of one of its parts."""
    if query.code is not None:
        return to_query_codes(query.code)
    parts: list[tuple[Outputs, float]] = []
    real = True
    if query.like is not None:
        outputs, real = _document_outputs(index, query.like, query.searched)
        parts.append((outputs, query.weight("like")))
    for modality, source, weight in _sources(query):
        part = encoded[_key(modality, source)]
        if isinstance(part, XmodalError):
            raise part
        real &= part.real
        parts.append((part.values[None], weight))
    rows = _combined(parts)
    if query.stage == "hamming" or not real:
        return QueryCodes(BinaryCodes.from_relaxed(rows))
    codes = QueryCodes.of(rows)
    without_vectors = query.stage == "weighted" or index.dim is None
    return QueryCodes(codes.codes, codes.weights) if without_vectors else codes


def _document_outputs(index: Index, id_: str, target: Modality) -> tuple[Outputs, bool]:
    """Return the outputs (m, bits) of a document, and whether they come from vectors.

    They are of the codes of ``target``, or of the other modality if the document has none. Without
    vectors they are the signs of the codes.
    """
    document = index.get([id_])
    for modality in (target, other_modality(target)):
        _, codes = document.codes(modality)
        if len(codes):
            return _outputs_of(document, modality, codes)
    raise IndexMissing(f"there is no document {id_[:100]!r}")


def _outputs_of(
    document: DocumentBatch, modality: Modality, codes: BinaryCodes
) -> tuple[Outputs, bool]:
    if not document.vectors:
        return codes.to_signs(), False
    # A vector has the expected signs of the bits up to a scale, here so small that tanh is linear
    # and returns the same vector. It rounds small outputs to zero; the code keeps their signs.
    vectors = document.vectors[modality].astype(np.float64)
    return 1e-3 * np.where(vectors == 0, 1e-3 * codes.to_signs(), vectors), True


def _combined(parts: Sequence[tuple[Outputs, float]]) -> Outputs:
    """Return the weighted sum of the parts, each scaled to their mean length; (m, bits).

    A part is (1, bits), or (m, bits) for the codes of a document. One part is returned as it is.
    """
    if len(parts) == 1:
        return parts[0][0]
    wide = [(rows.astype(np.float64), weight) for rows, weight in parts]
    lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows, _ in wide]
    scale = np.mean([length.mean() for length in lengths])
    total = np.zeros((1, wide[0][0].shape[1]))
    for (rows, weight), length in zip(wide, lengths, strict=True):
        total = total + weight * scale * rows / np.where(length > 0, length, 1)
    return total
