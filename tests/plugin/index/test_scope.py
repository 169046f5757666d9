"""Scopes: aliases with filters and routing, several indexes, and changes of them while open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import numpy as np
import pytest
from support.filled import BITS, random_codes
from support.hamming_server import Server

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, IndexMismatch, IndexMissing
from xmodal.index.contract import WordsQuery
from xmodal_opensearch.diagnostics.inspection import Inspection, inspect, repair
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.scope import Scope, to_scope
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.loading.load import load

if TYPE_CHECKING:
    from xmodal_opensearch.node.process import Node

Address = Callable[..., str]
Rest = Callable[..., Any]
RED, BLUE = {"term": {"colour": "red"}}, {"term": {"colour": "blue"}}


# ---- of the server's description -----------------------------------------------------------------


def description(
    aliases: dict[str, Any] | None = None, *, window: int | None = None, **more: Any
) -> dict[str, Any]:
    settings = {"index.uuid": "u"} | ({} if window is None else {"index.max_result_window": window})
    return {"aliases": aliases or {}, "settings": settings, **more}


def test_scope_of_an_index_is_fixed() -> None:
    scope = to_scope("p", {"p": description({"q": {"filter": RED}})})
    assert scope == Scope("p", ("p",), ("u",), "p", write_index="p")
    assert scope.is_fixed and scope.is_whole


def test_scope_of_an_alias_has_its_filter_and_routing() -> None:
    alias = {"filter": RED, "search_routing": "1,2", "index_routing": "1"}
    scope = to_scope("q", {"p": description({"q": alias, "r": {}})})
    assert (scope.target, scope.filters, scope.routing) == ("q", (RED,), "1,2")
    assert not scope.is_fixed and not scope.is_whole
    assert scope.write_index is None and "write to p itself" in scope.read_only
    plain = to_scope("r", {"p": description({"q": alias, "r": {}})})
    assert (plain.filters, plain.write_index, plain.is_fixed) == ((), "p", False)


@pytest.mark.parametrize(
    ("name", "filters"),
    [
        ("red", [RED]),
        ("red,blue", [{"bool": {"should": [RED, BLUE]}}]),
        ("red,all", []),  # the server applies no filter if one alias has none
        ("red,p", []),
        ("r*", [RED]),
        ("p*,red", []),
    ],
)
def test_filters_of_several_names_are_alternatives(name: str, filters: list[Any]) -> None:
    aliases = {"red": {"filter": RED}, "blue": {"filter": BLUE}, "all": {}}
    assert list(to_scope(name, {"p": description(aliases)}).filters) == filters


def test_filters_of_several_indexes_name_their_index() -> None:
    contents = {"p": description({"a": {"filter": RED}}), "q": description({"a": {}})}
    (both,) = to_scope("a", contents).filters
    assert both["bool"]["should"] == [
        {"bool": {"filter": [{"term": {"_index": "p"}}, RED]}},
        {"bool": {"filter": [{"term": {"_index": "q"}}]}},
    ]
    same = {name: description({"a": {"filter": RED}}) for name in ("p", "q")}
    assert to_scope("a", same).filters == (RED,)


def test_window_is_the_smallest_of_the_indexes() -> None:
    contents = {"p": description(window=500), "q": description(window=20_000)}
    assert to_scope("p,q", contents).window == 500
    assert to_scope("q", {"q": contents["q"]}).window == 10_000


def test_data_streams_and_several_indexes_are_read_only() -> None:
    stream = to_scope("s", {".ds-s-1": description(data_stream="s")})
    assert stream.write_index is None and "data stream" in stream.read_only
    writer = {"p": description({"a": {}}), "q": description({"a": {"is_write_index": True}})}
    assert "such as q" in to_scope("a", writer).read_only
    assert to_scope("p*", {"p": description()}).write_index is None


# ---- on a node -----------------------------------------------------------------------------------


def filled(uri: str, ids: list[str], seed: int = 0, **fields: Any) -> OpenSearchIndex:
    """Return a new index with documents of few distinct codes, and the given fields."""
    index = open_opensearch(uri, bits=BITS, fingerprint="e1", create=True)
    codes = few_codes(len(ids), seed)
    index.add(ids, image=codes, text=codes, fields=[dict(fields) for _ in ids])
    index.handle.refresh()
    return index


def few_codes(n: int, seed: int) -> BinaryCodes:
    """Codes with many ties."""
    return BinaryCodes(random_codes(n, seed).packed & 1, BITS)


def add_alias(rest: Rest, index: OpenSearchIndex, alias: str, **options: Any) -> str:
    """Add an alias of the index and return its address."""
    action = {"index": index.handle.name, "alias": alias, **options}
    rest("POST", "/_aliases", {"actions": [{"add": action}]})
    return str(index.handle.address.with_index(alias))


QUERY = few_codes(1, 99)


@pytest.mark.parametrize("strategy", ["script", "knn"])
def test_changed_filter_of_an_open_alias_applies(
    address: Address, rest: Rest, strategy: str
) -> None:
    uri = address(strategy=strategy)
    with filled(uri, [f"{n:03}" for n in range(40)], colour="red") as index:
        index.add(
            [f"b{n}" for n in range(9)], image=few_codes(9, 1), fields=[{"colour": "blue"}] * 9
        )
        index.handle.refresh()
        alias = urlsplit(uri).path[1:] + "-part"
        part = open_opensearch(add_alias(rest, index, alias))  # all documents
        assert (len(part), len(part.search(QUERY, 99, target="image")[0])) == (49, 49)
        for colour, number in (("red", 40), ("blue", 9)):
            add_alias(rest, index, alias, filter={"term": {"colour": colour}})
            found = part.search(QUERY, 99, target="image")[0]
            assert [hit.fields["colour"] for hit in found] == [colour] * number
            assert len(part.search(QUERY, 3, target="image")[0]) == 3
            assert (len(part), part.count("image")) == (number, number)
            assert part.facets()["colour"] == [(colour, number)]
            assert {entry.fields["colour"] for entry in part.entries()} == {colour}
            ids = ["000", "b0"]
            assert part.get(ids).ids == ids[colour == "blue" :][:1]
            assert list(part.measure(QUERY, ids, target="image")) == part.get(ids).ids
        with pytest.raises(ConfigError, match="read only: it is an alias with a filter"):
            part.add(["b0"], image=QUERY)
        with pytest.raises(ConfigError, match="read only"):
            part.delete(["000"])
        part.close()
        assert len(index) == 49


def test_routing_of_an_alias_applies(address: Address, rest: Rest) -> None:
    uri = address(shards="5")
    with filled(uri, ["unrouted"]) as index:
        stored = rest("GET", f"/{index.handle.name}/_doc/unrouted")["_source"]
        for n in range(12):
            document = stored | {"xmodal": {"id": f"d{n}"}}
            rest("PUT", f"/{index.handle.name}/_doc/d{n}?routing=shop{n % 2}", document)
        index.handle.refresh_always()
        alias = index.handle.address.index + "-shop"
        with open_opensearch(add_alias(rest, index, alias, routing="shop1")) as shop:
            # A routing selects the shard, which may have other documents, too.
            found = {hit.id for hit in shop.search(QUERY, 99, target="image")[0]}
            assert (
                {f"d{n}" for n in range(1, 12, 2)}
                <= found
                < {f"d{n}" for n in range(12)} | {"unrouted"}
            )
            assert len(shop) == len(found) == shop.count("image")
            assert set(shop.get([*(f"d{n}" for n in range(12)), "unrouted"]).ids) == found
            assert {entry.id for entry in shop.entries()} == found
            assert shop.explain("d1", QUERY, target="image").code_rank <= len(found)
            with pytest.raises(ConfigError, match="alias with a routing"):
                shop.delete(["d1"])


@pytest.mark.parametrize("strategy", ["script", "knn", "long"])
def test_search_of_several_indexes_is_exact(address: Address, rest: Rest, strategy: str) -> None:
    ids = [f"{n:02}" for n in range(30)]
    first, second = (address(strategy=strategy) for _ in range(2))
    with filled(first, ids, 1, shop="a") as a, filled(second, ids, 2, shop="b") as b:
        names = a.handle.name, b.handle.name
        expected = sorted(
            (int(distance), id_, name)
            for name, seed in zip(names, (1, 2), strict=True)
            for id_, distance in zip(ids, QUERY.distances(few_codes(30, seed))[0], strict=True)
        )
        both = f"{a.handle.address.index},{b.handle.address.index}"
        alias = f"{a.handle.address.index}-both"
        add_alias(rest, a, alias)
        add_alias(rest, b, alias)
        for name in (both, alias, ",".join(names)):
            with open_opensearch(str(a.handle.address.with_index(name))) as index:
                found = index.search(QUERY, 99, target="image")[0]
                assert [(hit.distance, hit.id, hit.index_name) for hit in found] == expected
                assert all(hit.fields["shop"] == "ab"[hit.index_name == names[1]] for hit in found)
                index.handle.window = 7  # pages divide documents of equal ids
                found = index.search(QUERY, 20, target="image")[0]
                assert [(hit.distance, hit.id, hit.index_name) for hit in found] == expected[:20]
                index.handle.window = 1000
                only = index.search(QUERY, 99, target="image", where={"shop": "b"})[0]
                assert {hit.index_name for hit in only} == {names[1]} and len(only) == 30
                assert len(index) == 60 and index.facets()["shop"] == [("a", 30), ("b", 30)]
                assert len(list(index.entries())) == 60 and index.count_codes()["image"] == 60
                with pytest.raises(IndexMismatch, match=f"'05' is in {names[0]} and in {names[1]}"):
                    index.get(["05"])
                with pytest.raises(ConfigError, match="covers 2 indexes"):
                    index.add(["x"], image=QUERY)


def test_indexes_of_other_codes_are_named(address: Address, rest: Rest) -> None:
    with filled(address(), ["a"]) as index:
        server = str(index.handle.address).rpartition("/")[0]
        for options, name in (
            ({"bits": 32, "fingerprint": "e1"}, "32 bits"),
            ({"bits": BITS, "fingerprint": "e2"}, "encoder e2"),
        ):
            with open_opensearch(address(), create=True, **options) as other:
                pair = f"{index.handle.name},{other.handle.name}"
                with pytest.raises(IndexMismatch, match=f"{other.handle.name} .*{name}"):
                    open_opensearch(f"{server}/{pair}")
        with (
            open_opensearch(
                address(strategy="long"), bits=BITS, fingerprint="e1", create=True
            ) as other,
            pytest.raises(IndexMismatch, match="layout long"),
        ):
            open_opensearch(f"{server}/{index.handle.name},{other.handle.name}")
        with pytest.raises(IndexMissing, match="no index nothing-"):
            open_opensearch(f"{server}/nothing-*")
        with pytest.raises(ConfigError, match="names several indexes"):
            open_opensearch(f"{server}/nothing-*", bits=BITS, create=True)


def test_field_of_two_types_is_not_filtered(address: Address) -> None:
    with filled(address(), ["a"], size="10") as a, filled(address(), ["b"], size=10) as b:
        both = str(a.handle.address.with_index(f"{a.handle.name},{b.handle.name}"))
        with open_opensearch(both) as index:
            # As text and as number the field has other sub-fields.
            with pytest.raises(ConfigError, match="'size' is mapped as"):
                index.search(QUERY, 5, target="image", where={"size": 10})
            assert len(index.search(QUERY, 5, target="image")[0]) == 2


def test_index_that_joins_an_open_alias_is_searched(address: Address, rest: Rest) -> None:
    with filled(address(), ["a"]) as a, filled(address(), ["b"]) as b:
        alias = f"{a.handle.address.index}-all"
        with open_opensearch(add_alias(rest, a, alias)) as index:
            assert [hit.id for hit in index.search(QUERY, 9, target="image")[0]] == ["a"]
            add_alias(rest, b, alias)
            assert [hit.id for hit in index.search(QUERY, 9, target="image")[0]] == ["a", "b"]
            assert len(index) == 2
            with open_opensearch(address(), bits=BITS, fingerprint="e2", create=True) as other:
                other.add(["c"], image=QUERY)
                other.handle.refresh()
                add_alias(rest, other, alias)
                with pytest.raises(IndexMismatch, match="encoder e2"):
                    index.search(QUERY, 9, target="image")


def test_smaller_window_is_respected(address: Address, rest: Rest) -> None:
    ids = [f"{n:04}" for n in range(300)]
    with filled(address(), ids, text="some words") as index:
        expected = index.search(QUERY, 250, target="image")[0]
        words = index.search_words([WordsQuery("words")], 250, target="text")[0]
        rest("PUT", f"/{index.handle.name}/_settings", {"index.max_result_window": 100})
        assert index.search(QUERY, 250, target="image")[0] == expected
        assert index.handle.window == 100
        assert index.search_words([WordsQuery("words")], 250, target="text")[0] == words
        assert len(list(index.entries())) == 300
        with open_opensearch(str(index.handle.address) + "?strategy=knn") as by_knn:
            assert by_knn.search(QUERY, 250, target="image")[0] == expected


def test_rollover_alias_and_data_stream_are_read(address: Address, rest: Rest) -> None:
    with filled(address(), ["a"]) as index:
        body = rest("GET", f"/{index.handle.name}")[index.handle.name]
        stem = index.handle.address.index
        template = {
            "index_patterns": [f"{stem}-stream"],
            "data_stream": {},
            "template": {
                "settings": {"index.knn": True, "index.knn.advanced.approximate_threshold": -1},
                "mappings": body["mappings"],
            },
        }
        rest("PUT", f"/_index_template/{stem}", template)
        source = rest("GET", f"/{index.handle.name}/_doc/a")["_source"]
        try:
            for n in range(2):
                document = source | {"@timestamp": "2026-01-01", "xmodal": {"id": f"s{n}"}}
                rest("PUT", f"/{stem}-stream/_create/s{n}?refresh=true", document)
                with open_opensearch(f"{index.handle.address}-stream") as stream:
                    found = stream.search(QUERY, 9, target="image")[0]
                    assert [hit.id for hit in found] == [f"s{i}" for i in range(n + 1)]
                    assert stream.get(["s0"]).ids == ["s0"] and len(stream) == n + 1
                    with pytest.raises(ConfigError, match="read only"):
                        stream.add(["x"], image=QUERY)
                rest("POST", f"/{stem}-stream/_rollover")
        finally:
            rest("DELETE", f"/_data_stream/{stem}-stream")
            rest("DELETE", f"/_index_template/{stem}")


def test_load_into_a_part_is_refused_before_any_change(
    address: Address, rest: Rest, tmp_path: Any
) -> None:
    with filled(address(), ["a"]) as index:
        before = rest("GET", f"/{index.handle.name}")
        alias = add_alias(rest, index, f"{index.handle.address.index}-red", filter=RED)
        before[index.handle.name]["aliases"][alias.rpartition("/")[2]] = {"filter": RED}
        with open_opensearch(alias) as part, pytest.raises(ConfigError, match="read only"):
            load(part, [index.get(["a"])], checkpoints=tmp_path)
        assert rest("GET", f"/{index.handle.name}") == before
        np.testing.assert_equal(len(index), 1)


@pytest.fixture
def far(node: Node, plugin_node: Node, rest: Rest) -> Iterator[str]:
    """Address of a new index of the node that is the remote cluster ``far`` of ``node``."""
    (one,) = plugin_node.get("/_nodes/transport")["nodes"].values()

    def set_seeds(value: list[str] | None) -> None:
        settings = {"cluster.remote.far.seeds": value}
        rest("PUT", "/_cluster/settings", {"persistent": settings})

    name = f"far-{uuid4().hex[:8]}"
    set_seeds([one["transport"]["publish_address"]])
    yield f"opensearch://127.0.0.1:{plugin_node.port}/{name}?strategy=script"
    set_seeds(None)
    Server(plugin_node.url)("DELETE", f"{name}-*")


def test_indexes_of_a_remote_cluster_are_read(
    address: Address, plugin_node: Node, far: str
) -> None:
    with (
        filled(far, ["a", "b"], 1, shop="x") as there,
        filled(address(), ["a", "c"], 2, shop="y") as here,
    ):
        name = f"far:{there.handle.name}"
        near = str(here.handle.address).rpartition("/")[0]
        with open_opensearch(f"{near}/far:{there.handle.address.index}") as index:
            assert index.search(QUERY, 9, target="image") == there.search(QUERY, 9, target="image")
            assert (index.fingerprint, index.bits) == ("e1", BITS)
            assert index.get(["b", "c"]).ids == ["b"] and len(index) == 2
            assert index.facets()["shop"] == [("x", 2)]
            with pytest.raises(ConfigError, match="remote cluster"):
                index.add(["x"], image=QUERY)
        with open_opensearch(f"{near}/{here.handle.name},{name[:-3]}*") as index:
            found = index.search(QUERY, 9, target="image")[0]
            places = [(hit.distance, hit.id, str(hit.index_name)) for hit in found]
            assert places == sorted(places)
            assert {place[1:] for place in places} == {
                ("a", name),
                ("b", name),
                ("a", here.handle.name),
                ("c", here.handle.name),
            }
            with pytest.raises(IndexMismatch, match=f"'a' is in {name} and in"):
                index.get(["a"])
        with pytest.raises(IndexMismatch, match="expected 32"):
            open_opensearch(f"{near}/{name}", bits=32)
        with pytest.raises(IndexMissing, match="no index far:"):
            open_opensearch(f"{near}/far:nothing")
        # An earlier version did not store the encoder with the self-test document.
        body = {"self_test_code": mapping.self_test_code(BITS).to_signed()[0]}
        path = f"{there.handle.name}/_doc/{mapping.SELF_TEST_ID}"
        Server(plugin_node.url)("PUT", f"{path}?routing={mapping.SELF_TEST_ID}&refresh=true", body)
        with pytest.raises(IndexMismatch, match="does not name an encoder"):
            open_opensearch(f"{near}/{name}")
        (finding,) = inspect(there.handle.server, there.handle.address).findings
        assert repair(Inspection([finding])) != []
        open_opensearch(f"{near}/{name}").close()
