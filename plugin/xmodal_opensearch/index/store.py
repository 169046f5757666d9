"""OpenSearchIndex: the contract of an index, and the further searches of OpenSearch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from xmodal.codes import BinaryCodes
from xmodal.errors import BulkFailure, ConfigError, IndexMissing, ServerFailure
from xmodal.index.contract import WINDOW, Facets, Hit, Hits, WordsHit, WordsQuery
from xmodal.index.documents import Codes, DocumentBatch, to_batch
from xmodal.index.origins import Entry
from xmodal.index.query_codes import QueryCodes, to_query_codes
from xmodal.index.validation import check_ids, check_search, check_width
from xmodal.modality import Modality
from xmodal_opensearch.client import bulk
from xmodal_opensearch.client.address import Address, parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import two_stage
from xmodal_opensearch.index.approximate import (
    RECALL_QUERIES,
    ApproximateHits,
    Recall,
    measure_recall,
    search_graph,
)
from xmodal_opensearch.index.bulk_lines import index_lines, is_usable, several_codes
from xmodal_opensearch.index.capabilities import probe
from xmodal_opensearch.index.creation import make_version
from xmodal_opensearch.index.explain import Explanation, explain
from xmodal_opensearch.index.handle import IndexHandle
from xmodal_opensearch.index.listing import count_codes, disk_usage, list_entries
from xmodal_opensearch.index.reading import (
    count_documents,
    count_target,
    measure,
    read_batch,
    read_facets,
)
from xmodal_opensearch.index.scope import check_single, read_scope
from xmodal_opensearch.index.strategies import choose_strategy
from xmodal_opensearch.index.words_search import search_words


def open_opensearch(
    uri: str,
    *,
    bits: int | None = None,
    fingerprint: str | None = None,
    create: bool = False,
) -> OpenSearchIndex:
    """Open the index at ``opensearch://host:9200/name`` (see client/address.py).

    ``create``: create a missing index of ``bits`` bits. ``fingerprint``: of the encoder. Raises
    IndexMissing, IndexMismatch, ServerFailure, ConfigError.
    """
    address = parse_address(uri)
    server = Server(address)
    try:
        found = read_scope(server, address.index)
        if found is None:
            if not create:
                raise IndexMissing(
                    f"no index {address.index} at {address.server}: make one with "
                    f"xmodal index DATA --index {uri}"
                )
            check_single(address.index)
            if bits is None:
                raise ConfigError(
                    f"bits is None, expected the width of the codes of a new index at {uri}"
                )
            strategy = choose_strategy(address.strategy, probe(server), None, address.natives)
            try:
                make_version(
                    server, address, bits, fingerprint, strategy.makes, alias=address.index
                )
            except ServerFailure:
                # Another process may have created the index at the same time: open that one.
                if read_scope(server, address.index) is None:
                    raise
        return OpenSearchIndex(server, address, bits=bits, fingerprint=fingerprint)
    except BaseException:
        server.close()
        raise


class OpenSearchIndex:
    """Codes in OpenSearch; see :class:`xmodal.index.contract.Index` for the contract.

    ``handle`` holds the description of the opened index and its requests.
    """

    def __init__(
        self, server: Server, address: Address, *, bits: int | None, fingerprint: str | None
    ) -> None:
        self.handle = IndexHandle(server, address, bits=bits, fingerprint=fingerprint)
        self._recalls: dict[tuple[Modality, int], Recall] = {}
        self._recalls_changes = self.handle.changes

    def __repr__(self) -> str:
        return repr(self.handle)

    @property
    def bits(self) -> int:
        """Width of every code in the index."""
        return self.handle.bits

    @property
    def dim(self) -> int | None:
        """Dimension of the stored vectors, or None without vectors."""
        return self.handle.dim

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the encoder of the stored codes, or None if unknown."""
        return self.handle.fingerprint

    def add(
        self,
        documents: DocumentBatch | Sequence[str],
        *,
        image: Codes | None = None,
        text: Codes | None = None,
        fields: Sequence[Mapping[str, Any]] | None = None,
    ) -> int:
        """Store documents; see the contract. Raises BulkFailure with the refused documents."""
        batch = to_batch(documents, image=image, text=text, fields=fields)
        check_width(batch.bits, self.bits)
        self.handle.check_owned()
        # All lines are built before the first is sent, so that an invalid batch changes nothing.
        handle = self.handle
        batch = handle.with_storable_vectors(batch)
        lines = {
            line.id: line for line in index_lines(batch, handle.layout, words=handle.has_words)
        }
        self.handle.store_fingerprint()
        self.handle.map_nested_codes(several_codes(batch))
        if batch.origins:
            self.handle.map_origins()
        report = self.handle.send(bulk.batches(lines.values()))
        self._check_accepted(report, len(lines), "stored")
        return len(batch)

    def search(
        self,
        queries: BinaryCodes | QueryCodes,
        k: int,
        *,
        target: Modality,
        where: Mapping[str, Any] | None = None,
        radius: int | None = None,
        window: int = WINDOW,
    ) -> Hits:
        """Return the best ``k`` documents for each query; see the contract.

        Servers without the hamming plugin, except with 64-bit words, compute weights only for the
        first 4 x ``window`` documents by Hamming distance.
        """
        return self.handle.consistent(
            lambda: two_stage.search(
                self.handle, queries, k, target=target, where=where, radius=radius, window=window
            )
        )

    def search_words(
        self,
        queries: Sequence[WordsQuery],
        k: int,
        *,
        target: Modality,
        where: Mapping[str, Any] | None = None,
        text_field: str | None = None,
    ) -> list[list[WordsHit]]:
        """Return the best ``k`` documents for each query by BM25; see index/words_search.py."""
        return self.handle.consistent(
            lambda: search_words(
                self.handle, queries, k, target=target, where=where, text_field=text_field
            )
        )

    def measure(
        self, query: BinaryCodes | QueryCodes, ids: Sequence[str], *, target: Modality
    ) -> dict[str, Hit]:
        """Return the hits that documents would be for one query; see the contract."""
        given = to_query_codes(query)
        check_search(given.codes, self.bits, 1, target, None)
        given = two_stage.with_usable_vectors(self.handle, given)
        return self.handle.consistent(lambda: measure(self.handle, given, ids, target))

    def count(self, target: Modality, where: Mapping[str, Any] | None = None) -> int:
        """Return the number of documents with a code of ``target``; see the contract."""
        return self.handle.consistent(lambda: count_target(self.handle, target, where))

    def get(self, ids: Sequence[str]) -> DocumentBatch:
        """Return codes and fields of the ids that exist; see the contract."""
        return self.handle.consistent(lambda: read_batch(self.handle, ids))

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents; see the contract. Raises BulkFailure with the refused documents."""
        check_ids(ids)
        self.handle.check_owned()
        usable = [id_ for id_ in dict.fromkeys(ids) if is_usable(id_)]
        report = self.handle.send(bulk.batches(map(bulk.delete_line, usable)))
        self._check_accepted(report, len(usable), "removed")
        self.handle.forget_decision()
        if report.results["unknown"]:
            raise ServerFailure(
                f"{self.handle.address}: the documents are removed, but the answer to an earlier "
                f"attempt was lost: how many of {report.results['unknown']:,} existed is unknown",
                0,
                "connection",
            )
        return report.results["deleted"]

    def entries(
        self, *, where: Mapping[str, Any] | None = None, source: str | None = None
    ) -> Iterator[Entry]:
        """Yield documents without codes; see :class:`xmodal.index.origins.ListedIndex`."""
        return list_entries(self.handle, where, source)

    def count_codes(self) -> dict[Modality, int]:
        """Return the number of stored codes of each modality."""
        return self.handle.consistent(lambda: count_codes(self.handle))

    def disk_usage(self) -> dict[str, int]:
        """Return the bytes of the primary shards and of their replicas."""
        self.handle.settle()
        return disk_usage(self.handle)

    def facets(self, max_values: int = 20) -> Facets:
        """Return fields by which a search can be narrowed, at most 100; see the contract."""
        return self.handle.consistent(lambda: read_facets(self.handle, max_values))

    def __len__(self) -> int:
        return self.handle.consistent(lambda: count_documents(self.handle))

    def close(self) -> None:
        """Make changes visible to searches, and close the connections."""
        self.handle.refresh()
        self.handle.server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()
        else:
            self.handle.server.close()

    # ---- beyond the contract -------------------------------------------------------------------

    def search_approximate(
        self,
        queries: BinaryCodes,
        k: int,
        *,
        target: Modality,
        where: Mapping[str, Any] | None = None,
    ) -> ApproximateHits:
        """Return the hits of the graph, which may miss documents, and the graph's recall.

        Recall is measured once per target and k, and again after a change by this handle. Raises
        ConfigError if the index has no graph (strategies lucene-hnsw and faiss-hnsw).
        """
        hits = self.handle.consistent(
            lambda: search_graph(self.handle, queries, k, target=target, where=where)
        )
        if self._recalls_changes != self.handle.changes:
            self._recalls, self._recalls_changes = {}, self.handle.changes
        if (target, k) not in self._recalls:
            self._recalls[target, k] = self.measure_recall(k, target=target)
        return ApproximateHits(hits, self._recalls[target, k])

    def measure_recall(self, k: int, *, target: Modality, sample: int = RECALL_QUERIES) -> Recall:
        """Compare the graph with exact search for ``sample`` stored codes."""
        return self.handle.consistent(
            lambda: measure_recall(self.handle, k, target=target, sample=sample)
        )

    def explain(
        self,
        id_: str,
        query: BinaryCodes,
        *,
        target: Modality,
        words: str | None = None,
        text_field: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Explanation:
        """Return distance and ranks of a document for one query; see index/explain.py."""
        return self.handle.consistent(
            lambda: explain(
                self.handle,
                id_,
                query,
                target=target,
                words=words,
                text_field=text_field,
                where=where,
            )
        )

    def _check_accepted(self, report: bulk.Report, sent: int, done: str) -> None:
        """Raise BulkFailure if the server refused some of the ``sent`` documents."""
        if report.failed:
            id_, reason = next(iter(report.failed.items()))
            raise BulkFailure(
                f"{self.handle.address}: {len(report.failed)} of {sent} documents were refused, "
                f"{id_!r} first: {reason}; the others are {done}",
                report.failed,
            )
