"""Reading of the documents of an index in the order of their sequence numbers, shard by shard.

Every change of a document gives it a new, higher number, so that a position in this order needs no
state on the server: reading continues after the restart of a node, and documents that change behind
the position come again. A point in time would do neither, and would keep deleted documents on disk
during a long run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from xmodal.errors import ConfigError
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.queries import Query

PAGE = 2000
"""Documents of a page."""
FIRST_PAGE = 32
MAX_PAGE_CHARACTERS = 8 << 20
"""Characters of text of a page, about; the next page is smaller if a page has more."""
BLOCK = 4096
"""Sequence numbers of a block; blocks are divided among processes."""
Hit = dict[str, Any]


@dataclass(frozen=True)
class Share:
    """Part ``number``, from 1, of ``count`` parts of the documents.

    Parts are blocks of sequence numbers, which do not depend on the time of the start.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """Return the share given as "1/4". Raises ConfigError."""
        number, _, count = text.partition("/")
        if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) <= 1024:
            return cls(int(number), int(count))
        raise ConfigError(f"the slice is {text!r}, expected 1/4, 2/4, 3/4 or 4/4, for example")

    def next_range(self, after: int) -> tuple[int, int | None]:
        """Return the numbers, from and to, of the next block after a number; None for no end."""
        if self.count == 1:
            return after + 1, None
        block = (after + 1) // BLOCK
        distance = (self.number - 1 - block) % self.count
        return max(after + 1, (block + distance) * BLOCK), (block + distance + 1) * BLOCK - 1


ALL = Share()


@dataclass
class ShardReader:
    """Reads the documents of a query; repeated calls of ``pages`` continue behind the last page.

    ``name``, ``shards``: of one concrete index. ``source``: fields of ``_source`` to read.
    ``max_page``: documents of a page. ``ends``: last number by shard; without, all numbers.
    """

    server: Server
    name: str
    shards: int
    query: Query
    source: Sequence[str]
    share: Share = ALL
    max_page: int = PAGE
    ends: dict[int, int] | None = None
    _positions: dict[int, int] = field(default_factory=dict)
    _size: int = FIRST_PAGE

    def pages(self) -> Iterator[list[Hit]]:
        """Yield the hits of documents that are visible to searches, with their versions."""
        for shard in range(self.shards):
            while hits := self._next_page(shard):
                self._positions[shard] = hits[-1]["_seq_no"]
                characters = sum(len(str(hit.get("_source", ""))) for hit in hits)
                fitting = len(hits) * MAX_PAGE_CHARACTERS // max(characters, 1)
                self._size = max(1, min(PAGE, 4 * self._size, fitting))
                yield hits

    def _next_page(self, shard: int) -> list[Hit]:
        """Return the next hits of a shard, empty at the end."""
        while True:
            start, end = self.share.next_range(self._positions.get(shard, -1))
            size = min(self._size, self.max_page)
            hits = self._search(shard, start, end, size, self.source)
            if hits or end is None:
                return hits
            following = self._search(shard, end + 1, None, 1, [])
            if not following:
                return []
            self._positions[shard] = following[0]["_seq_no"] - 1

    def _search(
        self, shard: int, start: int, end: int | None, size: int, source: Sequence[str]
    ) -> list[Hit]:
        numbers = {"gte": start} if end is None else {"gte": start, "lte": end}
        filters: list[Query] = [self.query, {"range": {"_seq_no": numbers}}]
        if self.ends is not None:
            filters.append({"range": {"_seq_no": {"lte": self.ends[shard]}}})
        body = {
            "size": size,
            "query": {"bool": {"filter": filters}},
            "sort": [{"_seq_no": "asc"}],
            "_source": list(source) or False,
            "seq_no_primary_term": True,
            "track_total_hits": False,
        }
        return _hits(self.server, self.name, shard, body)


def last_numbers(server: Server, name: str, shards: int) -> dict[int, int]:
    """Return the highest sequence number of the visible documents of each shard, or -1."""
    body = {"size": 1, "sort": [{"_seq_no": "desc"}], "_source": False, "seq_no_primary_term": True}
    found = {shard: _hits(server, name, shard, body) for shard in range(shards)}
    return {shard: hits[0]["_seq_no"] if hits else -1 for shard, hits in found.items()}


def _hits(server: Server, name: str, shard: int, body: dict[str, Any]) -> list[Hit]:
    answer = server.search(f"/{name}/_search", body, doing="reading", preference=f"_shards:{shard}")
    hits: list[Hit] = answer["hits"]["hits"]
    return hits
