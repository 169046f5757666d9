"""Commands on pictures inside of tar shards and tables: train, index, search, prune, info."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CommandResult
from support.packed_files import archive

from xmodal.index.contract import Index, open_index

Run = Callable[..., CommandResult]
COUNT = 24
PROGRESS = re.compile(r"(hashing|pictures|texts|indexing).*")


@pytest.fixture(scope="module")
def photos(photos_folder: Path) -> list[tuple[str, bytes, str]]:
    """Key, content and caption of some pictures."""
    rows = map(json.loads, (photos_folder / "metadata.jsonl").read_text().splitlines()[:COUNT])
    return [
        (Path(row["file_name"]).stem, (photos_folder / row["file_name"]).read_bytes(), row["text"])
        for row in rows
    ]


@pytest.fixture
def shards(photos: list[tuple[str, bytes, str]], tmp_path: Path) -> Path:
    """A folder of two shards."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(2):
        write_shard(folder / f"{number}.tar", photos[number * COUNT // 2 :][: COUNT // 2])
    return folder


def write_shard(path: Path, photos: list[tuple[str, bytes, str]]) -> None:
    members = {}
    for key, content, caption in photos:
        members |= {f"{key}.png": content, f"{key}.txt": caption.encode()}
    archive(path, members)


def codes_by_picture(index: Index, modality: str = "image") -> dict[str, bytes]:
    """Return the code of each document, by the end of its id."""
    ids = [entry.id for entry in index.entries()]  # type: ignore[attr-defined]
    found = index.get(ids)
    packed = found.codes(modality)[1].packed  # type: ignore[arg-type]
    return {id_.rpartition("/")[2]: code.tobytes() for id_, code in zip(ids, packed, strict=True)}


def test_codes_of_packed_pictures_are_those_of_files(
    xmodal_cli: Run,
    model: Path,
    shards: Path,
    photos: list[tuple[str, bytes, str]],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for key, content, caption in photos:
        (folder / f"{key}.png").write_bytes(content)
        (folder / f"{key}.txt").write_text(caption)
    structs = [{"bytes": content, "path": f"{key}.png"} for key, content, _ in photos]
    columns = {"id": [key for key, _, _ in photos], "image": structs}
    pq.write_table(
        pa.table(columns | {"text": [text for *_, text in photos]}), tmp_path / "t.parquet"
    )
    expected: dict[str, bytes] = {}
    sources = (folder, shards, tmp_path / "t.parquet", shards / "{0..1}.tar")
    for number, source in enumerate(sources):
        index = tmp_path / "index"
        options = ("--model", model, "--index", index, "--cache", tmp_path / f"cache {number}")
        result = xmodal_cli("index", source, *options)
        assert result.status == 0, result.err
        found = codes_by_picture(open_index(index))
        found = {name.removesuffix(".png"): code for name, code in found.items()}
        expected = expected or found
        assert found == expected and len(found) == COUNT, source
        shutil.rmtree(index)


def test_train_index_search_and_prune(
    xmodal_cli: Run, shards: Path, photos: list[tuple[str, bytes, str]], tmp_path: Path
) -> None:
    model, index = tmp_path / "m", tmp_path / "i"
    second = photos[COUNT // 2 :]
    backbones = ("--image-backbone", "small-cnn", "--text-backbone", "words", "--bits", 32)
    settings = ("--set", "epochs=1", "--set", "hidden=16", "--set", "batch=8", "--no-report")
    result = xmodal_cli("train", shards, "--out", model, *backbones, *settings)
    assert result.status == 0, result.err
    options = ("--model", model, "--index", index)
    assert xmodal_cli("index", shards, *options).status == 0

    # Every way to look at a packed picture.
    picture = shards / "1.tar" / f"{second[0][0]}.png"
    result = xmodal_cli("search", "--image", picture, *options, "--target", "image", "--json")
    hits = json.loads(result.out)["hits"]
    assert hits[0]["distance"] == 0
    assert str(picture) in [hit["fields"]["image"] for hit in hits]
    gallery = tmp_path / "g.html"
    result = xmodal_cli("search", second[0][2], *options, "-k", 5, "--gallery", gallery)
    assert result.status == 0 and gallery.read_text().count("<img") == 5
    assert str(shards) in xmodal_cli("info", index).out

    # Another shard in its place: one sample is gone, one has another caption.
    changed = [second[0], (*second[1][:2], "another caption"), *second[3:]]
    write_shard(shards / "1.tar", changed)
    changes = json.loads(xmodal_cli("index", shards, *options, "--prune", "--json").out)["changes"]
    assert changes["removed"] == 1
    assert len(open_index(index)) == COUNT - 1
    again = json.loads(xmodal_cli("index", shards, *options, "--json").out)["changes"]
    assert again["unchanged"] == COUNT - 1

    # The container is renamed, then gone.
    (shards / "1.tar").rename(shards / "2.tar")
    changes = json.loads(xmodal_cli("index", shards, *options, "--json").out)["changes"]
    assert changes["moved"] == COUNT // 2 - 1
    shutil.move(shards / "2.tar", tmp_path / "elsewhere.tar")
    result = xmodal_cli("search", second[0][2], *options, "--gallery", gallery)
    assert result.status == 0 and "cannot be read" in result.err
    line = xmodal_cli("search", "--image", shards / "2.tar" / "x.png", *options).error_line(
        PROGRESS
    )
    assert "no such picture" in line
    line = xmodal_cli("index", shards / "2.tar", *options).error_line(PROGRESS)
    assert "2.tar" in line


@pytest.mark.parametrize("damage", ["cut", "bytes"])
def test_damaged_pictures_and_shards_are_counted(
    xmodal_cli: Run,
    model: Path,
    photos: list[tuple[str, bytes, str]],
    tmp_path: Path,
    damage: str,
) -> None:
    whole = tmp_path / "whole.tar"
    write_shard(whole, photos)
    content = bytearray(whole.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        place = content.index(b"IHDR")
        content[place : place + 40] = np.random.default_rng(0).bytes(40)
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    result = xmodal_cli("index", path, "--model", model, "--index", tmp_path / "i")
    assert result.status == 0, result.err
    if damage == "cut":
        assert "1 x shard damaged or cut off" in result.err
        assert COUNT // 3 < len(open_index(tmp_path / "i")) <= COUNT // 2 + 1
    else:
        assert "1 x picture not usable" in result.err
