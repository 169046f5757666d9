"""Enriching: add codes to existing documents of an index, without other changes to them.

An enriched document stores the fingerprint of its encoder (``xmodal.encoder``). A run skips the
documents that have it, so that it continues a stopped run and encodes new documents. Nothing else
records the progress: the same command continues after a kill. Documents are read, encoded and
written at the same time, and in memory there are only a few pages of them.

The server rejects the update of a document that changed since it was read; it is read again at the
end. Searches return documents of one encoder only.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.errors import DataError, ServerFailure
from xmodal.modality import MODALITIES, Modality
from xmodal.vectors import Int8
from xmodal.web.address import is_address, without_secrets
from xmodal_opensearch.client import bulk
from xmodal_opensearch.index.bulk_lines import code_source
from xmodal_opensearch.index.handle import IndexHandle
from xmodal_opensearch.index.mapping import (
    ENCODER,
    INCOMPLETE,
    Layout,
    field_of,
    nested_path,
    vector_field,
)
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.loading.document_sources import NOT_AVAILABLE, Source
from xmodal_opensearch.loading.pacing import Throttle, ahead
from xmodal_opensearch.loading.selection import Selection, documents_with_fields
from xmodal_opensearch.loading.shard_reader import PAGE, Hit, ShardReader, last_numbers


class Encoded(Protocol):
    """Codes of one modality, as the encoders of xmodal return them.

    ``ids``: of the n items that have any. ``offsets``, (n + 1,): the codes of item i are
    ``codes[offsets[i]:offsets[i + 1]]``. ``positions``: of each code's source among those of its
    item. ``vectors``: one per code, or None.
    """

    @property
    def ids(self) -> list[str]: ...
    @property
    def codes(self) -> BinaryCodes: ...
    @property
    def offsets(self) -> npt.NDArray[np.int64]: ...
    @property
    def positions(self) -> npt.NDArray[np.int64]: ...
    @property
    def vectors(self) -> Int8 | None: ...


Encode = Callable[[Dataset], Mapping[Modality, Encoded]]
"""Returns codes by modality; unusable pictures and texts are added to the dataset's problems."""

PICTURES_PAGE = 128
"""Documents of a page with pictures, which may be downloaded into a temporary folder."""
DOWNLOADS = 16
"""Downloads at the same time."""
MAX_ROUNDS = 5
"""Readings of the documents that changed while they were encoded, at most."""
MAX_REFUSED = 200
"""Refused documents, without a stored one, after which a run ends."""
NOT_USABLE: dict[Modality, str] = {"image": "picture not usable", "text": "text not usable"}
CONFLICT, MISSING = "version conflict", "document missing"


@dataclass
class Result:
    """Numbers of documents: read, updated, ``changed`` while they were encoded, and refused."""

    read: int = 0
    updated: int = 0
    changed: int = 0
    refused: int = 0


@dataclass
class _Page:
    """Documents with their pictures and texts, by number: two documents may have one id.

    ``names``: of the pictures, by item and position. ``unavailable``: numbers of documents of which
    a picture has no file.
    """

    hits: list[Hit]
    folder: Path
    items: list[Item] = field(default_factory=list)
    names: list[list[str]] = field(default_factory=list)
    unavailable: set[int] = field(default_factory=set)


