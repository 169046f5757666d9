"""IndexHandle: an opened index on a server, and the requests that operations consist of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from xmodal.errors import CodeError, ConfigError, IndexMissing
from xmodal.index.documents import DocumentBatch
from xmodal.index.filters import parse
from xmodal.index.validation import check_identity
from xmodal.modality import MODALITIES, Modality
from xmodal_opensearch.client import bulk
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server, is_retryable
from xmodal_opensearch.index import mapping, queries
from xmodal_opensearch.index.aliases import describe
from xmodal_opensearch.index.bit_order_check import check_bit_order
from xmodal_opensearch.index.capabilities import encodes_documents, probe
from xmodal_opensearch.index.queries import Query
from xmodal_opensearch.index.strategies import Strategy, check_writable, choose_strategy

QUERIES_PER_REQUEST = 32
HAMMING_WINDOW_FACTOR = 4
"""Enlargement of the window where the first stage is by Hamming distance, without weights."""
SHARD_DOC_VERSION = (3, 3)
"""First version whose ``_shard_doc`` sorts equal positions of two shards apart."""


class IndexHandle:
    """An opened index: its description, and requests to it.

    ``name``, ``uuid``: of the concrete index behind the alias. ``enriched``: codes were added to
    existing documents of the user by ``xmodal-opensearch enrich``. ``changes``: number of bulk
    writes by this handle. ``self_test``: result of the check of the bit order. Raises IndexMissing,
    IndexMismatch, ConfigError, ServerFailure.
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
        mapping.check_visible(self.name, mappings)
        self.layout = mapping.read_layout(self.name, self.bits, mappings, settings)
        self.capabilities = probe(server)
        self.strategy: Strategy = choose_strategy(
            address.strategy, self.capabilities, self.layout, address.natives
        )
        self._types = mapping.field_types(mappings)
        self.dim = mapping.read_dim(mappings)
        self.has_vector_fields = mapping.has_vector_fields(mappings)
        self.has_words = mapping.has_words(mappings)
        self._stores_vectors: bool | None = None
        self.shards = int(settings["index.number_of_shards"])
        self.enriched = mapping.is_enriched(mappings)
        pipeline = settings.get("index.default_pipeline")
        self._skip_pipeline = pipeline is not None and encodes_documents(server, pipeline)
        self.changes = 0
        self._unrefreshed = False
        self.self_test = check_bit_order(
            server, address, self.name, self.bits, self.layout, self.strategy
        )

    def __repr__(self) -> str:
        version = ".".join(map(str, self.capabilities.version))
        notes = [f"{self.bits} bits", self.strategy.title]
        notes.append("no vectors stored" if self.dim is None else f"vectors of {self.dim} numbers")
        if not self.weighs:
            notes.append(f"weights among {HAMMING_WINDOW_FACTOR} x window documents by Hamming")
        if not (self.has_words or self.enriched):
            notes.append("no words: texts as the server divides them")
        return f"{self.name} on OpenSearch {version}, {', '.join(notes)}"

    @property
    def weighs(self) -> bool:
        """Whether the server ranks all documents by weighted distances."""
        return self.strategy.weighs or self.has_two_stage

    @property
    def has_two_stage(self) -> bool:
        """Whether the hamming plugin, with weights and vectors, is used."""
        return self.strategy.needs_hamming and self.capabilities.two_stage

    @property
    def build_vector(self) -> queries.BuildVector:
        """The builder of queries by vectors, if the server compares them."""
        return queries.by_vector_cosine if self.has_two_stage else queries.by_vector_script

    @property
    def compares_vectors(self) -> bool:
        """Whether the server compares the stored vectors, by the plugin or by a script."""
        return self.layout.compares_vectors and (self.has_two_stage or self.capabilities.scripts)

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

    def search(
        self, bodies: Sequence[Mapping[str, Any]], *, global_statistics: bool = False
    ) -> list[Any]:
        """Send several searches, and return the decoded answers.

        ``global_statistics``: scores of BM25 use the statistics of all shards.
        """
        kind = "dfs_query_then_fetch" if global_statistics and self.shards > 1 else None
        answers: list[Any] = []
        for start in range(0, len(bodies), QUERIES_PER_REQUEST):
            part = bodies[start : start + QUERIES_PER_REQUEST]
            answers += self.server.search_many(self.name, part, doing="searching", kind=kind)
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
        """Return the type of every field, from the present mapping; reads ``dim``, too."""
        mappings = self._read_mapping()
        self._types = mapping.field_types(mappings)
        self.dim = mapping.read_dim(mappings)
        self.has_vector_fields = mapping.has_vector_fields(mappings)
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
            properties = mapping.nested_properties(self.bits, self.layout, new, self.dim)
            body = {"properties": properties}
            doing = "adding the fields for several codes"
            self.server.request("PUT", f"/{self.name}/_mapping", body, doing=doing)
            self.read_types()

    def with_storable_vectors(self, batch: DocumentBatch) -> DocumentBatch:
        """Return a batch without vectors if the index stores none; map their fields otherwise.

        The first documents of an empty index decide whether it stores vectors. Raises CodeError for
        documents without vectors in an index with vectors, or of another dimension.
        """
        stored = len(batch) == 0 or self.store_vectors(batch.dim)
        return batch if stored else batch.without_vectors()

    def store_vectors(self, dim: int | None) -> bool:
        """Return whether the index stores the vectors of documents; map their fields if it does.

        ``dim``: of the vectors, or None without. Raises CodeError as ``with_storable_vectors``.
        """
        if self.dim is None and self._stores_vectors is None:
            self._decide_vectors(dim)
        if self.dim is not None and dim is None and self.is_empty():
            self.write_meta(mapping.with_meta(self.read_meta(), dim=None))
            self.read_types()
        if self.dim is not None and dim != self.dim:
            found = "no vectors" if dim is None else f"vectors of {dim} dimensions"
            raise CodeError(
                f"these documents have {found}, {self.address} holds vectors of {self.dim}: use "
                "the encoder that filled the index, or load all documents into a new index"
            )
        return self.dim is not None

    def _decide_vectors(self, dim: int | None) -> None:
        """Add the fields of vectors if the index is empty; read them if another process did."""
        self.read_types()
        is_free = self.has_vector_fields or not any(
            mapping.vector_field(modality) in self._types for modality in MODALITIES
        )
        if self.dim is None and dim is not None and is_free and self.is_empty():
            properties = mapping.vector_properties(self.layout, dim)
            several = [modality for modality in MODALITIES if self.has_nested_codes(modality)]
            properties |= mapping.nested_properties(self.bits, self.layout, several, dim)
            doing = "adding the fields for vectors"
            self.write_meta(mapping.with_meta(self.read_meta(), dim=dim), properties, doing=doing)
            self.read_types()
        self._stores_vectors = self.dim is not None

    def forget_decision(self) -> None:
        """Let the next documents decide again whether the index, if empty, stores vectors."""
        self._stores_vectors = None

    def is_empty(self) -> bool:
        """Return whether the index has no document, or if enriched none of this encoder."""
        self.refresh_always()
        stored = [{"exists": {"field": mapping.ID}}, *self.filters(None)]
        return self.count({"bool": {"filter": stored}}) == 0

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

    def write_meta(
        self,
        change: Mapping[str, Any],
        properties: Mapping[str, Any] | None = None,
        *,
        doing: str = "writing the mapping",
    ) -> None:
        """Change entries of ``_meta`` and keep the others; None removes an entry.

        ``properties``: fields that are added to the mapping by the same request.
        """
        new = {k: v for k, v in {**self.read_meta(), **change}.items() if v is not None}
        body = {"_meta": new, "properties": dict(properties or {})}
        self.server.request("PUT", f"/{self.name}/_mapping", body, doing=doing)

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
            self.write_meta(mapping.with_meta(self.read_meta(), encoder=self.fingerprint))
        self._stored_fingerprint = self.fingerprint

    def _read_mapping(self) -> Mapping[str, Any]:
        answer = self.server.request("GET", f"/{self.name}/_mapping", doing="reading the mapping")
        found: Mapping[str, Any] = answer[self.name]["mappings"]
        return found
