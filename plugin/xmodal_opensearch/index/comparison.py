"""Exact comparison of a query with stored codes and vectors, and the hits that result from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.index.contract import Hit
from xmodal.index.documents import to_offsets
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import Modality
from xmodal.vectors import Int8, cosine, rank_keys
from xmodal_opensearch.index import codec, mapping
from xmodal_opensearch.index.mapping import Layout, field_of, nested_path, vector_field
from xmodal_opensearch.index.queries import hit_id


class StoredCodes(NamedTuple):
    """Codes of ``n`` documents and, if they were read, their vectors.

    ``offsets`` (n + 1,): the codes of document i are ``codes[offsets[i]:offsets[i + 1]]``.
    ``vectors`` (m, dim): one per code; zeros where ``has_vector`` (m,) is False, which is so for
    documents that an ingest pipeline of the server encoded.
    """

    codes: BinaryCodes
    offsets: npt.NDArray[np.int64]
    vectors: Int8 | None = None
    has_vector: npt.NDArray[np.bool_] | None = None


class Match(NamedTuple):
    """The best code of a document: its rank (smaller is better), distance, place, similarity."""

    rank: float
    distance: int
    nearest: int
    similarity: float


def source_fields(modality: Modality, *, vectors: bool) -> list[str]:
    """Return the fields of ``_source`` with the codes of ``modality``, and with the vectors.

    k-NN 3.6 removes the codes from nested objects of ``_source`` if only their path is requested.
    """
    codes = [field_of(modality), f"{nested_path(modality)}.*"]
    return [*codes, vector_field(modality)] if vectors else codes


def read_stored(
    sources: Sequence[Mapping[str, Any]],
    modality: Modality,
    layout: Layout,
    bits: int,
    dim: int | None = None,
) -> StoredCodes:
    """Return the codes of documents with these ``_source``, and with ``dim`` their vectors."""
    objects = [_objects(source, modality, layout) for source in sources]
    offsets = to_offsets([len(each) for each in objects])
    flat = [one for each in objects for one in each]
    codes = layout.object_codes(flat, bits)
    if dim is None:
        return StoredCodes(codes, offsets)
    vectors = np.zeros((len(flat), dim), np.int8)
    has_vector = np.array([one.get("vector") is not None for one in flat], np.bool_)
    found = [one["vector"] for one in flat if one.get("vector") is not None]
    vectors[has_vector] = layout.vectors(found, dim)
    return StoredCodes(codes, offsets, vectors, has_vector)


def compare(
    query: QueryCodes, stored: StoredCodes, radius: int | None = None
) -> list[Match | None]:
    """Return the best match of each document for one query, None for one without a code.

    With vectors the best code has the largest cosine, else the smallest weighted, then the smallest
    Hamming distance, within ``radius``; of equal ones it is the first. See the contract of an
    index. A code without a vector comes after all others.
    """
    codes, offsets, vectors, has_vector = stored
    hamming = query.codes.distances(codes)[0].astype(np.int64)
    weighted = hamming
    if query.weights is not None:
        differing = query.codes.to_bits() != codes.to_bits()
        weighted = differing @ query.weights[0].astype(np.int64)
    similarity = similarities(query, weighted)
    ranks = rank_keys(weighted, hamming, query.bits).astype(np.float64)
    if radius is not None:
        ranks[hamming > radius] = np.inf
    if query.vectors is not None and vectors is not None and has_vector is not None:
        similarity[has_vector] = cosine(query.vectors[0], vectors[has_vector])
        ranks = np.where(has_vector, -similarity, np.inf)
    counts = np.diff(offsets)
    order = np.lexsort((ranks, np.repeat(np.arange(len(counts)), counts)))  # stable
    matches: list[Match | None] = [None] * len(counts)
    for document in np.flatnonzero(counts):
        best = order[offsets[document]]
        matches[document] = Match(
            float(ranks[best]),
            int(hamming[best]),
            int(best - offsets[document]),
            float(similarity[best]),
        )
    return matches


def similarities(query: QueryCodes, weighted: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the similarities, -1 to 1, of weighted Hamming distances from one query."""
    total = query.bits if query.weights is None else int(query.weights[0].sum())
    values: npt.NDArray[np.float64] = 1 - 2 * weighted / total
    return values


def first_stage_hits(
    found: Sequence[Mapping[str, Any]],
    query: QueryCodes,
    target: Modality,
    layout: Layout,
    radius: int | None = None,
) -> list[Hit]:
    """Return the hits of a search by codes, in the order of the server.

    Distances are read from the scores; for documents with several codes they are computed, with
    ``nearest``, from the nested codes in ``_source``.
    """
    nested = [{nested_path(target): hit["_source"].get(nested_path(target))} for hit in found]
    matches = compare(query, read_stored(nested, target, layout, query.bits), radius)
    keys = np.array([codec.to_key(hit["_score"]) for hit in found], np.int64)
    weighted, distances = (keys, keys) if query.weights is None else divmod(keys, query.bits + 1)
    similarity = similarities(query, weighted).tolist()
    hits = []
    for row, (hit, match) in enumerate(zip(found, matches, strict=True)):
        at = match or Match(0, int(distances[row]), 0, similarity[row])
        fields = mapping.user_fields(hit["_source"])
        hits.append(
            Hit(
                hit["_id"],
                at.distance,
                fields,
                nearest=at.nearest,
                similarity=at.similarity,
                index_name=hit.get("_index"),
            )
        )
    return hits


def best_hits(
    found: Sequence[Mapping[str, Any]],
    query: QueryCodes,
    stored: StoredCodes,
    k: int | None = None,
    radius: int | None = None,
) -> list[Hit]:
    """Return the best ``k`` of the server's hits, or all, by their exact matches with the query."""
    pairs = zip(found, compare(query, stored, radius), strict=True)
    ranked = sorted(
        (
            (match.rank, match.distance, hit_id(hit), hit.get("_index"), match, hit)
            for hit, match in pairs
            if match
        ),
        key=lambda entry: (*entry[:3], entry[3] or ""),
    )
    return [
        Hit(
            id_,
            distance,
            mapping.user_fields(hit.get("_source", {})),
            nearest=match.nearest,
            similarity=match.similarity,
            index_name=index,
        )
        for _, distance, id_, index, match, hit in ranked[:k]
    ]


def _objects(
    source: Mapping[str, Any], modality: Modality, layout: Layout
) -> Sequence[Mapping[str, Any]]:
    """Return the codes of a document as nested objects, also if there is one code."""
    nested: Sequence[Mapping[str, Any]] | None = source.get(nested_path(modality))
    if nested:
        return nested
    flat = source.get(field_of(modality))
    if flat is None:
        return []
    (one,) = layout.objects([flat])
    return [{**one, "vector": source.get(vector_field(modality))}]
