"""IndexHandle: an opened index on a server, and the requests that operations consist of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from xmodal.errors import CodeError, ConfigError
from xmodal.index.documents import DocumentBatch
from xmodal.index.filters import parse
from xmodal.index.validation import check_identity
from xmodal.modality import MODALITIES, Modality
from xmodal_opensearch.client import bulk
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server, is_repeated, is_retryable
from xmodal_opensearch.index import filter_queries, mapping, queries, write_guard
from xmodal_opensearch.index.bit_order_check import (
    check_bit_order,
    check_unmasked,
    hides_documents,
    store_self_test,
)
from xmodal_opensearch.index.capabilities import encodes_documents, probe
from xmodal_opensearch.index.description import (
    check_conditions,
    describe_codes,
    read_fields,
)
from xmodal_opensearch.index.queries import Query
from xmodal_opensearch.index.remote import is_remote
from xmodal_opensearch.index.scope import Contents, read_scope
from xmodal_opensearch.index.scoped_reads import ScopedReads
from xmodal_opensearch.index.strategies import Strategy, check_writable, choose_strategy

HAMMING_WINDOW_FACTOR = 4
"""Enlargement of the window where the first stage is by Hamming distance, without weights."""


class IndexHandle(ScopedReads):
    """An opened index: its description, and requests to it.

    ``scope``: the indexes that the address covers. ``name``, ``uuid``: of the index to which
    documents are written; without one, of the first of the scope. ``enriched``: codes were added to
    existing documents of the user by ``xmodal-opensearch enrich``. ``changes``: number of bulk
    writes by this handle. ``window``: largest number of hits of one request. ``unchecked``: indexes
    whose self-test document is hidden from the user. ``is_restricted``: whether document-level
    security may hide documents. Raises IndexMissing, IndexMismatch, ConfigError, ServerFailure.
    """

    def __init__(
        self, server: Server, address: Address, *, bits: int | None, fingerprint: str | None
    ) -> None:
        contents = self._open_scope(server, address)
        self.name = self.scope.write_index or self.scope.indexes[0]
        self.uuid: str = self.scope.uuids[self.scope.indexes.index(self.name)]
        self._describe(contents, bits, fingerprint)
        self.capabilities = probe(server)
        self.strategy: Strategy = choose_strategy(
            self._strategy_name(), self.capabilities, self.layout, address.natives
        )
        self._stores_vectors: bool | None = None
        settings = contents[self.name]["settings"]
        pipeline = settings.get("index.default_pipeline")
        self._skip_pipeline = pipeline is not None and encodes_documents(server, pipeline)
        self._guard = write_guard.find_guard(self.name, contents[self.name]["aliases"])
        self._is_guarded = False
        self.changes = 0
        self._unrefreshed = False
        self.unchecked: list[str] = []
        self.is_restricted = False
        self._check_bit_order(contents)

    def _strategy_name(self) -> str | None:
        """Return the strategy of the address; by script in a cluster with unknown plugins."""
        is_by_script = self.scope.has_remote and self.layout.is_vector
        return self.address.strategy or ("script" if is_by_script else None)

    def _describe(self, contents: Contents, bits: int | None, fingerprint: str | None) -> None:
        """Set the description of the codes; raise IndexMismatch if these are not comparable."""
        found = describe_codes(str(self.address), contents)
        check_identity(
            str(self.address),
            bits=found.bits,
            fingerprint=found.fingerprint,
            expected_bits=bits,
            expected_fingerprint=fingerprint,
        )
        self.bits, self._stored_fingerprint = found.bits, found.fingerprint
        self.fingerprint = found.fingerprint or fingerprint
        self.layout, self.has_words, self.shards = found.layout, found.has_words, found.shards
        self._encoded = found.encoded
        self.enriched = len(found.encoded) > 0
        self._set_fields({name: content["mappings"] for name, content in contents.items()})

    def _adopt(self, contents: Contents) -> None:
        self._describe(contents, self.bits, self.fingerprint)
        self._check_bit_order(contents)

    def _check_bit_order(self, contents: Contents) -> None:
        """Check the self-test documents of indexes; data streams have none.

        Of several indexes one has to have it: the server makes the next index of a rollover alias.
        """
        names = [name for name, content in contents.items() if "data_stream" not in content]
        names = [name for name in names if not is_remote(name)]  # these are read above
        if len(contents) > 1 and names:
            names = self._with_self_test(names) or names[:1]
        for name in names:
            of_index = (self.server, self.address, name, self.bits, self.layout, self.strategy)
            result = check_bit_order(*of_index)
            if self.capabilities.secured:
                check_unmasked(*of_index)
            self.is_restricted |= result.restricted
            self.unchecked += [] if result.checked else [name]

    def _with_self_test(self, names: Sequence[str]) -> list[str]:
        """Return the names of the indexes that have a self-test document."""
        query = {"ids": {"values": [mapping.SELF_TEST_ID]}}
        body = {"size": len(names), "query": query, "_source": False}
        path = f"/{self.scope.target}/_search" if len(names) > 50 else f"/{','.join(names)}/_search"
        answer = self.server.search(path, body, doing="reading self-test documents")
        found = {hit["_index"] for hit in answer["hits"]["hits"]}
        return [name for name in names if name in found]

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
        """Raise ConfigError for a scope or index whose documents xmodal does not write.

        These are scopes of several indexes or with a filter, and enriched indexes.
        """
        self.check_writable()
        if self.enriched:
            raise ConfigError(
                f"{self.address} holds your own documents, to which codes were added: store or "
                "delete them directly in OpenSearch, then run xmodal-opensearch enrich again"
            )

    def check_writable(self) -> None:
        """Raise ConfigError for a scope without an index to which documents can be written."""
        if self.scope.write_index is None:
            raise ConfigError(f"{self.address} is read only: {self.scope.read_only}")

    @property
    def _queries_have_filters(self) -> bool:
        """Whether queries may be of k-NN, which applies only its own filters before it selects."""
        return self.strategy.build is None or self.layout.has_graph

    # ---- searching -----------------------------------------------------------------------------

    def filters(self, where: Mapping[str, Any] | None) -> list[Query]:
        """Return the filter queries of ``where``, and in an enriched index that of the encoder.

        They contain the filter of an alias where queries are of k-NN; elsewhere the server applies
        it. Reads the mapping again for an unknown field.
        """
        conditions = parse(where)
        if any(condition.field not in self._types for condition in conditions):
            self.read_types()
        check_conditions(conditions, self._fields)
        own = list(self.scope.filters) if self._queries_have_filters else []
        expensive = self.capabilities.scripts
        return [
            *own,
            *self._encoder_filter(),
            *filter_queries.filters(conditions, self._types, expensive=expensive),
        ]

    def _encoder_filter(self) -> list[Query]:
        """Return the filter of documents of this encoder, which those of enriched indexes name."""
        if not self.enriched:
            return []
        encoded: Query = {"term": {mapping.ENCODER: self.fingerprint}}
        others = [name for name in self.scope.indexes if name not in self._encoded]
        if self.scope.has_remote:  # a filter by index is not possible in another cluster
            unnamed = {"bool": {"must_not": [{"exists": {"field": mapping.ENCODER}}]}}
            return [queries.any_of([encoded, unnamed])]
        return [queries.any_of([encoded, {"terms": {"_index": others}}]) if others else encoded]

    def check_restrictions(self) -> bool:
        """Return whether document-level security may hide documents now, and keep the answer."""
        self.is_restricted |= any(hides_documents(self.server, one) for one in self.scope.indexes)
        return self.is_restricted

    # ---- writing -------------------------------------------------------------------------------

    def send(
        self,
        batches: Iterable[bulk.Batch],
        *,
        workers: int = 2,
        done: Callable[[bulk.Batch, bulk.Report], None] | None = None,
    ) -> bulk.Report:
        """Send bulk batches and return one report; ``done`` is called after each stored batch."""
        self.check_writable()
        check_writable(self.layout, self.capabilities, self.address.natives)
        self._unrefreshed = True
        self.changes += 1
        target = self.write_target()
        report = bulk.send(
            batches,
            # These documents have their codes: a pipeline of connect would encode them again.
            lambda body: self.server.bulk(
                target, body, skip_pipeline=self._skip_pipeline, is_alias=target != self.name
            ),
            is_retryable,
            is_repeated=is_repeated,
            workers=workers,
            retry_timeout=self.server.retry_timeout,
            on_sent=done,
        )
        if target == self.name:
            write_guard.check_uuid(self.server, self.name, self.uuid)
        return report

    def write_target(self) -> str:
        """Return the alias through which this index is written, or its name; see write_guard.py.

        Raises IndexMissing if the index was deleted, or deleted and created again.
        """
        if not self._is_guarded:
            self._guard = write_guard.prepare_guard(self.server, self.name, self.uuid, self._guard)
            self._is_guarded = True
        return self._guard or self.name

    def refresh(self) -> None:
        """Make the changes of this handle visible to searches."""
        if self._unrefreshed:
            self.refresh_always()
            self._unrefreshed = False

    def refresh_always(self) -> None:
        """Make all changes visible to searches, including those of other processes.

        A remote cluster refreshes its indexes by itself.
        """
        local = ",".join(name for name in self.scope.target.split(",") if not is_remote(name))
        if local:
            name = local if self.scope.has_several else self.name
            self.server.request("POST", f"/{name}/_refresh", doing="refreshing")

    # ---- mapping -------------------------------------------------------------------------------

    def read_types(self) -> Mapping[str, str]:
        """Return the type of every field, from the present mapping; reads ``dim``, too."""
        self._set_fields(self._read_mappings())
        return self._types

    def _set_fields(self, mappings: Mapping[str, Mapping[str, Any]]) -> None:
        self._fields = read_fields(str(self.address), mappings)
        self._types, self.dim = self._fields.types, self._fields.dim
        self.has_vector_fields = self._fields.has_vectors

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
            self.server.request("PUT", f"/{self.write_target()}/_mapping", body, doing=doing)
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
            self.server.request("PUT", f"/{self.write_target()}/_mapping", body, doing=doing)
            self.read_types()

    def read_meta(self) -> dict[str, Any]:
        """Return ``_meta`` of the present mapping."""
        found: dict[str, Any] = self._read_mappings()[self.name].get("_meta", {})
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
        self.server.request("PUT", f"/{self.write_target()}/_mapping", body, doing=doing)

    def store_fingerprint(self) -> None:
        """Write the fingerprint into the mapping if it has none.

        Raises IndexMismatch if another process stored another fingerprint in the meantime.
        """
        if self.fingerprint is None or self._stored_fingerprint is not None:
            return
        self.check_writable()
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
            store_self_test(self.server, self.name, self.bits, self.layout)
        self._stored_fingerprint = self.fingerprint

    def _read_mappings(self) -> dict[str, Any]:
        """Return the mapping of each index."""
        target = self.scope.target if self.scope.has_several else self.name
        if self.scope.has_remote:
            found = read_scope(self.server, target)
            return {name: one["mappings"] for name, one in (found[1] if found else {}).items()}
        answer = self.server.request("GET", f"/{target}/_mapping", doing="reading the mapping")
        known = self.scope.indexes
        return {name: one["mappings"] for name, one in answer.items() if name in known}
