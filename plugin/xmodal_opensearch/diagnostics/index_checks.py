"""Checks of the indexes behind an address: settings, mapping, self-test document, documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from xmodal.errors import IndexMismatch, ServerFailure
from xmodal.modality import MODALITIES
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.diagnostics.findings import Finding, Subject
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.aliases import versions_of
from xmodal_opensearch.index.bit_order_check import (
    hides_documents,
    read_self_test,
    store_self_test,
)
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.index.templates import is_true, left_out_of_source, set_blocks
from xmodal_opensearch.loading import load, new_version

CLOSED = "index.verified_before_close"
"""Setting of a closed index."""
PIPELINES = {
    "index.default_pipeline": ("/_ingest/pipeline", "documents"),
    "index.final_pipeline": ("/_ingest/pipeline", "documents"),
    "index.search.default_pipeline": ("/_search/pipeline", "searches of other clients"),
}
"""Settings that name a pipeline: where pipelines are read, and what a missing one refuses."""
MAX_RESULT_WINDOW = 10_000


def check_settings(subject: Subject) -> Iterator[Finding]:
    """Settings that a killed load left, blocks, and a closed index."""
    for name, content in subject.indexes.items():
        settings, saved = content["settings"], content["mappings"].get("_meta", {}).get(load.KEY)
        if isinstance(saved, Mapping):
            yield Finding(
                "load-settings",
                f"{name} has the settings of a load",
                "a load was killed, or is running",
                f"if none is running: repeat it, or {subject.repair_command}",
                fix=partial(_restore_settings, subject, name),
            )
        elif settings.get("index.refresh_interval") == "-1":
            yield Finding(
                "refresh-off",
                f"{name} has refresh_interval -1",
                "new documents are not found until the next refresh",
                subject.set_command(name, {"index.refresh_interval": None}),
            )
        for block in set_blocks(settings):
            full = block.endswith("allow_delete")
            yield Finding(
                "block",
                f"{name} has {block}",
                "a disk was full, and documents are refused" if full else "requests are refused",
                ("free disk space, then " if full else "")
                + subject.set_command(name, {block: None}),
            )
        if is_true(settings.get(CLOSED)):
            yield Finding(
                "closed",
                f"{name} is closed",
                "it can be neither searched nor written",
                subject.curl.command("POST", f"/{name}/_open"),
            )
        window = int(settings.get("index.max_result_window", MAX_RESULT_WINDOW))
        if window < MAX_RESULT_WINDOW:
            yield Finding(
                "result-window",
                f"{name} has max_result_window {window}",
                "one answer has at most this number of documents",
                subject.set_command(name, {"index.max_result_window": None}),
                is_wrong=False,
            )


def check_pipelines(subject: Subject) -> Iterator[Finding]:
    """Default pipelines that do not exist."""
    for name, content in subject.indexes.items():
        for setting, (path, refused) in PIPELINES.items():
            pipeline = content["settings"].get(setting, "_none")
            if pipeline != "_none" and not _exists(subject.server, f"{path}/{pipeline}"):
                yield Finding(
                    "missing-pipeline",
                    f"{setting} of {name} is {pipeline}, which does not exist",
                    f"{refused} are refused",
                    subject.set_command(name, {setting: None}),
                )


def check_mapping(subject: Subject) -> Iterator[Finding]:
    """Mappings that lost ``_meta`` or have another layout, and fields left out of ``_source``."""
    for name, content in subject.indexes.items():
        mappings = content["mappings"]
        try:
            bits, _ = mapping.read_meta(name, mappings)
            mapping.read_layout(name, bits, mappings, content["settings"])
        except IndexMismatch as error:
            found, _, repair = str(error).partition(": ")
            yield Finding("mapping", found, "it cannot be searched", repair)
            continue
        left_out = left_out_of_source(mappings)
        if left_out:
            yield Finding(
                "source",
                f"_source of {name} leaves out {left_out}",
                "an update of a document loses its code",
                "make a new version without this rule: see docs/operations.md, reindex",
            )


def check_self_test(subject: Subject) -> Iterator[Finding]:
    """Self-test documents that are missing, have other bits or do not name the encoder."""
    for name, content in _searchable(subject):
        bits, fingerprint = mapping.read_meta(name, content["mappings"])
        layout = mapping.read_layout(name, bits, content["mappings"], content["settings"])
        stored = read_self_test(subject.server, name)
        (expected,) = layout.values(mapping.self_test_code(bits))
        if stored is None and hides_documents(subject.server, name):
            yield Finding(
                "self-test-hidden",
                f"document-level security hides {mapping.SELF_TEST_ID} of {name} from this user",
                "the bit order of its codes is not checked",
                "run doctor as a user who sees all documents",
                is_wrong=False,
            )
        elif stored is None:
            yield Finding(
                "self-test",
                f"{name} has no document {mapping.SELF_TEST_ID}",
                "it cannot be opened",
                subject.repair_command,
                fix=partial(store_self_test, subject.server, name, bits, layout),
            )
        elif stored.get(mapping.SELF_TEST_FIELD, expected) != expected:
            yield Finding(
                "self-test",
                f"the document {mapping.SELF_TEST_ID} of {name} has other bits",
                "its codes may have another bit order",
                "load the documents again, into a new version (--new-version)",
            )
        elif stored.get("xmodal", {}).get("encoder") != fingerprint:
            yield Finding(
                "self-test-encoder",
                f"the document {mapping.SELF_TEST_ID} of {name} does not name the encoder",
                "other clusters cannot search this index",
                subject.repair_command,
                is_wrong=False,
                fix=partial(store_self_test, subject.server, name, bits, layout),
            )


def check_documents(subject: Subject) -> Iterator[Finding]:
    """Documents of other encoders, and documents by other clients that lack the id."""
    for name, content in _searchable(subject):
        yield from _other_encoders(subject, name, content["mappings"])
        yield from _without_id(subject, name, content)


def _other_encoders(subject: Subject, name: str, mappings: Mapping[str, Any]) -> Iterator[Finding]:
    _, fingerprint = mapping.read_meta(name, mappings)
    if fingerprint is None:
        return
    query = {
        "bool": {
            "filter": [{"exists": {"field": mapping.ENCODER}}],
            "must_not": [{"term": {mapping.ENCODER: fingerprint}}],
        }
    }
    count = subject.server.count(name, query)
    if count:
        enriched = mapping.is_enriched(mappings)
        yield Finding(
            "other-encoder",
            f"{count:,} documents of {name} have codes of another encoder",
            "no search finds them" if enriched else "their distances mean nothing",
            "encode them again with "
            + ("xmodal-opensearch enrich" if enriched else "xmodal index"),
        )


def _without_id(subject: Subject, name: str, content: Mapping[str, Any]) -> Iterator[Finding]:
    bits, _ = mapping.read_meta(name, content["mappings"])
    layout = mapping.read_layout(name, bits, content["mappings"], content["settings"])
    query = {
        "bool": {
            "should": [layout.present(mapping.field_of(modality)) for modality in MODALITIES],
            "minimum_should_match": 1,
            "must_not": [{"exists": {"field": mapping.ID}}],
        }
    }
    count = subject.server.count(name, query)
    if count:
        script = (
            "if (ctx._source.xmodal == null) { ctx._source.xmodal = [:] } "
            "ctx._source.xmodal.id = ctx._id"
        )
        body = {"query": query, "script": {"source": script}}
        yield Finding(
            "no-id",
            f"{count:,} documents of {name} have a code and no {mapping.ID}",
            "they are not counted, and ties with them are in no order",
            subject.curl.command("POST", f"/{name}/_update_by_query?refresh=true", body),
        )


def check_versions(subject: Subject) -> Iterator[Finding]:
    """Versions to which the alias does not point: unfinished ones, and old ones."""
    alias, server = subject.address.index, subject.server
    delete = subject.command("delete", "--old-versions")
    for name, in_use in versions_of(server, alias).items():
        if in_use or name in subject.indexes:
            continue
        content = server.request("GET", f"/{name}", doing="reading an old version")[name]
        meta = content["mappings"].get("_meta", {})
        if "xmodal" not in meta:
            continue
        source = meta.get(new_version.KEY)
        if source is not None:
            yield Finding(
                "unfinished-version",
                f"{name} is an unfinished version, filled from {source}",
                "a load with --new-version was killed, or is running",
                f"repeat the load, or {delete}",
            )
        elif not server.count(name, {"exists": {"field": mapping.ID}}):
            yield Finding(
                "half-made",
                f"{name} has no alias and no documents",
                "a creation was killed, or is running",
                delete,
            )
        else:
            yield Finding(
                "old-version",
                f"{name} is an old version",
                f"{alias} does not point to it, and it takes space",
                f"if you will not return to it: {delete}",
                is_wrong=False,
            )


# ---- details -------------------------------------------------------------------------------------


def _searchable(subject: Subject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The open indexes whose mapping fits."""
    for name, content in subject.indexes.items():
        try:
            bits, _ = mapping.read_meta(name, content["mappings"])
            mapping.read_layout(name, bits, content["mappings"], content["settings"])
        except IndexMismatch:
            continue
        if not is_true(content["settings"].get(CLOSED)):
            yield name, content


def _restore_settings(subject: Subject, name: str) -> None:
    """Restore the settings of before a load."""
    address = subject.address.with_index(name)
    index = OpenSearchIndex(subject.server, address, bits=None, fingerprint=None)
    load.restore_settings(index)


def _exists(server: Server, path: str) -> bool:
    try:
        server.request("GET", path, doing="reading a pipeline")
    except ServerFailure as error:
        if error.status == 404:
            return False
        raise
    return True
