"""Creation of an index: mapping, self-test document, alias, in this order.

The alias is added last, so that only complete indexes are found by their name. A creation that
fails removes its index; one that was killed leaves an index without alias and documents, which the
next creation completes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from shlex import quote
from typing import Any

from xmodal.codes import check_bits
from xmodal.errors import ConfigError, IndexMissing, ServerFailure, XmodalError
from xmodal_opensearch.client.address import Address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping, write_guard
from xmodal_opensearch.index.aliases import alias_actions, describe, next_version, versions_of
from xmodal_opensearch.index.bit_order_check import read_self_test, store_self_test
from xmodal_opensearch.index.mapping import Layout
from xmodal_opensearch.index.templates import template_conflict, template_of

PIPELINES = ("index.default_pipeline", "index.final_pipeline")
"""Settings with the ingest pipelines that documents of an index pass."""


def make_version(
    server: Server,
    address: Address,
    bits: int,
    fingerprint: str | None,
    layout: Layout,
    *,
    alias: str | None,
    fields: Mapping[str, Any] | None = None,
    meta: Mapping[str, Any] | None = None,
    like: Mapping[str, Any] | None = None,
) -> str:
    """Create the next version of ``address.index`` with its self-test document; return its name.

    ``alias`` points to it at the end; with None it is not searched until the alias is moved.
    ``fields``: mapping of the user's own fields. ``meta``: further entries of ``_meta``. ``like``:
    the whole mapping, that of another index with these codes. Raises CodeError for an invalid
    width, ConfigError for an index template that does not fit, and ServerFailure; the index is
    removed then.
    """
    check_bits(bits)  # the server accepts some invalid widths
    body = mapping.new_index(
        bits,
        fingerprint,
        layout,
        shards=address.shards,
        replicas=address.replicas,
        fields=fields,
        meta=meta,
    )
    if like is not None:
        # Other entries of _meta describe the state of the other index, such as a load.
        body["mappings"] = {**like, "_meta": {"xmodal": like["_meta"]["xmodal"]}}
    versions = versions_of(server, address.index)
    name = next_version(address.index, versions)
    last = max(versions, default="")
    if alias is not None and last and not versions[last] and _is_unfinished(server, last, body):
        name = last
    body["aliases"] = write_guard.new_guard(name)
    with _removed_on_failure(server, address, name) as is_own:
        try:
            server.request("PUT", f"/{name}", body, doing=f"creating {name}")
            is_own.append(name)
        except ServerFailure as error:
            if "already exists" not in error.reason:
                raise
            # An earlier creation was killed, or another one runs: both store the same document.
        _check_templates(server, name, bits, layout, body)
        if alias is not None:
            doing = f"adding the alias {alias}"
            server.request("POST", "/_aliases", alias_actions(alias, (), name), doing=doing)
    return name


# ---- details -------------------------------------------------------------------------------------


@contextmanager
def _removed_on_failure(server: Server, address: Address, name: str) -> Iterator[list[str]]:
    """Remove the index on an error inside, if its name was added to the yielded list."""
    own: list[str] = []
    try:
        yield own
    except BaseException as error:
        try:
            for index in own:
                server.request("DELETE", f"/{index}", doing="removing", retry_timeout=0)
        except IndexMissing:
            pass
        except XmodalError:
            if isinstance(error, XmodalError):
                command = f"xmodal-opensearch delete {quote(str(address))}"
                error.args = (f"{error}; the unfinished index {name} is left: {command}",)
        raise


def _is_unfinished(server: Server, name: str, body: Mapping[str, Any]) -> bool:
    """Whether an index without alias is what a killed creation of ``body`` left: no documents."""
    found = describe(server, name)
    if found is None:
        return False
    mappings, asked = found[1]["mappings"], body["mappings"]
    names = mappings.get("properties", {}).keys()
    is_same = mappings.get("_meta") == asked["_meta"] and names == asked["properties"].keys()
    return is_same and server.count(name, {"exists": {"field": mapping.ID}}) == 0


def _check_templates(
    server: Server, name: str, bits: int, layout: Layout, body: Mapping[str, Any]
) -> None:
    """Store the self-test document. Raises ConfigError if an index template prevents it.

    ``body``: of the request that created the index. The document passes the ingest pipelines of the
    index as later documents do.
    """
    found = describe(server, name)
    if found is None:
        raise IndexMissing(f"{server.address.server}: {name} was deleted while it was created")
    mappings, settings = found[1]["mappings"], found[1]["settings"]
    conflict = template_conflict(body, mappings, settings)
    if conflict:
        raise _template_error(server, name, conflict)
    pipelines = [settings[key] for key in PIPELINES if settings.get(key, "_none") != "_none"]
    if not pipelines:
        store_self_test(server, name, bits, layout)
        return
    passed = f"the ingest pipeline {' or '.join(pipelines)}"
    try:
        store_self_test(server, name, bits, layout, pipeline=None)
    except ServerFailure as error:
        if error.status != 400:
            raise
        raise _template_error(server, name, f"{passed} ({error.reason})") from None
    stored = read_self_test(server, name)
    if stored is None:
        raise _template_error(server, name, f"{passed}, which drops documents")
    (value,) = layout.values(mapping.self_test_code(bits))
    if stored.get(mapping.SELF_TEST_FIELD) != value:
        raise _template_error(server, name, f"{passed}, which changes codes")


def _template_error(server: Server, name: str, conflict: str) -> ConfigError:
    return ConfigError(
        f"{server.address.server}: {template_of(server, name)} gives {name} {conflict}: change it, "
        "or exclude this name from its index_patterns; no index was created"
    )
