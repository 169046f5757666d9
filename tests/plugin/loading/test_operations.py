"""The commands of docs/operations.md, with the names of node and index replaced."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.rest_path import curl, run

from xmodal.errors import IndexMismatch
from xmodal.index.local import HammingIndex
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.index.store import open_opensearch

PAGE = Path(__file__).parents[3] / "docs" / "operations.md"
ALSO_OPENED = {
    "old-photos-$1": "old-photos-000001",
    "_shrink": "photos-000004",
    "copies-of-photos": "copies-of-photos",
    "moved-photos": "moved-photos",
}
"""Indexes that are compared besides ``photos``, by a word of the block that makes them."""


def blocks() -> list[list[str]]:
    """Return the command lines of each block of the page."""
    found = re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return [block.splitlines() for block in found]


def run_line(line: str, folder: Path) -> None:
    """Run one command; a curl command must be answered without an error."""
    if line.startswith("curl") and "|" not in line:
        answer = curl(line, folder)
        assert "error" not in answer and not answer.get("failures"), (line, answer)
    elif line.startswith("xmodal-opensearch"):
        run(*shlex.split(line)[1:])
    else:
        subprocess.run(["bash", "-c", line], cwd=folder, check=True)


def check_same(uri: str, local: HammingIndex) -> None:
    """Compare documents and hits with those of the local index."""
    with open_opensearch(uri) as index:
        assert index.fingerprint == local.fingerprint and len(index) == len(local)
        for target in ("image", "text"):
            ids, codes = local.codes(target)  # type: ignore[arg-type]
            assert index.count(target) == len(set(ids))  # type: ignore[arg-type]
            found, expected = (
                one.search(codes[:3], 20, target=target)  # type: ignore[arg-type]
                for one in (index, local)
            )
            assert [[(h.id, h.distance, dict(h.fields)) for h in row] for row in found] == [
                [(h.id, h.distance, dict(h.fields)) for h in row] for row in expected
            ]


@pytest.mark.slow
def test_commands_of_the_page_keep_the_index(
    node_url: str, index_path: Path, model: Path, tmp_path: Path,
    address: Callable[..., str], rest: Callable[..., Any],
) -> None:  # fmt: skip
    shutil.copytree(model, tmp_path / "my.model")
    uri = address()
    name = parse_address(uri).index
    run("load", index_path, "--index", uri)
    local = HammingIndex.load(index_path, bits=None, fingerprint=None)

    def localized(text: str) -> str:
        text = re.sub(
            r"\b(copies-of-|moved-|old-)?photos\b", lambda m: f"{name}{_tail(m[1])}", text
        )
        host = node_url.partition("//")[2]
        return re.sub(r"localhost:920[01]", host, text).replace(
            "_snapshot/backup", f"_snapshot/{name}"
        )

    try:
        for block in blocks():
            for line in block:
                run_line(localized(line), tmp_path)
            check_same(uri, local)
            for word, other in ALSO_OPENED.items():
                if any(word in line for line in block) and "DELETE" not in block[0]:
                    check_same(uri.replace(name, localized(other)), local)
    finally:
        rest("DELETE", f"/_snapshot/{name}")
    assert {path.name for path in (tmp_path / "my.model").iterdir()} == {
        path.name for path in model.iterdir()
    }


def _tail(prefix: str | None) -> str:
    """Return a suffix in place of a prefix, so that the fixture deletes the index."""
    return "" if prefix is None else f"-{prefix.rstrip('-')}"


# ---- what operations lose ----------------------------------------------------------------------


def test_a_reindex_into_an_index_without_mapping_is_named(
    address: Callable[..., str], index_path: Path, rest: Callable[..., Any]
) -> None:
    uri, bare = address(), address()
    run("load", index_path, "--index", uri)
    source, target = (parse_address(one).index for one in (uri, bare))
    rest("POST", "/_reindex?refresh=true", {"source": {"index": source}, "dest": {"index": target}})
    with pytest.raises(IndexMismatch, match=r"without the mapping of codes .image_code is long"):
        open_opensearch(bare)


def test_a_lost_meta_is_named_and_its_copy_repairs(
    address: Callable[..., str], index_path: Path, rest: Callable[..., Any]
) -> None:
    uri = address()
    run("load", index_path, "--index", uri)
    with open_opensearch(uri) as index:
        name, meta = index.handle.name, index.handle.read_meta()
    rest("PUT", f"/{name}/_mapping", {"_meta": {}})
    with pytest.raises(IndexMismatch, match=r"lost _meta.xmodal .* PUT /NAME/_mapping"):
        open_opensearch(uri)
    rest("PUT", f"/{name}/_mapping", {"_meta": meta})
    check_same(uri, HammingIndex.load(index_path, bits=None, fingerprint=None))
