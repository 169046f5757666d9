"""ScopedReads: searches of the indexes that an address covers, as they are at each request.

The filter and the indexes of an alias may change while they are read. A request whose answer may be
of another scope than the known one raises ScopeChanged, and ``consistent`` repeats the whole read.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

from xmodal.errors import IndexFailure, IndexMissing, ServerFailure
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.capabilities import Capabilities
from xmodal_opensearch.index.queries import Query
from xmodal_opensearch.index.scope import Contents, Scope, ScopeChanged, read_scope

QUERIES_PER_REQUEST = 32
SHARD_DOC_VERSION = (3, 3)
"""First version whose ``_shard_doc`` sorts equal positions of two shards apart."""
MAX_REPEATS = 3
"""Attempts of a read whose scope changes while it is read."""
WINDOW_LIMIT = re.compile(r"Result window is too large.*?less than or equal to: \[(\d+)\]")
KEEP_ALIVE_LIMIT = re.compile(r"[Kk]eep.?alive.*too large.*?\((\d+[a-z]+)\)")
T = TypeVar("T")


class ScopedReads(ABC):
    """Reads of the indexes of ``scope``. ``window``: largest number of hits of one request."""

    server: Server
    address: Address
    scope: Scope
    capabilities: Capabilities
    shards: int
    window: int
    keep_alive = "10m"

    def _open_scope(self, server: Server, address: Address) -> Contents:
        """Read the scope of an address and return its indexes. Raises IndexMissing."""
        found = read_scope(server, address.index)
        if found is None:
            raise IndexMissing(f"no index {address.index} at {address.server}")
        self.server, self.address = server, address
        self.scope, contents = found
        self.window = self.scope.window
        return contents

    @abstractmethod
    def _adopt(self, contents: Contents) -> None:
        """Set the description of other indexes. Raises IndexMismatch if these do not fit."""

    @property
    @abstractmethod
    def _queries_have_filters(self) -> bool:
        """Whether queries may be of k-NN, which applies only its own filters before it selects."""

    def consistent(self, read: Callable[[], T]) -> T:
        """Return the result of ``read``, which is repeated if the scope changes meanwhile."""
        for _ in range(MAX_REPEATS - 1):
            try:
                return read()
            except ScopeChanged:
                continue
        return read()

    def check_scope(self) -> None:
        """Raise ScopeChanged if the indexes or the filters of the scope are others now.

        ``scope`` is the present one then. An alias of one index that was moved to another is
        left: its index is read as before. Raises IndexMismatch for a new index with
        other codes, IndexMissing if nothing is left.
        """
        if self._adopt_scope():
            raise ScopeChanged(f"{self.address} changed while it was read: repeat the request")

    def settle(self) -> None:
        """Read the scope again, so that a read which cannot be repeated begins with it."""
        if not self.scope.is_fixed:
            self._adopt_scope()

    def _adopt_scope(self) -> bool:
        """Read the scope again; return whether it changed."""
        old = self.scope
        found = read_scope(self.server, old.target)
        if found is None:
            raise IndexMissing(f"no index {old.target} at {self.address.server}")
        new, contents = found
        window = min(self.window, new.window)
        if (replace(new, name=old.name), window) == (old, self.window):
            return False
        if old.write_index is not None and old.indexes[0] not in new.indexes:
            new = old.pinned()
        elif new.uuids != old.uuids:
            self._adopt(contents)
        self.scope, self.window = new, min(window, new.window)
        return True

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Adapt to limits and scopes that a failed request shows.

        Raises ScopeChanged where a repetition may succeed.
        """
        try:
            yield
        except ScopeChanged:
            raise
        except IndexFailure as error:
            reason = error.reason if isinstance(error, ServerFailure) else ""
            if (limit := WINDOW_LIMIT.search(reason)) and int(limit[1]) < self.window:
                self.window = int(limit[1])
                raise ScopeChanged(str(error)) from error
            if not self.scope.is_fixed:
                self.check_scope()
            raise

    def _check_answers(self, answers: Sequence[Mapping[str, Any]]) -> None:
        """Check that answers are of the scope as it was described; raise ScopeChanged otherwise.

        Hits name their index. Where there are none, and for queries of k-NN, which need the filter
        of the alias, the scope is read again.
        """
        if self.scope.is_fixed:
            return
        known = set(self.scope.indexes)
        is_sure = not self._queries_have_filters
        for answer in answers:
            hits = answer["hits"]["hits"]
            is_sure &= len(hits) > 0 and "aggregations" not in answer
            is_sure &= all(hit["_index"] in known for hit in hits)
        if not is_sure:
            self.check_scope()
            if any(h["_index"] not in known for answer in answers for h in answer["hits"]["hits"]):
                raise ScopeChanged(f"{self.address} changed while it was read: repeat the request")

    def _finished(self, answers: Sequence[Any]) -> Sequence[Any]:
        """Return checked answers; only hits of several indexes keep the name of their index."""
        self._check_answers(answers)
        if not self.scope.has_several:
            for answer in answers:
                for hit in answer["hits"]["hits"]:
                    hit.pop("_index", None)
        return answers

    def _prepared(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a search in which documents of equal ids in several indexes have an order."""
        if not self.scope.has_several or "sort" not in body:
            return body
        return {**body, "sort": [*body["sort"], {"_index": "asc"}]}

    def search(
        self, bodies: Sequence[Mapping[str, Any]], *, global_statistics: bool = False
    ) -> list[Any]:
        """Send several searches, and return the decoded answers.

        ``global_statistics``: scores of BM25 use the statistics of all shards.
        """
        kind = "dfs_query_then_fetch" if global_statistics and self.shards > 1 else None
        answers: list[Any] = []
        for start in range(0, len(bodies), QUERIES_PER_REQUEST):
            part = [self._prepared(body) for body in bodies[start : start + QUERIES_PER_REQUEST]]
            target = self.scope.target
            with self._reading():
                found = self.server.search_many(target, part, doing="searching", kind=kind)
            answers += self._finished(found)
        return answers

    def count(self, query: Query) -> int:
        """Return the number of documents that match a query."""
        with self._reading():
            found = self.server.count(self.scope.target, query)
        self.check_unfixed_scope()
        return found

    def check_unfixed_scope(self) -> None:
        """Raise ScopeChanged as ``check_scope``, unless the scope is one concrete index."""
        if not self.scope.is_fixed:
            self.check_scope()

    @contextmanager
    def snapshot(self) -> Iterator[str]:
        """Open a point in time and yield its id; later writes do not change its pages."""
        with self._reading():
            opened = self._open_snapshot()
        try:
            # The filter and the indexes of the alias are those of this moment.
            self.check_unfixed_scope()
            yield opened["pit_id"]
        finally:
            # The server also closes it by itself; a failure must not replace the result.
            with suppress(IndexFailure):
                path, body = "/_search/point_in_time", {"pit_id": [opened["pit_id"]]}
                doing = "closing a point in time"
                self.server.request("DELETE", path, body, doing=doing, retry_timeout=0, timeout=10)

    def _open_snapshot(self) -> Any:
        """Open a point in time, for a shorter time if the server allows no longer one."""
        path = f"/{self.scope.target}/_search/point_in_time"
        try:
            return self.server.request("POST", path, doing="paging", keep_alive=self.keep_alive)
        except ServerFailure as error:
            limit = KEEP_ALIVE_LIMIT.search(error.reason)
            if limit is None or limit[1] == self.keep_alive:
                raise
            self.keep_alive = limit[1]
        return self.server.request("POST", path, doing="paging", keep_alive=self.keep_alive)

    def pages(
        self, body: Mapping[str, Any], *, doing: str, global_statistics: bool = False
    ) -> Generator[Any]:
        """Yield the answers of a sorted search, page by page, until one has no hits."""
        params = {"search_type": "dfs_query_then_fetch"} if global_statistics else {}
        with self.snapshot() as pit:
            after: dict[str, Any] = {}
            known = set(self.scope.indexes)
            body = self._prepared({**body, "size": min(body["size"], self.window)})
            while True:
                page = {**body, "pit": {"id": pit, "keep_alive": self.keep_alive}, **after}
                with self._reading():
                    answer = self.server.search("/_search", page, doing=doing, **params)
                hits = answer["hits"]["hits"]
                if not hits:
                    return
                if not all(hit["_index"] in known for hit in hits):
                    raise ScopeChanged(f"{self.address} changed while it was read: repeat")
                after = {"search_after": hits[-1]["sort"]}
                if not self.scope.has_several:
                    for hit in hits:
                        hit.pop("_index")
                yield answer

    def scan(
        self, query: Query, size: int, source: Sequence[str] | bool
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the hits of all documents of a query in any order, ``size`` per page.

        ``source``: the fields of ``_source`` to return, or False for none.
        """
        is_new = self.capabilities.version >= SHARD_DOC_VERSION and not self.scope.has_remote
        unique = "_shard_doc" if is_new else "_id"
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
