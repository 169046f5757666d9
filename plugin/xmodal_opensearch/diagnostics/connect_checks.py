"""Checks of what ``connect`` created: pipelines of the index, their model, or its service."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from xmodal.errors import IndexMissing
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.diagnostics.findings import Finding, Subject
from xmodal_opensearch.index.ownership import OwnershipTag
from xmodal_opensearch.rest import connector, local_model, remote_model


def check_connect(subject: Subject) -> Iterator[Finding]:
    """Pipelines of other encoders, without model or service, and of indexes that are gone."""
    tags = {
        (tag.name, tag.index): tag for tag in connector.tagged_pipelines(subject.server).values()
    }
    for tag in tags.values():
        if tag.index == subject.address.index:
            yield from _check_own(subject, tag)
        elif not _exists(subject.server, tag.index):
            uri = quote(str(subject.address.with_index(tag.index)))
            yield Finding(
                "pipelines-without-index",
                f"pipelines of connect --name {tag.name} are for {tag.index}",
                "this index does not exist",
                f"xmodal-opensearch disconnect {uri} --name {tag.name}",
                is_wrong=False,
            )


def _check_own(subject: Subject, tag: OwnershipTag) -> Iterator[Finding]:
    samples = connector.read_samples(subject.server, tag)
    source = ("--service", "URL") if samples is None else ("--in-cluster", "TOWER")
    command = subject.command("connect", "--name", tag.name, *source)
    for name, content in subject.indexes.items():
        found = content["mappings"].get("_meta", {}).get("xmodal", {}).get("encoder")
        if found is not None and found != tag.fingerprint:
            yield Finding(
                "pipelines-of-other-encoder",
                f"the pipelines of connect --name {tag.name} are for encoder {tag.fingerprint}",
                f"{name} holds codes of {found}",
                f"run {command} with that model",
            )
            return
    if samples is not None:
        problem = local_model.find_problem(subject.server, tag, samples)
        if problem:
            yield Finding(
                "text-tower",
                f"the pipelines of connect --name {tag.name} do not work",
                problem,
                command,
            )
        return
    problem = remote_model.find_problem(subject.server, tag)
    if problem:
        yield Finding(
            "service",
            f"the pipelines of connect --name {tag.name} do not work",
            problem,
            f"start xmodal serve again, or {command}",
        )


def _exists(server: Server, index: str) -> bool:
    try:
        server.request("GET", f"/{index}/_alias", doing=f"looking for {index}")
    except IndexMissing:
        return False
    return True
