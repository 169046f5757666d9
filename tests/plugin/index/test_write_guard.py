"""A write never creates an index: the index was deleted, or created again, while it was open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from support.endpoint import Endpoint, Reply, Request, forward_to
from support.filled import batch, random_codes

from xmodal.errors import IndexMissing, ServerFailure
from xmodal_opensearch.client import bulk
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.index.write_guard import find_guard
from xmodal_opensearch.loading.load import load

Rest = Callable[..., Any]
ALIAS = {"error": {"reason": "no permissions for [indices:admin/aliases]"}}


def guards(rest: Rest, name: str) -> list[str]:
    aliases = rest("GET", f"/{name}/_alias")[name]["aliases"]
    return [alias for alias in aliases if find_guard(name, [alias])]


def is_missing(rest: Rest, name: str) -> bool:
    try:
        rest("GET", f"/{name}")
    except HTTPError as error:
        with error:
            return error.code == 404
    return False


def write_in_every_way(index: OpenSearchIndex, folder: Path) -> None:
    """Check that each operation that writes raises IndexMissing."""
    update = bulk.update_line("d00000", {"colour": "red"})
    for write in (
        lambda: index.add(["a"], image=random_codes(1)),
        lambda: index.delete(["d00000"]),
        lambda: index.handle.send([[update]]),
        lambda: load(index, [batch(3)], checkpoints=folder),
        lambda: index.handle.write_meta({"a": 1}),
    ):
        with pytest.raises(IndexMissing) as missing:
            write()
        assert "\n" not in str(missing.value)


@pytest.mark.parametrize("wrote_before", [True, False])
def test_writing_to_a_deleted_index_is_an_error_and_creates_none(
    address: Callable[..., str], rest: Rest, tmp_path: Path, wrote_before: bool
) -> None:
    index = open_opensearch(address(), bits=64, create=True)
    if wrote_before:
        index.add(batch(2))
    rest("DELETE", f"/{index.handle.name}")
    write_in_every_way(index, tmp_path)
    assert is_missing(rest, index.handle.name)
    index.handle.server.close()


def test_writing_to_an_index_that_was_created_again_is_an_error(
    address: Callable[..., str], rest: Rest, tmp_path: Path
) -> None:
    uri = address()
    index = open_opensearch(uri, bits=64, create=True)
    index.add(batch(2))
    rest("DELETE", f"/{index.handle.name}")
    with open_opensearch(uri, bits=64, create=True) as other:
        assert other.handle.name == index.handle.name
        with pytest.raises(IndexMissing):
            index.add(["a"], image=random_codes(1))
        with pytest.raises(IndexMissing):
            index.delete(["a"])
        assert len(other) == 0
    index.handle.server.close()


def test_guard_is_hidden_and_added_to_an_index_without_one(
    address: Callable[..., str], rest: Rest, tmp_path: Path
) -> None:
    uri = address()
    with open_opensearch(uri, bits=64, create=True) as index:
        name = index.handle.name
    (guard,) = guards(rest, name)
    assert rest("GET", f"/{name}/_alias")[name]["aliases"][guard]["is_hidden"] is True
    remove = {"remove": {"index": name, "alias": guard}}
    rest("POST", "/_aliases", {"actions": [remove]})
    with open_opensearch(uri) as index:
        assert guards(rest, name) == []
        index.add(batch(2))
        assert len(guards(rest, name)) == 1
        rest("DELETE", f"/{name}")
        write_in_every_way(index, tmp_path)
        assert is_missing(rest, name)
        index.handle._unrefreshed = False


def test_copy_with_the_same_guard_is_not_written(address: Callable[..., str], rest: Rest) -> None:
    uri, copy = address(), parse_address(address()).index
    with open_opensearch(uri, bits=64, create=True) as index:
        name = index.handle.name
    (guard,) = guards(rest, name)
    rest(
        "PUT", f"/{copy}", {"aliases": {guard: {"is_hidden": True}}}
    )  # as after a restore under another name
    with open_opensearch(uri) as index:
        assert index.add(batch(3)) == 3
        assert len(index) == 3
    assert guard not in rest("GET", f"/{copy}/_alias")[copy]["aliases"]


def test_writer_who_may_not_add_aliases(
    address: Callable[..., str], rest: Rest, node_url: str
) -> None:
    forward = forward_to(node_url)

    def reply(request: Request) -> Reply:
        return Reply(403, ALIAS) if request.path.startswith("/_alias") else forward(request)

    uri = address()
    with open_opensearch(uri, bits=64, create=True) as index:
        name = index.handle.name
    with Endpoint(reply) as endpoint:
        other = uri.replace(node_url.rpartition(":")[2], str(endpoint.port))
        with open_opensearch(other) as index:
            assert index.add(batch(2)) == 2
        (guard,) = guards(rest, name)
        rest("POST", "/_aliases", {"actions": [{"remove": {"index": name, "alias": guard}}]})
        with open_opensearch(other) as index:
            assert index.add(batch(4)) == 4
            assert guards(rest, name) == []
            rest("DELETE", f"/{name}")
            with open_opensearch(uri, bits=64, create=True):
                with pytest.raises(IndexMissing):
                    index.add(batch(2))


def test_default_search_pipeline_changes_no_answer(
    address: Callable[..., str], rest: Rest, tmp_path: Path
) -> None:
    uri = address()
    name = parse_address(uri).index
    only_red = {"filter_query": {"query": {"term": {"colour": "red"}}}}
    rest("PUT", f"/_search/pipeline/{name}", {"request_processors": [only_red]})
    colours = [{"colour": "red"}, {"colour": "blue"}]
    with open_opensearch(uri, bits=64, create=True) as index:
        index.add(["a", "b"], image=random_codes(2), fields=colours)
        index.handle.refresh()
        setting = {"index.search.default_pipeline": name}
        rest("PUT", f"/{index.handle.name}/_settings", setting)
        assert rest("GET", f"/{index.handle.name}/_search")["hits"]["total"]["value"] == 1
    try:
        with open_opensearch(uri) as index:
            found = index.search(random_codes(3), 5, target="image")
            assert [sorted(hit.id for hit in hits) for hits in found] == [["a", "b"]] * 3
            assert len(index) == index.count("image") == 2
            assert {value for value, _ in index.facets()["colour"]} == {"red", "blue"}
            assert [entry.id for entry in index.entries()] == ["a", "b"]
            assert index.get(["a", "b"]).ids == ["a", "b"]
    finally:
        setting = {"index.search.default_pipeline": None}
        rest("PUT", f"/{index.handle.name}/_settings", setting)
        rest("DELETE", f"/_search/pipeline/{name}")


def test_point_in_time_that_cannot_be_closed_changes_no_result(
    address: Callable[..., str], node_url: str
) -> None:
    forward, closings = forward_to(node_url), []

    def reply(request: Request) -> Reply:
        if request.method == "DELETE":
            closings.append(request.path)
            return Reply(403, {"error": {"reason": "no permissions"}})
        return forward(request)

    uri = address()
    with open_opensearch(uri, bits=64, create=True) as index:
        index.add(batch(3))
    with Endpoint(reply) as endpoint:
        other = uri.replace(node_url.rpartition(":")[2], str(endpoint.port))
        with open_opensearch(other) as index:
            assert len(list(index.entries())) == 3
    assert len(closings) == 1


def test_search_with_a_time_limit_is_right_or_an_error(
    address: Callable[..., str], rest: Rest
) -> None:
    codes, query = random_codes(20_000), random_codes(1, 9)
    with open_opensearch(address(strategy="script"), bits=64, create=True) as index:
        index.add([f"d{n:05}" for n in range(len(codes))], image=codes)
        distances = query.distances(codes)[0]
        nearest = sorted((int(d), f"d{n:05}") for n, d in enumerate(distances))[:10]
        rest("PUT", "/_cluster/settings", settings(search__default_search_timeout="1ms"))
        try:
            for _ in range(20):
                try:
                    found = index.search(query, 10, target="image")[0]
                    assert [(hit.distance, hit.id) for hit in found] == nearest
                    assert len(index) == len(codes)
                except ServerFailure as error:
                    assert error.reason == "time limit"
        finally:
            rest("PUT", "/_cluster/settings", settings(search__default_search_timeout=None))
        assert len(index) == len(codes)


def settings(**given: Any) -> dict[str, Any]:
    return {"transient": {name.replace("__", "."): value for name, value in given.items()}}
