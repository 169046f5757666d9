"""Enriching: add codes to existing documents of an index, without other changes to them.

An enriched document stores the fingerprint of its encoder (``xmodal.encoder``). A run skips the
documents that have it, so that it continues a stopped run and encodes new documents. The server
rejects the update of a document that changed since it was read; the next run updates it. Searches
return documents of one encoder only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Dataset, Item, Problems, Progress
from xmodal.errors import ConfigError, DataError, IndexMismatch, IndexMissing
from xmodal.modality import MODALITIES, Modality
from xmodal.vectors import Int8
from xmodal_opensearch.client import bulk
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.aliases import describe
from xmodal_opensearch.index.bit_order_check import store_self_test
from xmodal_opensearch.index.bulk_lines import code_source
from xmodal_opensearch.index.capabilities import probe
from xmodal_opensearch.index.mapping import (
    ENCODER,
    LAYOUTS,
    Layout,
    field_of,
    nested_path,
    vector_field,
)
from xmodal_opensearch.index.queries import Query, is_nested
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.loading.download import Download


class Encoded(Protocol):
    """Codes of one modality, as the encoders of xmodal return them.

    ``ids``: of the n items that have any. ``offsets``, (n + 1,): the codes of item i are
    ``codes[offsets[i]:offsets[i + 1]]``. ``vectors``: one per code, or None.
    """

    @property
    def ids(self) -> list[str]: ...
    @property
    def codes(self) -> BinaryCodes: ...
    @property
    def offsets(self) -> npt.NDArray[np.int64]: ...
    @property
    def vectors(self) -> Int8 | None: ...


Encode = Callable[[Dataset], Mapping[Modality, Encoded]]
PAGE = 256


@dataclass(frozen=True)
class Source:
    """Fields of a document with its picture and its text: dotted names, at least one.

    A list has several pictures or texts, of which each gets a code. The value of ``image`` is a
    path inside ``folder`` (default: the current folder), or an http or https address if
    ``download`` is set.
    """

    image: str | None = None
    text: str | None = None
    folder: Path | None = None
    download: Download | None = None

    def __post_init__(self) -> None:
        if self.image is None and self.text is None:
            raise ConfigError(
                "no field given, expected the field of the picture, of the text, or both"
            )

    @property
    def fields(self) -> list[str]:
        """Names of the fields that are set."""
        return [name for name in (self.image, self.text) if name is not None]


def prepare(
    server: Server, address: Address, bits: int, fingerprint: str, source: Source | None = None
) -> OpenSearchIndex:
    """Add the fields for codes to an existing index, unless it has them, and open it.

    From then on searches return documents of this encoder only. Raises IndexMissing; IndexMismatch
    if codes cannot be added; ConfigError, before any change, if a field of ``source`` is missing.
    """
    found = describe(server, address.index)
    if found is None:
        raise IndexMissing(
            f"no index {address.index} at {address.server}, expected one with documents: for new "
            "documents use xmodal index or xmodal-opensearch load"
        )
    name, content = found
    mappings = content["mappings"]
    if source is not None:
        _check_fields(str(address), mapping.field_types(mappings), source.fields)
    if "xmodal" not in mappings.get("_meta", {}):
        _add_code_fields(server, address, name, content, bits, fingerprint)
    elif not mapping.is_enriched(mappings):
        raise IndexMismatch(
            f"{address} was created by xmodal, expected an index of your own documents: use "
            "xmodal index or xmodal-opensearch load"
        )
    else:
        stored_bits, stored_fingerprint = mapping.read_meta(name, mappings)
        if stored_bits != bits:
            raise IndexMismatch(
                f"{address} has fields for codes of {stored_bits} bits, expected {bits}, the width "
                "of this encoder: a field's width is fixed, so reindex into a new index"
            )
        if stored_fingerprint != fingerprint:
            meta = mapping.with_meta(mappings["_meta"], encoder=fingerprint)
            server.request("PUT", f"/{name}/_mapping", {"_meta": meta}, doing="naming the encoder")
    return OpenSearchIndex(server, address, bits=bits, fingerprint=fingerprint)


def enrich(
    index: OpenSearchIndex,
    source: Source,
    encode: Encode,
    *,
    reencode: bool = False,
    problems: Problems,
    workers: int = 2,
    progress: Progress | None = None,
) -> bulk.Report:
    """Store codes of the documents that have none of this encoder, or with ``reencode`` of all.

    ``encode`` returns ids and codes by modality. Unusable pictures and texts are added to
    ``problems``. Raises ServerFailure if the server is unavailable for longer than the client's
    retries.
    """
    fields = source.fields
    query = _documents_to_encode(index, fields, reencode)
    # Include documents of other processes, which are not visible before a refresh.
    index.handle.refresh_always()
    total = index.handle.count(query)
    done = 0

    def batches() -> Iterator[bulk.Batch]:
        nonlocal done
        for page in index.handle.scan(query, PAGE, fields):
            batch = _encode_page(page, index, source, encode, problems)
            done += len(page)
            if progress is not None:
                progress("encoded", done, max(total, done))
            if batch:
                yield batch

    report = index.handle.send(batches(), workers=workers)
    index.handle.refresh()
    return report


def values_at(value: Any, path: str) -> Iterator[Any]:
    """Yield the values of a dotted field of a document; a list has any number of them."""
    if isinstance(value, list):
        for item in value:
            yield from values_at(item, path)
    elif not path:
        if value is not None:
            yield value
    elif isinstance(value, Mapping):
        names = path.split(".")
        for count in range(len(names), 0, -1):  # a name itself may have dots
            head = ".".join(names[:count])
            if head in value:
                yield from values_at(value[head], ".".join(names[count:]))


def _documents_to_encode(index: OpenSearchIndex, fields: Sequence[str], reencode: bool) -> Query:
    """Return the query of documents with one of the fields, without codes unless ``reencode``.

    Raises ConfigError for a field that the index does not have.
    """
    handle = index.handle
    types = handle.read_types()
    _check_fields(str(handle.address), types, fields)
    capabilities = handle.server.request(
        "GET", f"/{handle.name}/_field_caps", doing="reading fields", fields=",".join(fields)
    )["fields"]
    searchable = all(
        any(
            kind["searchable"] or kind["aggregatable"]
            for kind in capabilities.get(name, {}).values()
        )
        and not is_nested(name, types)
        for name in fields
    )
    clauses: dict[str, Any] = {"must_not": [{"ids": {"values": [mapping.SELF_TEST_ID]}}]}
    if searchable:  # else all documents are read, and those without the fields are skipped
        clauses["should"] = [{"exists": {"field": name}} for name in fields]
        clauses["minimum_should_match"] = 1
    if not reencode:
        clauses["must_not"].append({"term": {ENCODER: str(index.fingerprint)}})
    return {"bool": clauses}


def _encode_page(
    page: Sequence[Mapping[str, Any]],
    index: OpenSearchIndex,
    source: Source,
    encode: Encode,
    problems: Problems,
) -> bulk.Batch:
    """Return the updates of one page of documents."""
    with tempfile.TemporaryDirectory(prefix="xmodal-") as folder:
        # Items are numbered: with custom routing, two documents may have one id.
        items = [_item(n, hit, source, Path(folder), problems) for n, hit in enumerate(page)]
        data = Dataset(tuple(items), name=str(index.handle.address), problems=problems)
        encoded = encode(data)
    several = [modality for modality, one in encoded.items() if (np.diff(one.offsets) > 1).any()]
    index.handle.read_types()  # another process may have added the fields for several codes
    dims = {one.vectors.shape[1] for one in encoded.values() if one.vectors is not None}
    stores_vectors = index.handle.store_vectors(dims.pop() if dims else None)
    index.handle.map_nested_codes(several)
    codes = {
        modality: _codes_by_item(index.handle.layout, one, stores_vectors)
        for modality, one in encoded.items()
    }
    batch: bulk.Batch = []
    for number, hit in enumerate(page):
        id_ = hit["_id"]
        code_fields: dict[str, Any] = {}
        for modality in MODALITIES:
            values, vectors = codes[modality].get(str(number), ([], []))
            # None removes the codes of an earlier run.
            code_fields |= {field_of(modality): None}
            if index.dim is not None:
                code_fields |= {vector_field(modality): None}
            if index.handle.has_nested_codes(modality):
                code_fields |= {nested_path(modality): None}
            code_fields |= code_source(modality, values, vectors, index.handle.layout)
        if all(value is None for value in code_fields.values()):
            continue
        change = {"xmodal": {"id": id_, "encoder": index.fingerprint}, **code_fields}
        seen = hit["_seq_no"], hit["_primary_term"]
        batch.append(bulk.update_line(id_, change, version=seen, routing=hit.get("_routing")))
    return batch


def _codes_by_item(
    layout: Layout, encoded: Encoded, with_vectors: bool
) -> dict[str, tuple[list[Any], list[Any]]]:
    """Return the values of the code field and of the vector field of each item, by its id."""
    values = layout.values(encoded.codes)
    vectors = []
    if with_vectors and encoded.vectors is not None:
        vectors = layout.vector_values(encoded.vectors)
    ends = pairwise(encoded.offsets)
    return {
        id_: (values[start:end], vectors[start:end])
        for id_, (start, end) in zip(encoded.ids, ends, strict=True)
    }


def _item(
    number: int, hit: Mapping[str, Any], source: Source, folder: Path, problems: Problems
) -> Item:
    """Return pictures and texts of a document; unusable ones are added to ``problems``."""
    document = hit.get("_source", {})
    images: list[Path] = []
    for image in () if source.image is None else values_at(document, source.image):
        try:
            images.append(_picture(str(image), source, folder))
        except (DataError, OSError, ValueError, RuntimeError) as error:  # null bytes, link loops
            problems.add("picture not available", f"{hit['_id']} ({error})")
    texts: list[str] = []
    for text in map(str, () if source.text is None else values_at(document, source.text)):
        try:
            text.encode()
            texts.append(text)
        except UnicodeEncodeError:
            problems.add("text not usable", f"{hit['_id']} (it is not valid Unicode)")
    return Item(str(number), tuple(images), tuple(texts))


def _picture(name: str, source: Source, folder: Path) -> Path:
    """Return the file of a picture, downloaded into ``folder`` if it is an address."""
    if name.lower().startswith(("http://", "https://")):
        if source.download is None:
            raise DataError("it is an address, expected a path: allow downloads with --download")
        return source.download(name, folder)
    root = (source.folder or Path()).resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise DataError(f"{name} is outside of {root}: set its folder with --images-from")
    return path


def _check_fields(index: str, types: Mapping[str, str], fields: Sequence[str]) -> None:
    for name in fields:
        if name not in types:
            known = ", ".join(sorted(path for path in types if not mapping.is_reserved(path))[:20])
            raise ConfigError(f"{index} has no field {name!r}, expected one of {known or 'none'}")


def _add_code_fields(
    server: Server,
    address: Address,
    name: str,
    content: Mapping[str, Any],
    bits: int,
    fingerprint: str,
) -> None:
    """Add the fields for codes and the self-test document to an index that has none."""
    mappings = content["mappings"]
    _check_source(name, mappings)
    layout = _layout(address, server, content["settings"])
    body = {
        "_meta": mappings.get("_meta", {}) | mapping.build_meta(bits, fingerprint, enriched=True),
        "properties": mapping.code_properties(bits, layout),
    }
    server.request("PUT", f"/{name}/_mapping", body, doing="adding the fields for codes")
    store_self_test(server, name, bits, layout)


def _check_source(name: str, mappings: Mapping[str, Any]) -> None:
    """Raise IndexMismatch for an index that does not store all fields or has reserved ones."""
    stored = mappings.get("_source", {})
    if stored.get("enabled") is False or stored.get("excludes") or stored.get("includes"):
        raise IndexMismatch(
            f"index {name} does not store complete documents (_source is {dict(stored)}), so an "
            "update would lose fields: reindex it with complete documents"
        )
    # A vector field of the user's own is allowed: the documents then have codes without vectors.
    vectors = map(vector_field, MODALITIES)
    names = set(mapping.RESERVED_FIELDS) - set(vectors)
    reserved = sorted(names & set(mappings.get("properties", {})))
    if reserved:
        raise IndexMismatch(
            f"index {name} has fields with the reserved names {', '.join(reserved)}: rename them"
        )


def _layout(address: Address, server: Server, settings: Mapping[str, Any]) -> Layout:
    """Return the layout for an existing index, whose setting ``index.knn`` cannot be changed."""
    can = probe(server)
    if address.strategy == "long" or not can.knn:
        return LAYOUTS["long"]
    if str(settings.get("index.knn")) == "true":
        return LAYOUTS["lucene-hnsw"]
    return LAYOUTS["flat"]
