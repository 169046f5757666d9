"""IndexHandle: an opened index on a server, and the requests that operations consist of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, IndexMissing
from xmodal.index.contract import Hit
from xmodal.index.documents import to_offsets
from xmodal.index.filters import parse
from xmodal.index.validation import check_identity
from xmodal.modality import Modality
from xmodal_opensearch.client import bulk
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server, is_retryable
from xmodal_opensearch.index import codec, mapping, queries
from xmodal_opensearch.index.aliases import describe
from xmodal_opensearch.index.bit_order_check import check_bit_order
from xmodal_opensearch.index.capabilities import encodes_documents, probe
from xmodal_opensearch.index.queries import Query
from xmodal_opensearch.index.strategies import Strategy, check_writable, choose_strategy

QUERIES_PER_REQUEST = 32
SHARD_DOC_VERSION = (3, 3)
"""First version whose ``_shard_doc`` sorts equal positions of two shards apart."""


class IndexHandle:
    """An opened index: its description, and requests to it.

    ``name``, ``uuid``: of the concrete index behind the alias. ``enriched``: codes were added to
    existing documents of the user by ``xmodal-opensearch enrich``. ``changes``: number of bulk
    writes by this handle. Raises IndexMissing, IndexMismatch, ConfigError, ServerFailure.
    """

    def __init__(
        self, server: Server, address: Address, *, bits: int | None, fingerprint: str | None
    ) -> None:
        found = describe(server, address.index)
        if found is None:
            raise IndexMissing(f"no index {address.index} at {address.server}")
        self.server, self.address = server, address
        self.name, content = found
        mappings, settings = content["mappings"], content["settings"]
        self.uuid: str = settings["index.uuid"]
        self.bits, self._stored_fingerprint = mapping.read_meta(self.name, mappings)
        check_identity(
            str(address),
            bits=self.bits,
            fingerprint=self._stored_fingerprint,
            expected_bits=bits,
            expected_fingerprint=fingerprint,
        )
        self.fingerprint = self._stored_fingerprint or fingerprint
        self.layout = mapping.read_layout(self.name, self.bits, mappings, settings)
        self.capabilities = probe(server)
        self.strategy: Strategy = choose_strategy(
            address.strategy, self.capabilities, self.layout, address.natives
        )
        self._types = mapping.field_types(mappings)
        self.enriched = mapping.is_enriched(mappings)
        pipeline = settings.get("index.default_pipeline")
        self._skip_pipeline = pipeline is not None and encodes_documents(server, pipeline)
        self.changes = 0
        self._unrefreshed = False
        check_bit_order(server, address, self.name, self.bits, self.layout, self.strategy)

    def __repr__(self) -> str:
        version = ".".join(map(str, self.capabilities.version))
        return f"{self.name} on OpenSearch {version}, {self.bits} bits, {self.strategy.title}"

    def check_owned(self) -> None:
        """Raise ConfigError for an enriched index, whose documents xmodal does not write."""
        if self.enriched:
            raise ConfigError(
                f"{self.address} holds your own documents, to which codes were added: store or "
                "delete them directly in OpenSearch, then run xmodal-opensearch enrich again"
            )

    # ---- searching -----------------------------------------------------------------------------

    def filters(self, where: Mapping[str, Any] | None) -> list[Query]:
        """Return the filter queries of ``where``, and in an enriched index that of the encoder.

        Reads the mapping again for an unknown field.
        """
        conditions = parse(where)
        if any(condition.field not in self._types for condition in conditions):
            self.read_types()
        encoder = [{"term": {mapping.ENCODER: self.fingerprint}}] if self.enriched else []
        expensive = self.capabilities.scripts
        return [*encoder, *queries.filters(conditions, self._types, expensive=expensive)]

    def search(self, bodies: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Send several searches, and return the decoded answers."""
        answers: list[Any] = []
        for start in range(0, len(bodies), QUERIES_PER_REQUEST):
            part = bodies[start : start + QUERIES_PER_REQUEST]
            answers += self.server.search_many(self.name, part, doing="searching")
        return answers

    def count(self, query: Query) -> int:
        """Return the number of documents that match a query."""
        return self.server.count(self.name, query)

    @contextmanager
    def snapshot(self) -> Iterator[str]:
        """Open a point in time and yield its id; later writes do not change its pages."""
        opened = self.server.request(
            "POST", f"/{self.name}/_search/point_in_time", doing="paging", keep_alive="5m"
        )
        try:
            yield opened["pit_id"]
        finally:
            body = {"pit_id": [opened["pit_id"]]}
            self.server.request("DELETE", "/_search/point_in_time", body, doing="paging")

    def pages(self, body: Mapping[str, Any], *, doing: str) -> Iterator[Any]:
        """Yield the answers of a sorted search, page by page, until one has no hits."""
        with self.snapshot() as pit:
            after: dict[str, Any] = {}
            while True:
                page = {**body, "pit": {"id": pit, "keep_alive": "10m"}, **after}
                answer = self.server.search("/_search", page, doing=doing)
                hits = answer["hits"]["hits"]
                if not hits:
                    return
                yield answer
                after = {"search_after": hits[-1]["sort"]}

    def scan(
        self, query: Query, size: int, source: Sequence[str] | bool
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the hits of all documents of a query in any order, ``size`` per page.

        ``source``: the fields of ``_source`` to return, or False for none.
        """
        unique = "_shard_doc" if self.capabilities.version >= SHARD_DOC_VERSION else "_id"
        body: dict[str, Any] = {
            "size": size,
            "query": query,
            "sort": [{"_doc": "asc"}, {unique: "asc"}],
            "_source": source,
            "seq_no_primary_term": True,
            "track_total_hits": False,
        }
        for answer in self.pages(body, doing="reading"):
            yield answer["hits"]["hits"]

    # ---- writing -------------------------------------------------------------------------------

    def send(
        self,
        batches: Iterable[bulk.Batch],
        *,
        workers: int = 2,
        done: Callable[[bulk.Batch, bulk.Report], None] | None = None,
    ) -> bulk.Report:
        """Send bulk batches and return one report; ``done`` is called after each stored batch."""
        check_writable(self.layout, self.capabilities, self.address.natives)
        self._unrefreshed = True
        self.changes += 1
        return bulk.send(
            batches,
            # These documents have their codes: a pipeline of connect would encode them again.
            lambda body: self.server.bulk(self.name, body, skip_pipeline=self._skip_pipeline),
            is_retryable,
            workers=workers,
            retry_timeout=self.server.retry_timeout,
            on_sent=done,
        )

    def refresh(self) -> None:
        """Make the changes of this handle visible to searches."""
        if self._unrefreshed:
            self.refresh_always()
            self._unrefreshed = False

    def refresh_always(self) -> None:
        """Make all changes visible to searches, including those of other processes."""
        self.server.request("POST", f"/{self.name}/_refresh", doing="refreshing")

    # ---- mapping -------------------------------------------------------------------------------

    def read_types(self) -> Mapping[str, str]:
        """Return the type of every field, from the present mapping."""
        self._types = mapping.field_types(self._read_mapping())
        return self._types

    def has_nested_codes(self, modality: Modality) -> bool:
        """Return whether the mapping that was read last has the field of nested codes."""
        return self._types.get(mapping.nested_path(modality)) == "nested"

    def queries_nested(self, target: Modality) -> bool:
        """Return whether queries have a clause of documents with several codes of ``target``.

        A server without expensive queries refuses this clause. Raises ConfigError if the index has
        such documents there.
        """
        if self.capabilities.scripts:
            return True
        self.read_types()
        if self.has_nested_codes(target):
            raise ConfigError(
                f"{self.address} has documents with several {target} codes, and its server has "
                "search.allow_expensive_queries=false, which refuses nested queries: allow them, "
                "or store one code a document"
            )
        return False

    def map_nested_codes(self, modalities: Sequence[Modality]) -> None:
        """Add the fields of documents with several codes to the mapping, unless it has them.

        Raises ServerFailure if the index has another field of this name.
        """
        new = [modality for modality in modalities if not self.has_nested_codes(modality)]
        if new:
            # A repetition, also by another process, changes nothing.
            body = {"properties": mapping.nested_properties(self.bits, self.layout, new)}
            doing = "adding the fields for several codes"
            self.server.request("PUT", f"/{self.name}/_mapping", body, doing=doing)
            self.read_types()

    def map_origins(self) -> None:
        """Add the fields of origins to the mapping, unless it has them."""
        if mapping.ORIGIN not in self._types:
            body = {"properties": {"xmodal": {"properties": mapping.ORIGIN_PROPERTIES}}}
            doing = "adding the fields for sources"
            self.server.request("PUT", f"/{self.name}/_mapping", body, doing=doing)
            self.read_types()

    def read_meta(self) -> dict[str, Any]:
        """Return ``_meta`` of the present mapping."""
        found: dict[str, Any] = self._read_mapping().get("_meta", {})
        return found

    def write_meta(self, change: Mapping[str, Any]) -> None:
        """Change entries of ``_meta`` and keep the others; None removes an entry."""
        new = {k: v for k, v in {**self.read_meta(), **change}.items() if v is not None}
        body = {"_meta": new}
        self.server.request("PUT", f"/{self.name}/_mapping", body, doing="writing the mapping")

    def store_fingerprint(self) -> None:
        """Write the fingerprint into the mapping if it has none.

        Raises IndexMismatch if another process stored another fingerprint in the meantime.
        """
        if self.fingerprint is None or self._stored_fingerprint is not None:
            return
        _, stored = mapping.read_meta(self.name, {"_meta": self.read_meta()})
        check_identity(
            str(self.address),
            bits=self.bits,
            fingerprint=stored,
            expected_bits=self.bits,
            expected_fingerprint=self.fingerprint,
        )
        if stored is None:
            self.write_meta(mapping.build_meta(self.bits, self.fingerprint))
        self._stored_fingerprint = self.fingerprint

    def _read_mapping(self) -> Mapping[str, Any]:
        answer = self.server.request("GET", f"/{self.name}/_mapping", doing="reading the mapping")
        found: Mapping[str, Any] = answer[self.name]["mappings"]
        return found

    # ---- hits ----------------------------------------------------------------------------------

    def to_hits(self, answer: Mapping[str, Any], code: BinaryCodes, target: Modality) -> list[Hit]:
        """Return the hits of an answer to the search for ``code``.

        Distances are computed from the scores, and ``nearest`` from the nested codes in the answer.
        """
        found = answer["hits"]["hits"]
        objects = [
            hit.get("_source", {}).pop(mapping.nested_path(target), None) or () for hit in found
        ]
        stored = self.layout.object_codes([one for each in objects for one in each], self.bits)
        offsets = to_offsets([len(each) for each in objects])
        positions = [
            0 if nearest is None else nearest[1] for nearest in nearest_codes(code, stored, offsets)
        ]
        return [
            Hit(hit["_id"], codec.to_distance(hit["_score"]), hit.get("_source", {}), nearest=at)
            for hit, at in zip(found, positions, strict=True)
        ]


def nearest_codes(
    code: BinaryCodes, stored: BinaryCodes, offsets: npt.NDArray[np.int64]
) -> list[tuple[int, int] | None]:
    """Return distance and position of the nearest code of each document, None without codes.

    ``offsets``: the codes of document i are ``stored[offsets[i]:offsets[i + 1]]``. Of codes at
    equal distances the first is the nearest.
    """
    distances = code.distances(stored)[0]
    nearest: list[tuple[int, int] | None] = []
    for start, end in pairwise(offsets):
        at = int(distances[start:end].argmin()) if end > start else None
        nearest.append(None if at is None else (int(distances[start + at]), at))
    return nearest
