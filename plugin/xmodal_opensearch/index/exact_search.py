"""The Index contract, kept by a cluster: exact whatever the way, ties in order of id.

An index is opened by the name of its alias and then spoken to by the name of the version behind it:
when a new model is swapped in, an open handle goes on with the codes that it can compare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, Self

from xmodal.codes import BinaryCodes
from xmodal.errors import BulkFailure, ConfigError, IndexMissing, ServerFailure
from xmodal.index.contract import Hit, Hits
from xmodal.index.filters import parse
from xmodal.index.validation import check_documents, check_identity, check_ids, check_search
from xmodal.modality import Modality
from xmodal_opensearch.client import bulk
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server, passing
from xmodal_opensearch.index import codec, mapping
from xmodal_opensearch.index import queries as build
from xmodal_opensearch.index.aliases import describe
from xmodal_opensearch.index.bit_order_check import check_self_test
from xmodal_opensearch.index.capabilities import probe
from xmodal_opensearch.index.mapping import field_of
from xmodal_opensearch.index.queries import MOST_HITS, Query
from xmodal_opensearch.index.strategies import Way, check_writable, choose_way
from xmodal_opensearch.rest.connector import encodes

TOGETHER = 32
"""How many queries of a batch go into one request."""
KNOWS_SHARD_DOC = (3, 3)
"""The first version that can tell documents of one place in two shards apart by `_shard_doc`."""


class ExactIndex:
    """Codes in OpenSearch; see :class:`xmodal.index.contract.Index` for the contract."""

    def __init__(
        self, server: Server, address: Address, *, bits: int | None, encoder: str | None
    ) -> None:
        found = describe(server, address.index)
        if found is None:
            raise IndexMissing(f"no index {address.index} at {address.server}")
        self.server, self.address = server, address
        self.name, content = found
        self.uuid: str = content["settings"]["index.uuid"]
        self.bits, self._remembered = mapping.read_meta(self.name, content["mappings"])
        check_identity(
            str(address),
            bits=self.bits,
            encoder=self._remembered,
            want_bits=bits,
            want_encoder=encoder,
        )
        self.encoder = self._remembered or encoder
        self.layout = mapping.read_layout(
            self.name, self.bits, content["mappings"], content["settings"]
        )
        self.can = probe(server)
        self.way: Way = choose_way(address.way, self.can, self.layout, address.natives)
        self._types = mapping.field_types(content["mappings"])
        self.added = mapping.codes_were_added(content["mappings"])
        default = content["settings"].get("index.default_pipeline")
        self._past_pipeline = default is not None and encodes(server, default)
        self.changes = 0
        self._stale = False
        check_self_test(server, address, self.name, self.bits, self.layout, self.way)

    def __repr__(self) -> str:
        version = ".".join(map(str, self.can.version))
        return f"{self.name} on OpenSearch {version}, {self.bits} bits, {self.way.title}"

    def add(
        self,
        ids: Sequence[str],
        *,
        image: BinaryCodes | None = None,
        text: BinaryCodes | None = None,
        fields: Sequence[Mapping[str, Any]] | None = None,
    ) -> int:
        """Store documents; see the contract. BulkFailure names those that the server refused."""
        codes: dict[Modality, BinaryCodes | None] = {"image": image, "text": text}
        check_documents(ids, self.bits, codes, fields)
        self.check_documents_are_ours()
        # Every line is made before the first is sent: a refused addition changes nothing.
        lines = {line.id: line for line in bulk.index_lines(ids, codes, fields, self.layout)}
        self.remember_encoder()
        report = self.send(bulk.batches(lines.values()))
        self._check_taken(report, len(lines), "stored")
        return len(ids)

    def search(
        self,
        queries: BinaryCodes,
        k: int,
        *,
        target: Modality,
        where: Mapping[str, Any] | None = None,
        radius: int | None = None,
    ) -> Hits:
        """The best ``k`` a query on side ``target``; see the contract."""
        check_search(queries, self.bits, k, target, radius)
        filters = self.filters(where)
        self.refresh()
        every = [queries[row : row + 1] for row in range(len(queries))]
        if self.way.build is None:
            return self.nearest(every, k, target, filters, radius)
        if k > MOST_HITS:
            paged = [self.pages(one, MOST_HITS, target=target, where=where, radius=radius)
                     for one in every]  # fmt: skip
            return [list(islice(chain.from_iterable(pages), k)) for pages in paged]
        bodies = [
            build.search_body(self.exact_query(one, target, filters, radius), k) for one in every
        ]
        return [self.hits(answer) for answer in self.ask(bodies)]

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents; see the contract. BulkFailure names those that were not removed."""
        check_ids(ids)
        self.check_documents_are_ours()
        known = [id_ for id_ in dict.fromkeys(ids) if bulk.is_usable(id_)]
        report = self.send(bulk.batches(map(bulk.delete_line, known)))
        self._check_taken(report, len(known), "removed")
        return report.results["deleted"]

    def __len__(self) -> int:
        self.refresh()
        query = {"bool": {"filter": [{"exists": {"field": mapping.ID}}, *self.filters(None)]}}
        return self.server.count(self.name, query)

    def close(self) -> None:
        """Make additions visible to everybody, and let go of the connections."""
        self.refresh()
        self.server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()
        else:
            self.server.close()

    # ---- what the other modules of this package build on --------------------------------------

    def check_documents_are_ours(self) -> None:
        """Raises ConfigError where codes were added to somebody's own documents."""
        if self.added:
            raise ConfigError(
                f"{self.address} holds documents of your own, to which codes were added: store "
                "or delete them by your own means, then run xmodal-opensearch enrich again"
            )

    def filters(self, where: Mapping[str, Any] | None) -> list[Query]:
        """The queries of a ``where``; the mapping is read again for a field that is new."""
        conditions = parse(where)
        if any(one.field not in self._types for one in conditions):
            self.read_types()
        own = [{"term": {mapping.ENCODER: self.encoder}}] if self.added else []
        return [*own, *build.filters(conditions, self._types)]

    def read_types(self) -> Mapping[str, str]:
        """The type of every field, as the mapping is now."""
        answer = self.server.request("GET", f"/{self.name}/_mapping", doing="reading the mapping")
        self._types = mapping.field_types(answer[self.name]["mappings"])
        return self._types

    def exact_query(
        self,
        code: BinaryCodes,
        target: Modality,
        filters: Sequence[Query],
        radius: int | None = None,
    ) -> Query:
        """The query that scores every document, or every one within a radius, exactly.

        By way=knn there is no such thing as a radius: whoever asks cuts off.
        """
        if self.way.build is None:
            return build.by_knn(field_of(target), code, filters, MOST_HITS)
        return self.way.build(field_of(target), code, self.layout, filters, radius)

    def ask(self, bodies: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The answers to several searches."""
        answers: list[Any] = []
        for start in range(0, len(bodies), TOGETHER):
            part = bodies[start : start + TOGETHER]
            answers += self.server.search_many(self.name, part, doing="searching")
        return answers

    def hits(self, answer: Mapping[str, Any]) -> list[Hit]:
        """The hits of one answer, scores turned back into distances."""
        return [
            Hit(one["_id"], codec.to_distance(one["_score"]), one.get("_source", {}))
            for one in answer["hits"]["hits"]
        ]

    def send(
        self,
        batches: Iterable[bulk.Batch],
        *,
        workers: int = 2,
        done: Callable[[bulk.Batch, bulk.Report], None] | None = None,
    ) -> bulk.Report:
        """Send bulk batches to this version."""
        check_writable(self.layout, self.can, self.address.natives)
        self._stale = True
        self.changes += 1
        return bulk.send(
            batches,
            # Our documents bring their codes: a pipeline of connect would ask for them again.
            lambda body: self.server.bulk(self.name, body, past_pipeline=self._past_pipeline),
            passing,
            workers=workers,
            patience=self.server.patience,
            done=done,
        )

    def refresh(self) -> None:
        """Make what this handle changed visible to searches."""
        if self._stale:
            self.server.request("POST", f"/{self.name}/_refresh", doing="refreshing")
            self._stale = False

    def remember_encoder(self) -> None:
        """Write into the mapping whose codes these are, if nobody did."""
        if self.encoder is None or self._remembered is not None:
            return
        _, now = mapping.read_meta(self.name, {"_meta": self.read_meta()})  # by another handle?
        check_identity(
            str(self.address),
            bits=self.bits,
            encoder=now,
            want_bits=self.bits,
            want_encoder=self.encoder,
        )
        if now is None:
            self.write_meta(mapping.meta(self.bits, self.encoder))
        self._remembered = self.encoder

    def read_meta(self) -> dict[str, Any]:
        """``_meta`` of the mapping as it is now."""
        answer = self.server.request("GET", f"/{self.name}/_mapping", doing="reading the mapping")
        found: dict[str, Any] = answer[self.name]["mappings"].get("_meta", {})
        return found

    def write_meta(self, change: Mapping[str, Any]) -> None:
        """Change entries of ``_meta`` (None removes one) and keep the others."""
        new = {k: v for k, v in {**self.read_meta(), **change}.items() if v is not None}
        body = {"_meta": new}
        self.server.request("PUT", f"/{self.name}/_mapping", body, doing="writing the mapping")

    @contextmanager
    def snapshot(self) -> Iterator[str]:
        """A point in time: pages of one search fit together, whatever is stored meanwhile."""
        opened = self.server.request(
            "POST", f"/{self.name}/_search/point_in_time", doing="paging", keep_alive="5m"
        )
        try:
            yield opened["pit_id"]
        finally:
            body = {"pit_id": [opened["pit_id"]]}
            self.server.request("DELETE", "/_search/point_in_time", body, doing="paging")

    def scan(
        self, query: Query, size: int, source: Sequence[str] | bool
    ) -> Iterator[list[dict[str, Any]]]:
        """All documents of a query in no order, ``size`` at a time, as the server tells them."""
        unique = "_shard_doc" if self.can.version >= KNOWS_SHARD_DOC else "_id"
        body: dict[str, Any] = {
            "size": size,
            "query": query,
            "sort": [{"_doc": "asc"}, {unique: "asc"}],
            "_source": source,
            "seq_no_primary_term": True,
            "track_total_hits": False,
        }
        with self.snapshot() as pit:
            while True:
                body["pit"] = {"id": pit, "keep_alive": "10m"}
                found = self.server.search("/_search", body, doing="reading")["hits"]["hits"]
                if not found:
                    return
                yield found
                body["search_after"] = found[-1]["sort"]

    def pages(
        self,
        query: BinaryCodes,
        size: int,
        *,
        target: Modality,
        where: Mapping[str, Any] | None = None,
        radius: int | None = None,
    ) -> Iterator[list[Hit]]:
        """All hits of one query in order, ``size`` at a time, however many there are."""
        check_search(query, self.bits, size, target, radius)
        filters = self.filters(where)
        self.refresh()
        if self.way.build is None:
            raise ConfigError("way=knn returns the nearest only: page with way=script")
        body = build.search_body(
            self.exact_query(query, target, filters, radius), min(size, MOST_HITS)
        )
        with self.snapshot() as pit:
            while True:
                body["pit"] = {"id": pit, "keep_alive": "5m"}
                answer = self.server.search("/_search", body, doing="paging")
                found = answer["hits"]["hits"]
                if not found:
                    return
                yield self.hits(answer)
                body["search_after"] = found[-1]["sort"]

    # ---- how it works -------------------------------------------------------------------------

    def _check_taken(self, report: bulk.Report, sent: int, done: str) -> None:
        """Raises BulkFailure if the server refused some of the ``sent`` documents."""
        if report.failed:
            id_, reason = next(iter(report.failed.items()))
            raise BulkFailure(
                f"{self.address}: {len(report.failed)} of {sent} documents were refused, "
                f"{id_!r} first: {reason}; the others are {done}",
                report.failed,
            )

    def nearest(
        self,
        every: Sequence[BinaryCodes],
        k: int,
        target: Modality,
        filters: Sequence[Query],
        radius: int | None,
    ) -> Hits:
        """By knn queries: asked for more than k until the ties across rank k are complete."""
        size = min(k + 1, MOST_HITS)
        found: list[list[Hit]] = [[] for _ in every]
        limit = self.bits if radius is None else radius
        open_rows = list(range(len(every)))
        while open_rows:
            bodies = [
                build.search_body(build.by_knn(field_of(target), every[row], filters, size), size)
                for row in open_rows
            ]
            for row, answer in zip(open_rows, self.ask(bodies), strict=True):
                found[row] = self.hits(answer)
            open_rows = [row for row in open_rows if _cut_by_ties(found[row], k, size, limit)]
            if open_rows and size == MOST_HITS:
                raise ServerFailure(
                    f"{self.address}: more than {MOST_HITS:,} documents lie within the asked k or "
                    "tie across it, and a knn query returns no more: use way=script, or filter",
                    0,
                    "ties",
                )
            size = min(4 * size, MOST_HITS)
        return [[hit for hit in hits[:k] if hit.distance <= limit] for hits in found]


def _cut_by_ties(hits: list[Hit], k: int, size: int, limit: int) -> bool:
    """Whether documents that belong to the answer may be missing: as near as the k-th."""
    if len(hits) < size or hits[-1].distance > limit:
        return False
    return len(hits) <= k or hits[-1].distance == hits[k - 1].distance