def enrich(
    index: OpenSearchIndex,
    source: Source,
    encode: Encode,
    *,
    selection: Selection | None = None,
    problems: Problems,
    workers: int = 2,
    docs_per_second: float | None = None,
    progress: Progress | None = None,
) -> Result:
    """Store codes of the selected documents.

    ``problems``: unusable pictures and texts, and refused updates, are added with the ids of their
    documents. ``workers``: bulk requests at the same time. ``docs_per_second``: documents that are
    read at most. Raises ServerFailure if the server is unavailable for longer than the client's
    retries, or refuses the first updates without accepting any.
    """
    selection = selection or Selection()
    run = _Run(index, source, encode, problems, Throttle(docs_per_second), progress)
    handle = index.handle
    handle.refresh_always()  # documents of other processes are not visible before
    types, place = handle.read_types(), str(handle.address)
    query = documents_with_fields(handle.server, place, handle.name, types, source.fields)
    query = {"bool": {"filter": [query, *selection.filters(str(index.fingerprint))]}}
    run.total = handle.count(query) // selection.share.count
    reader = ShardReader(
        handle.server,
        handle.name,
        handle.shards,
        query,
        [*source.fields, ENCODER, INCOMPLETE],
        selection.share,
        max_page=math.ceil(min(docs_per_second or PAGE, PICTURES_PAGE if source.image else PAGE)),
        # Documents that are encoded again come again, with higher numbers.
        ends=last_numbers(handle.server, handle.name, handle.shards)
        if selection.again or selection.incomplete
        else None,
    )
    with tempfile.TemporaryDirectory(prefix="xmodal-") as folder:
        for _ in range(MAX_ROUNDS):
            if not run.round(reader, Path(folder), workers):
                break
            handle.refresh_always()
    return run.result


@dataclass
class _Run:
    """One run of :func:`enrich`."""

    index: OpenSearchIndex
    source: Source
    encode: Encode
    problems: Problems
    throttle: Throttle
    progress: Progress | None
    total: int = 0
    result: Result = field(default_factory=Result)

    def round(self, reader: ShardReader, folder: Path, workers: int) -> int:
        """Encode and store all documents of the reader; return their number."""
        before = self.result.read
        self.index.handle.send(self._batches(reader, folder), workers=workers, done=self._sent)
        return self.result.read - before

    def _batches(self, reader: ShardReader, folder: Path) -> Iterator[bulk.Batch]:
        with ThreadPoolExecutor(DOWNLOADS, thread_name_prefix="xmodal-download") as pool:
            pages = (self._collect(hits, folder, pool) for hits in reader.pages())
            for page, problems in ahead(pages):
                self.problems.extend(problems)
                batch = self._encode(page)
                shutil.rmtree(page.folder, ignore_errors=True)
                self.result.read += len(page.hits)
                if self.progress is not None:
                    self.progress("encoded", self.result.read, max(self.total, self.result.read))
                if batch:
                    yield batch

    def _sent(self, batch: bulk.Batch, report: bulk.Report) -> None:
        """Count the results of one batch; the reasons of refusals become problems."""
        self.result.updated += report.stored
        for id_, reason in report.failed.items():
            if CONFLICT in reason or MISSING in reason:  # changed or deleted by another process
                self.result.changed += 1
            else:
                self.result.refused += 1
                self.problems.add(f"update refused ({reason[:100]})", id_)
                if self.result.refused >= MAX_REFUSED and self.result.updated == 0:
                    raise ServerFailure(
                        f"{self.index.handle.address}: the first {self.result.refused} updates "
                        f"were refused: {reason}",
                        0,
                        reason,
                    )
        report.failed.clear()

    def _collect(
        self, hits: list[Hit], folder: Path, pool: ThreadPoolExecutor
    ) -> tuple[_Page, Problems]:
        """Return the pictures and texts of documents; files are downloaded into a new folder."""
        self.throttle.wait(len(hits))
        page, problems = _Page(hits, Path(tempfile.mkdtemp(dir=folder))), Problems()
        documents = [(hit["_id"], hit.get("_source", {})) for hit in hits]
        names = [self.source.pictures(id_, document, problems) for id_, document in documents]
        addresses = {name for one in names for name in one if is_address(name)}
        files = dict(
            zip(
                addresses,
                pool.map(lambda name: self._file(name, page.folder), addresses),
                strict=True,
            )
        )
        for number, (id_, document) in enumerate(documents):
            found: list[tuple[str, Path]] = []
            for name in names[number]:
                file = files[name] if name in files else self._file(name, page.folder)
                if isinstance(file, Path):
                    found.append((name, file))
                else:
                    page.unavailable.add(number)
                    problems.add(NOT_AVAILABLE, f"{id_} ({file})")
            page.names.append([name for name, _ in found])
            images = tuple(file for _, file in found)
            texts = tuple(self.source.texts(id_, document, problems))
            page.items.append(Item(str(number), images, texts))
        return page, problems

    def _file(self, name: str, folder: Path) -> Path | str:
        """Return the file of a picture, or the reason why there is none."""
        try:
            return self.source.file_of(name, folder)
        except (DataError, OSError) as error:  # OSError: a full disk
            return str(error)

    def _encode(self, page: _Page) -> bulk.Batch:
        """Return the updates of one page of documents."""
        problems = Problems()
        data = Dataset(tuple(page.items), name=str(self.index.handle.address), problems=problems)
        encoded = self.encode(data)
        self._name_unusable(page, encoded, problems)
        handle = self.index.handle
        several = [
            modality for modality, one in encoded.items() if (np.diff(one.offsets) > 1).any()
        ]
        handle.read_types()  # another process may have added the fields for several codes
        dims = {one.vectors.shape[1] for one in encoded.values() if one.vectors is not None}
        stores_vectors = handle.store_vectors(dims.pop() if dims else None)
        handle.map_nested_codes(several)
        codes = {
            modality: _codes_by_item(handle.layout, one, stores_vectors)
            for modality, one in encoded.items()
        }
        batch: bulk.Batch = []
        for number, hit in enumerate(page.hits):
            own = {modality: codes[modality].get(str(number), ([], [])) for modality in MODALITIES}
            change = _change(hit, own, number in page.unavailable, handle)
            if change is not None:
                seen = hit["_seq_no"], hit["_primary_term"]
                batch.append(
                    bulk.update_line(hit["_id"], change, version=seen, routing=hit.get("_routing"))
                )
        return batch

    def _name_unusable(
        self, page: _Page, encoded: Mapping[Modality, Encoded], problems: Problems
    ) -> None:
        """Record the sources without a code by the ids of their documents."""
        reasons = [line for kind in problems.count_by_kind() for line in problems.names(kind)]
        for modality, one in encoded.items():
            coded = {
                (id_, int(position))
                for id_, (start, end) in zip(one.ids, pairwise(one.offsets), strict=True)
                for position in one.positions[start:end]
            }
            for item, hit, names in zip(page.items, page.hits, page.names, strict=True):
                for position, content in enumerate(item.sources(modality)):
                    if (item.id, position) in coded:
                        continue
                    reason = _reason(str(content), reasons)
                    if modality == "image":
                        reason = f"{without_secrets(names[position])}{reason}"
                    else:
                        reason = f"{content!s:.60}{reason}"
                    self.problems.add(NOT_USABLE[modality], f"{hit['_id']} ({reason})")


