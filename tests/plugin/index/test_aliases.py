"""Versions behind an alias: names, creation by several processes, atomic moves of the alias."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import IndexMismatch, IndexMissing, ServerFailure
from xmodal.index.contract import Index, open_index
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.aliases import (
    alias_actions,
    describe,
    is_version,
    move_alias,
    next_version,
    versions_of,
)
from xmodal_opensearch.index.bit_order_check import store_self_test
from xmodal_opensearch.index.creation import make_version
from xmodal_opensearch.index.mapping import LAYOUTS
from xmodal_opensearch.index.scope import read_scope
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.loading.new_version import open_next_version
from xmodal_opensearch.loading.preparation import prepare

Address = Callable[..., str]
Rest = Callable[..., Any]
CODE = BinaryCodes.from_hex(["00" * 8])


@pytest.mark.parametrize(
    ("existing", "new"),
    [
        ([], "p-000001"),
        (["p-000001"], "p-000002"),
        (["p-000009", "p-000003"], "p-000010"),
        (["p-999999"], "p-1000000"),
    ],
)
def test_next_version_follows_all_existing_ones(existing: list[str], new: str) -> None:
    assert next_version("p", existing) == new
    assert is_version("p", new)


@pytest.mark.parametrize(
    "name", ["p", "p-", "p-1", "p-00000x", "q-000001", "p-q-000001", "pp-000001"]
)
def test_is_version_rejects_other_names(name: str) -> None:
    assert not is_version("p", name)
    assert is_version("a.b", "a.b-000001") and not is_version("a.b", "axb-000001")


def test_alias_actions_move_the_alias_in_one_request() -> None:
    assert alias_actions("p", ["p-000001", "p-000003"], "p-000003") == {
        "actions": [
            {"remove": {"index": "p-000001", "alias": "p"}},
            {"add": {"index": "p-000003", "alias": "p", "is_write_index": True}},
        ]
    }


def test_new_version_is_searched_after_the_alias_moved(address: Address) -> None:
    where = parse_address(address())
    with open_opensearch(str(where), bits=64, fingerprint="e1", create=True) as old:
        old.add(["old"], image=CODE)
        server = old.handle.server
        new = make_version(server, where, 64, "e2", LAYOUTS["long"], alias=None)
        assert new == f"{where.index}-000002"
        assert versions_of(server, where.index) == {old.handle.name: True, new: False}
        with open_opensearch(str(where.with_index(new)), fingerprint="e2") as filled:
            filled.add(["new"], image=CODE)
        assert [hit.id for hit in old.search(CODE, 9, target="image")[0]] == ["old"]
        with open_opensearch(str(where)) as again:
            assert (again.handle.name, again.fingerprint) == (old.handle.name, "e1")
        assert move_alias(server, where.index, new) == [old.handle.name]
        assert versions_of(server, where.index) == {old.handle.name: False, new: True}
        assert move_alias(server, where.index, new) == []  # no change
        with open_opensearch(str(where), fingerprint="e2") as again:
            assert [hit.id for hit in again.search(CODE, 9, target="image")[0]] == ["new"]
            assert (again.handle.name, again.handle.strategy.name) == (new, "long")
        # An open handle continues to search its version.
        assert [hit.id for hit in old.search(CODE, 9, target="image")[0]] == ["old"]


def test_alias_of_two_indexes_is_not_changed(address: Address, rest: Rest) -> None:
    where = address()
    with open_opensearch(where, bits=64, create=True) as index:
        alias = index.handle.address.index
    rest("PUT", f"/{alias}-other", {"aliases": {alias: {}}})
    server = Server(parse_address(where))
    with pytest.raises(IndexMismatch, match=f"alias {alias} points to 2 indexes .*-000001, "):
        describe(server, alias)
    server.close()


@pytest.mark.parametrize(
    ("limit", "word"),
    [({"filter": {"term": {"shop": "north"}}}, "a filter"), ({"routing": "1"}, "a search routing")],
)
def test_alias_of_a_part_of_an_index_is_not_changed(
    address: Address, rest: Rest, limit: dict[str, Any], word: str
) -> None:
    uri = address()
    with open_opensearch(uri, bits=64, create=True) as index:
        index.add(["a"], image=CODE)
    part = parse_address(uri).index + "-part"
    actions = [{"add": {"index": index.handle.name, "alias": part, **limit}}]
    rest("POST", "/_aliases", {"actions": actions})
    server = Server(parse_address(uri + "-part"))
    for open_it in (
        lambda: prepare(server, parse_address(uri + "-part"), 64, "e"),
        lambda: open_next_version(server, parse_address(uri + "-part"), 64, "e", "somewhere"),
    ):
        with pytest.raises(
            IndexMismatch, match=f"{part} has {word} .* open {index.handle.name} itself"
        ):
            open_it()
    server.close()
    for whole in (uri, uri.replace(parse_address(uri).index, index.handle.name)):
        with open_opensearch(whole) as opened:
            assert len(opened) == 1


def test_deleted_version_is_missing(address: Address, rest: Rest) -> None:
    where = address()
    with open_opensearch(where, bits=64, create=True) as index:
        assert describe(index.handle.server, index.handle.name) is not None
        rest("DELETE", f"/{index.handle.name}")
        assert describe(index.handle.server, index.handle.name) is None
        with pytest.raises(IndexMissing, match=f"no index {index.handle.address.index}"):
            index.search(CODE, 1, target="image")
    with pytest.raises(IndexMissing, match="no index"):
        open_index(where)


# ---- concurrent creation ----------------------------------------------------------------------


@pytest.mark.parametrize("turn", range(3))
def test_index_created_by_four_threads_exists_once(address: Address, turn: int) -> None:
    where = address()
    made: list[Index] = []
    failed: list[Exception] = []
    start = threading.Barrier(4)

    def make(number: int) -> None:
        start.wait()
        try:
            index = open_index(where, bits=64, fingerprint="e1", create=True)
            index.add([str(number)], image=CODE)
            made.append(index)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for one in made:
        one.close()
    with open_opensearch(where) as index:
        assert list(versions_of(index.handle.server, index.handle.address.index)) == [
            index.handle.name
        ]
        assert [hit.id for hit in index.search(CODE, 9, target="image")[0]] == ["0", "1", "2", "3"]


def test_second_creator_opens_the_index_of_the_first(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second process saw no index before the first one created it.
    where = address()
    seen = iter([None])
    with open_opensearch(where, bits=64, create=True) as first:
        monkeypatch.setattr(
            "xmodal_opensearch.index.store.read_scope", lambda *_: next(seen, read_scope(*_))
        )
        with open_opensearch(where, bits=64, create=True) as second:
            assert second.handle.name == first.handle.name
            assert list(versions_of(second.handle.server, second.handle.address.index)) == [
                first.handle.name
            ]


def test_refused_creation_raises_server_failure(address: Address) -> None:
    with pytest.raises(ServerFailure, match=r"refused creating .* .400.: .* must be <= 1024"):
        open_index(address(shards="2000"), bits=64, create=True)


def test_opening_waits_for_the_self_test_document(address: Address, rest: Rest) -> None:
    where = parse_address(address())
    body = mapping.new_index(64, None, LAYOUTS["faiss"])
    body["aliases"] = {where.index: {}}
    rest("PUT", f"/{where.index}-000001", body)  # without the self-test document
    server = Server(where)
    later = threading.Timer(
        0.5, store_self_test, (server, f"{where.index}-000001", 64, LAYOUTS["faiss"])
    )
    later.start()
    open_opensearch(str(where)).close()
    later.join()
    server.close()
