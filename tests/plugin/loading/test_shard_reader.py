"""ShardReader: every document is read once, in shares, over gaps, and again if it changes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from xmodal.errors import ConfigError
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.loading import shard_reader
from xmodal_opensearch.loading.shard_reader import ShardReader, Share, last_numbers

ALL = {"match_all": {}}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shares_cover_all_numbers_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_reader, "BLOCK", 8)
    seen: Counter[int] = Counter()
    for number in range(1, count + 1):
        share, after = Share(number, count), -1
        while after < 199:
            start, end = share.next_range(after)
            assert start > after
            seen.update(range(start, min(199, 199 if end is None else end) + 1))
            after = 199 if end is None else end
    assert seen == Counter(range(200))
    assert Share(2, 3).next_range(9) == (10, 15)  # inside of an own block


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "a/b", "1/9999", "1.5/2"])
def test_invalid_shares(text: str) -> None:
    with pytest.raises(ConfigError, match="the slice is"):
        Share.parse(text)


@pytest.fixture
def index(address: Callable[..., str], rest: Callable[..., Any]) -> tuple[Server, str]:
    """An index of 300 documents in two shards; two of three were changed, so numbers have gaps."""
    uri = address()
    name = parse_address(uri).index
    rest("PUT", f"/{name}", {"settings": {"number_of_shards": 2, "number_of_replicas": 0}})
    server = Server(parse_address(uri))
    write(server, name, range(300))
    write(server, name, (n for n in range(300) if n % 3))
    write(server, name, range(0))
    return server, name


def write(server: Server, name: str, numbers: Any, **fields: Any) -> None:
    lines = []
    for number in numbers:
        lines += [json.dumps({"index": {"_id": f"d{number}"}}), json.dumps({"n": number, **fields})]
    if lines:
        assert not server.bulk(name, ("\n".join(lines) + "\n").encode())["errors"]
    server.request("POST", f"/{name}/_refresh", doing="refreshing")


def ids(reader: ShardReader) -> list[str]:
    return [hit["_id"] for hits in reader.pages() for hit in hits]


@pytest.mark.parametrize("count", [1, 3])
def test_documents_are_read_once(
    index: tuple[Server, str], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_reader, "BLOCK", 16)
    server, name = index
    found = []
    for number in range(1, count + 1):
        reader = ShardReader(server, name, 2, ALL, ["n"], Share(number, count), max_page=7)
        pages = list(reader.pages())
        assert pages and all(len(hits) <= 7 for hits in pages)
        for hit in (hit for hits in pages for hit in hits):
            assert hit["_source"] == {"n": int(hit["_id"][1:])} and hit["_primary_term"] == 1
            found.append(hit["_id"])
        assert ids(reader) == []
    assert sorted(found) == sorted(f"d{n}" for n in range(300))
    server.close()


def test_changed_documents_are_read_again(index: tuple[Server, str]) -> None:
    server, name = index
    ends = last_numbers(server, name, 2)
    reader = ShardReader(server, name, 2, {"range": {"n": {"lt": 200}}}, [])
    bounded = ShardReader(server, name, 2, ALL, [], ends=ends)
    assert len(ids(reader)) == 200
    write(server, name, [5, 6, 250, 999], new=True)
    assert sorted(ids(reader)) == ["d5", "d6"]
    assert len(ids(bounded)) == 297  # those of before that did not change
    assert last_numbers(server, name, 2) != ends
    server.close()


def test_pages_of_long_documents_are_small(
    index: tuple[Server, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_reader, "MAX_PAGE_CHARACTERS", 2000)
    server, name = index
    write(server, name, range(300), text="x" * 500)
    sizes = [len(hits) for hits in ShardReader(server, name, 2, ALL, ["text"]).pages()]
    assert sum(sizes) == 300 and sizes[0] == shard_reader.FIRST_PAGE and max(sizes[1:]) == 3
    server.close()