def _change(
    hit: Hit,
    codes: Mapping[Modality, tuple[list[Any], list[Any]]],
    is_incomplete: bool,
    handle: IndexHandle,
) -> dict[str, Any] | None:
    """Return the fields to change in a document, or None for no change.

    None as a value removes a field of an earlier run. A picture that is not available now does not
    remove the codes that this encoder computed before.
    """
    before = hit.get("_source", {}).get("xmodal") or {}
    fields: dict[str, Any] = {}
    for modality in MODALITIES:
        values, vectors = codes[modality]
        keeps = modality == "image" and is_incomplete and not values
        if before.get("encoder") and not (keeps and before["encoder"] == handle.fingerprint):
            fields[field_of(modality)] = None
            if handle.dim is not None:
                fields[vector_field(modality)] = None
            if handle.has_nested_codes(modality):
                fields[nested_path(modality)] = None
        fields |= code_source(modality, values, vectors, handle.layout)
    has_codes = any(value is not None for value in fields.values())
    if not has_codes and (is_incomplete or not before.get("encoder")):
        return None
    own = {"id": hit["_id"], "encoder": handle.fingerprint if has_codes else None}
    if is_incomplete or before.get("incomplete"):
        own["incomplete"] = is_incomplete or None
    return {"xmodal": own, **fields}


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


def _reason(source: str, reasons: Sequence[str]) -> str:
    """Return what the encoder recorded about a source, without the source, or ""."""
    for line in reasons:
        if line.startswith(source):
            return f": {line.removeprefix(source).lstrip(': ').strip('()')}"
    return ""
