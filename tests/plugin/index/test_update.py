"""xmodal index --prune, delete and info on a server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from xmodal.index.contract import open_index
from xmodal.index.origins import ListedIndex


def test_an_index_on_a_server_stays_true_to_its_sources(
    xmodal_cli: Callable[..., Any],
    node_url: str,
    model: Path,
    photos_folder: Path,
    tmp_path: Path,
) -> None:
    uri = f"opensearch://{node_url.removeprefix('http://')}/update-{uuid4().hex[:8]}"
    pictures = sorted(photos_folder.glob("**/*.png"))
    for number, name in enumerate(("holiday/a", "holiday/b", "holiday/c", "work/a")):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        shutil.copy(pictures[number], path)
    holiday, work = tmp_path / "holiday", tmp_path / "work"

    def index(data: Path, *options: str) -> dict[str, int]:
        result = xmodal_cli("index", data, "--model", model, "--index", uri, "--json", *options)
        assert result.status == 0, result.err
        changes: dict[str, int] = json.loads(result.out)["changes"]
        return {name: count for name, count in changes.items() if count}

    def ids() -> list[str]:
        opened = open_index(uri)
        assert isinstance(opened, ListedIndex)
        return [entry.id for entry in opened.entries()]

    assert index(holiday) == {"added": 3}
    assert index(work) == {"added": 1}
    assert ids() == ["a.png", "b.png", "c.png", "work/a.png"]
    assert index(holiday) == {"unchanged": 3}
    (holiday / "a.png").rename(holiday / "z.png")
    (holiday / "b.png").unlink()
    assert index(holiday) == {"moved": 1, "unchanged": 1, "missing": 1}
    assert index(holiday, "--prune") == {"unchanged": 2, "removed": 1}
    assert ids() == ["c.png", "work/a.png", "z.png"]
    found = json.loads(xmodal_cli("info", uri, "--json").out)
    assert found["sources"] == {str(holiday): 2, str(work): 1}
    assert found["codes"] == {"image": 3, "text": 0} and found["bytes"]["primary shards"] > 0
    image = str(holiday / "z.png")
    assert xmodal_cli("delete", uri, "--where", f"image={image}").status == 0
    assert ids() == ["c.png", "work/a.png"]
    assert xmodal_cli("delete", uri, "--source", work).status == 0
    assert ids() == ["c.png"]
