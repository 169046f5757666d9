"""Codes for documents that are already there: read, encoded, updated; nothing else changes.

Each document that has its codes says so (``xmodal.encoder``), so a run that was stopped goes on
with the others, and a later run with new documents. An update is refused by the server if somebody
changed the document meanwhile; the next run takes it. Searches see one encoder's documents only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Dataset, Item, Problems, Progress
from xmodal.errors import ConfigError, DataError, IndexMismatch, IndexMissing
from xmodal.modality import MODALITIES, Modality
from xmodal_opensearch.client import bulk
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.aliases import describe
from xmodal_opensearch.index.bit_order_check import store_self_test
from xmodal_opensearch.index.capabilities import probe
from xmodal_opensearch.index.mapping import ENCODER, LAYOUTS, Layout, field_of
from xmodal_opensearch.index.queries import Query
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.loading.download import Download

Encode = Callable[[Dataset], Mapping[Modality, tuple[list[str], BinaryCodes]]]
PAGE = 256


@dataclass(frozen=True)
class Source:
    """Where in a document its picture and its text stand: dotted field names, at least one.

    A picture is a path below ``folder``, or an http(s) address if ``download`` is given.
    """

    image: str | None = None
    text: str | None = None
    folder: Path | None = None
    download: Download | None = None

    def __post_init__(self) -> None:
        if self.image is None and self.text is None:
            raise ConfigError("name the field of the picture, of the text, or both")

    @property
    def fields(self) -> list[str]:
        """The names that are given."""
        return [name for name in (self.image, self.text) if name is not None]


def prepare(
    server: Server, address: Address, bits: int, encoder: str, source: Source | None = None
) -> OpenSearchIndex:
    """Give an existing index the fields for codes, if it has none, and open it.

    Raises IndexMissing, IndexMismatch where codes cannot be added, and ConfigError, before anything
    is changed, if it lacks a field of ``source``.
    """
    found = describe(server, address.index)
    if found is None:
        raise IndexMissing(
            f"no index {address.index} at {address.server}: enrich adds codes to documents that "
            "are there; for new ones use xmodal index or xmodal-opensearch load"
        )
    name, content = found
    mappings = content["mappings"]
    if source is not None:
        _check_fields(str(address), mapping.field_types(mappings), source.fields)
    if "xmodal" not in mappings.get("_meta", {}):
        _check_source(name, mappings)
        layout = _layout(address, server, content["settings"])
        body = {
            "_meta": mappings.get("_meta", {}) | mapping.meta(bits, encoder, added=True),
            "properties": mapping.code_properties(bits, layout),
        }
        server.request("PUT", f"/{name}/_mapping", body, doing="adding the fields for codes")
        store_self_test(server, name, bits, layout)
    elif not mapping.is_enriched(mappings):
        raise IndexMismatch(
            f"{address} was made by xmodal with the codes of its documents: use xmodal index or "
            "xmodal-opensearch load there"
        )
    elif mapping.read_meta(name, mappings) == (bits, encoder):
        pass
    else:
        if mapping.read_meta(name, mappings)[0] != bits:
            raise IndexMismatch(
                f"{address} has fields for codes of {mapping.read_meta(name, mappings)[0]} bits, "
                f"this encoder makes {bits}: a field's width is fixed, so reindex into a new index"
            )
        # From here on searches see this encoder's documents only, first none, at the end all.
        meta = mappings["_meta"] | mapping.meta(bits, encoder, added=True)
        server.request("PUT", f"/{name}/_mapping", {"_meta": meta}, doing="naming the encoder")
    return OpenSearchIndex(server, address, bits=bits, fingerprint=encoder)


def enrich(
    index: OpenSearchIndex,
    source: Source,
    encode: Encode,
    *,
    again: bool = False,
    problems: Problems,
    workers: int = 2,
    progress: Progress | None = None,
) -> bulk.Report:
    """Encode the documents that have no codes of this encoder yet (``again``: all of them).

    Pictures and texts that cannot be used go to ``problems``. Raises ServerFailure if the server
    stays away longer than the client is patient.
    """
    fields = source.fields
    query = _wanted(index, fields, again)
    # Also what others stored: an index may wait long, or for ever, before it shows that.
    index.handle.refresh_always()
    total = index.handle.count(query)
    done = 0

    def batches() -> Iterator[bulk.Batch]:
        nonlocal done
        for page in index.handle.scan(query, PAGE, fields):
            batch = _encoded(page, index, source, encode, problems)
            done += len(page)
            if progress is not None:
                progress("encoded", done, max(total, done))
            if batch:
                yield batch

    report = index.handle.send(batches(), workers=workers)
    index.handle.refresh()
    return report


def value_at(document: Mapping[str, Any], path: str) -> Any:
    """The value of a dotted field of a document, the first one of a list; None if it has none."""
    return next(_values_at(document, path), None)


def _values_at(found: Any, path: str) -> Iterator[Any]:
    if isinstance(found, list):
        for one in found:
            yield from _values_at(one, path)
    elif not path:
        if found is not None:
            yield found
    elif isinstance(found, Mapping):
        names = path.split(".")
        for count in range(len(names), 0, -1):  # a name itself may have dots
            head = ".".join(names[:count])
            if head in found:
                yield from _values_at(found[head], ".".join(names[count:]))


def _wanted(index: OpenSearchIndex, fields: Sequence[str], again: bool) -> Query:
    """Which documents to read: with one of the fields and, unless ``again``, without our codes.

    Raises ConfigError for a field that the index does not have.
    """
    types = index.handle.read_types()
    _check_fields(str(index.handle.address), types, fields)
    told = index.handle.server.request(
        "GET",
        f"/{index.handle.name}/_field_caps",
        doing="looking at fields",
        fields=",".join(fields),
    )["fields"]
    can_be_asked = True
    for name in fields:
        kinds = told.get(name, {}).values()
        indexed = any(one["searchable"] or one["aggregatable"] for one in kinds)
        parents = {name[:at] for at, sign in enumerate(name) if sign == "."}
        can_be_asked &= indexed and not any(types.get(one) == "nested" for one in parents)
    out: dict[str, Any] = {"must_not": [{"ids": {"values": [mapping.SELF_TEST_ID]}}]}
    if can_be_asked:  # else every document is read, and those without the fields are passed over
        out["should"] = [{"exists": {"field": name}} for name in fields]
        out["minimum_should_match"] = 1
    if not again:
        out["must_not"].append({"term": {ENCODER: str(index.fingerprint)}})
    return {"bool": out}


def _encoded(
    page: Sequence[Mapping[str, Any]],
    index: OpenSearchIndex,
    source: Source,
    encode: Encode,
    problems: Problems,
) -> bulk.Batch:
    """The updates for one page of documents."""
    with tempfile.TemporaryDirectory(prefix="xmodal-") as folder:
        # Numbered, for with custom routing two documents may have the same id.
        items = [_item(n, hit, source, Path(folder), problems) for n, hit in enumerate(page)]
        data = Dataset(tuple(items), name=str(index.handle.address), problems=problems)
        codes = encode(data)
    rows = {side: dict(zip(ids, range(len(ids)), strict=True)) for side, (ids, _) in codes.items()}
    values = {side: index.handle.layout.values(packed) for side, (_, packed) in codes.items()}
    batch: bulk.Batch = []
    for number, hit in enumerate(page):
        id_, own = hit["_id"], str(number)
        if not any(own in rows[side] for side in MODALITIES):
            continue
        change: dict[str, Any] = {"xmodal": {"id": id_, "encoder": index.fingerprint}}
        for side in MODALITIES:
            row = rows[side].get(own)
            change[field_of(side)] = None if row is None else values[side][row]
        seen = hit["_seq_no"], hit["_primary_term"]
        batch.append(bulk.update_line(id_, change, seen=seen, routing=hit.get("_routing")))
    return batch


def _item(
    number: int, hit: Mapping[str, Any], source: Source, folder: Path, problems: Problems
) -> Item:
    document = hit.get("_source", {})
    text = None if source.text is None else value_at(document, source.text)
    image = None if source.image is None else value_at(document, source.image)
    path: Path | None = None
    if image is not None:
        try:
            path = _picture(str(image), source, folder)
        except (DataError, OSError, ValueError, RuntimeError) as error:  # null bytes, link loops
            problems.add("picture not to be had", f"{hit['_id']} ({error})")
    if text is not None:
        text = str(text)
        try:
            text.encode()
        except UnicodeEncodeError:
            problems.add("text not usable", f"{hit['_id']} (it is not valid Unicode)")
            text = None
    return Item(str(number), path, text)


def _picture(name: str, source: Source, folder: Path) -> Path:
    if name.lower().startswith(("http://", "https://")):
        if source.download is None:
            raise DataError("it is an address: allow downloads with --download")
        return source.download(name, folder)
    below = (source.folder or Path()).resolve()
    path = (below / name).resolve()
    if not path.is_relative_to(below):
        raise DataError(f"{name} lies outside of {below}: name its folder with --images-from")
    return path


def _check_fields(where: str, types: Mapping[str, str], fields: Sequence[str]) -> None:
    for name in fields:
        if name not in types:
            known = ", ".join(sorted(path for path in types if not mapping.is_reserved(path))[:20])
            raise ConfigError(f"{where} has no field {name!r}, expected one of {known or 'none'}")


def _check_source(name: str, mappings: Mapping[str, Any]) -> None:
    kept = mappings.get("_source", {})
    if kept.get("enabled") is False or kept.get("excludes") or kept.get("includes"):
        raise IndexMismatch(
            f"index {name} does not keep its documents whole (_source is {dict(kept)}), so an "
            "update would lose fields: reindex it without that"
        )
    taken = sorted(set(mapping.RESERVED_FIELDS) & set(mappings.get("properties", {})))
    if taken:
        raise IndexMismatch(
            f"index {name} has fields called {', '.join(taken)} of its own: rename them first"
        )


def _layout(address: Address, server: Server, settings: Mapping[str, Any]) -> Layout:
    """What an index that exists can be given: ``index.knn`` cannot be changed any more."""
    can = probe(server)
    if address.strategy == "long" or not can.knn:
        return LAYOUTS["long"]
    if str(settings.get("index.knn")) == "true":
        return LAYOUTS["lucene-hnsw"]
    return LAYOUTS["flat"]
