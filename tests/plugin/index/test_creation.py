"""Creation of an index: templates that do not fit, failures and kills in the middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from support.filled import BITS, random_codes

from xmodal.errors import ConfigError, ServerFailure
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import creation
from xmodal_opensearch.index.aliases import versions_of
from xmodal_opensearch.index.store import open_opensearch

Address = Callable[..., str]
Rest = Callable[..., Any]

RENAME = {"rename": {"field": "title", "target_field": "heading"}}
PIPELINES = {
    "needs-title": [RENAME],
    "drops": [{"drop": {"if": "ctx.title == null"}}],
    "changes-codes": [{"set": {"field": "self_test_code", "value": [0] * (BITS // 8)}}],
    "adds-a-field": [{"set": {"field": "stored_by", "value": "pipeline"}}],
}
CODE = {"type": "knn_vector", "dimension": 8, "data_type": "binary", "space_type": "hamming"}


def excludes(*names: str) -> dict[str, Any]:
    return {"mappings": {"_source": {"excludes": list(names)}}}


def settings(**values: Any) -> dict[str, Any]:
    return {"settings": {f"index.{name.replace('__', '.')}": one for name, one in values.items()}}


@pytest.fixture(scope="module")
def pipelines(rest: Rest) -> Iterator[None]:
    """Ingest pipelines of another team."""
    for name, processors in PIPELINES.items():
        rest("PUT", f"/_ingest/pipeline/{name}", {"processors": processors})
    yield
    for name in PIPELINES:
        rest("DELETE", f"/_ingest/pipeline/{name}")


@pytest.fixture
def with_template(address: Address, rest: Rest) -> Iterator[Callable[..., str]]:
    """``with_template({...})`` -> the address of a new index to which a template applies."""
    names: list[str] = []

    def make(
        template: Any, *, kind: str = "_index_template", component: Any = None, **more: Any
    ) -> str:
        uri = address()
        name = parse_address(uri).index
        if component is not None:
            names.append(f"/_component_template/{name}")
            rest("PUT", names[-1], {"template": component})
            more["composed_of"] = [name]
        names.append(f"/{kind}/{name}")
        content = template if kind == "_template" else {"template": template}
        rest("PUT", names[-1], {"index_patterns": [f"{name}-*"], **content, **more})
        return uri

    yield make
    for name in reversed(names):
        rest("DELETE", name)


def left_of(uri: str) -> dict[str, bool]:
    """Return the versions of an address, and whether its alias points to each."""
    address = parse_address(uri)
    server = Server(address)
    try:
        return versions_of(server, address.index)
    finally:
        server.close()


@pytest.mark.parametrize(
    ("template", "named"),
    [
        (settings(default_pipeline="needs-title"), "pipeline needs-title"),
        (settings(final_pipeline="needs-title"), "pipeline needs-title"),
        (settings(default_pipeline="drops"), "pipeline drops, which drops"),
        (settings(default_pipeline="changes-codes"), "pipeline changes-codes, which changes"),
        (settings(default_pipeline="absent"), "pipeline absent"),
        (settings(blocks__write=True), "index.blocks.write"),
        (excludes("text_code"), "_source without text_code"),
        (excludes("*_vector"), "_source without image_vector"),
        (excludes("xmodal.*"), "_source without xmodal.id"),
        ({"mappings": {"_source": {"includes": ["title"]}}}, "_source without xmodal.id"),
        ({"mappings": {"_source": {"enabled": False}}}, "_source without fields"),
        ({"mappings": {"_routing": {"required": True}}}, "_routing.required"),
        ({"mappings": {"properties": {"image_codes": {"type": "keyword"}}}}, "image_codes"),
        (
            {"mappings": {"properties": {"xmodal": {"properties": {"a": {"type": "long"}}}}}},
            "reserved field xmodal",
        ),
    ],
)
def test_templates_that_do_not_fit_are_named_and_no_index_is_left(
    with_template: Callable[..., str], pipelines: None, template: Any, named: str
) -> None:
    uri = with_template(template)
    with pytest.raises(ConfigError) as caught:
        open_opensearch(uri, bits=BITS, create=True)
    message = str(caught.value)
    assert named in message and f"index template {parse_address(uri).index} " in message
    assert left_of(uri) == {}


def test_legacy_templates_and_components_are_named(with_template: Callable[..., str]) -> None:
    uri = with_template(excludes("image_code"), kind="_template")
    with pytest.raises(ConfigError, match=f"template {parse_address(uri).index} "):
        open_opensearch(uri, bits=BITS, create=True)
    composed = with_template({}, component=excludes("image_code"))
    with pytest.raises(ConfigError, match=f"template {parse_address(composed).index} "):
        open_opensearch(composed, bits=BITS, create=True)


def test_a_template_for_data_streams_is_refused_with_the_servers_reason(
    with_template: Callable[..., str],
) -> None:
    uri = with_template({}, data_stream={})
    with pytest.raises(ServerFailure, match=r"template .* creates data streams only"):
        open_opensearch(uri, bits=BITS, create=True)
    assert left_of(uri) == {}


def test_templates_that_fit_apply(
    with_template: Callable[..., str], pipelines: None, rest: Rest
) -> None:
    template = {
        "settings": {"index.default_pipeline": "adds-a-field", "index.refresh_interval": "7s"},
        "mappings": {
            "dynamic": "strict",
            "_source": {"excludes": ["unused"]},
            "properties": {"day": {"type": "date"}, "image_code": CODE},
        },
    }
    uri = with_template(template)
    codes = random_codes(2)
    with open_opensearch(uri, bits=BITS, create=True) as index:
        index.add(["a", "b"], image=codes, fields=[{"day": "2026-01-02"}, {"colour": "red"}])
        index.handle.refresh()
        (hits,) = index.search(codes[:1], 2, target="image", where={"stored_by": "pipeline"})
        assert hits[0].id == "a" and len(hits) == 2
        (hits,) = index.search(codes[:1], 2, target="image", where={"colour": "red"})
        assert [hit.id for hit in hits] == ["b"]
        found = rest("GET", f"/{index.handle.name}/_settings?flat_settings=true")
        assert found[index.handle.name]["settings"]["index.refresh_interval"] == "7s"


# ---- failures and kills ------------------------------------------------------------------------


def refuse(*arguments: object, **options: object) -> None:
    raise ServerFailure("no permissions for [indices:data/write/index]", 403, "security_exception")


class Killed(BaseException):
    """Simulates the end of the process."""


def kill(*arguments: object, **options: object) -> None:
    raise Killed


def test_a_user_who_may_not_write_leaves_no_index(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = address()
    with monkeypatch.context() as patch:
        patch.setattr(creation, "store_self_test", refuse)
        with pytest.raises(ServerFailure, match=r"no permissions for .*write/index\]$"):
            open_opensearch(uri, bits=BITS, create=True)
    assert left_of(uri) == {}


def test_an_index_that_cannot_be_removed_is_named_with_the_command(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = address()
    request = Server.request

    def no_deletes(server: Server, method: str, path: str, *rest: Any, **options: Any) -> Any:
        return refuse() if method == "DELETE" else request(server, method, path, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(creation, "store_self_test", refuse)
        patch.setattr(Server, "request", no_deletes)
        with pytest.raises(ServerFailure) as caught:
            open_opensearch(uri, bits=BITS, create=True)
    (name,) = left_of(uri)
    assert f"{name} is left: xmodal-opensearch delete {uri}" in str(caught.value)
    assert caught.value.status == 403
    open_opensearch(uri, bits=BITS, create=True).close()
    assert left_of(uri) == {name: True}


@pytest.mark.parametrize("step", ["_check_templates", "store_self_test", "alias_actions"])
def test_a_killed_creation_is_completed_by_the_next_one(
    address: Address, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    uri = address()
    with monkeypatch.context() as patch:
        patch.setattr(creation, step, kill)
        patch.setattr(creation, "_removed_on_failure", lambda *one: nullcontext([]))
        with pytest.raises(Killed):
            open_opensearch(uri, bits=BITS, create=True)
    (name,) = left_of(uri)
    assert left_of(uri) == {name: False}
    with open_opensearch(uri, bits=BITS, create=True) as index:
        index.add(["a"], image=random_codes(1))
        index.handle.refresh()
        assert len(index) == 1
    assert left_of(uri) == {name: True}


@pytest.mark.parametrize("bits", [BITS, 2 * BITS])
def test_other_indexes_without_alias_are_left_alone(
    address: Address, rest: Rest, bits: int
) -> None:
    """An old version with documents, or of another width."""
    uri = address()
    with open_opensearch(uri, bits=bits, create=True) as index:
        if bits == BITS:
            index.add(["a"], image=random_codes(1))
    rest("DELETE", f"/{index.handle.name}/_alias/{parse_address(uri).index}")
    with open_opensearch(uri, bits=BITS, create=True) as new:
        assert len(new) == 0
    assert left_of(uri) == {index.handle.name: False, new.handle.name: True}
