"""xmodal encode --shard writes parts, which xmodal index takes without the model."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import CommandResult

from xmodal.data.problems import Problems
from xmodal.data.sharding import Shard
from xmodal.encoders.encoder import Encoder
from xmodal.errors import IndexFailure
from xmodal.index.contract import open_index
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import HammingIndex
from xmodal.index.parts.part import Part
from xmodal.index.parts.writing import write_part
from xmodal.modality import MODALITIES

Run = Callable[..., CommandResult]


@pytest.fixture
def table(photos_folder: Path, tmp_path: Path) -> Path:
    """A table of 20 pictures, each in two rows with ids and captions of their own."""
    pictures = sorted(photos_folder.glob("**/*.png"))[:20]
    path = tmp_path / "items.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "text", "place"])
        for number, picture in enumerate(pictures):
            for row in (0, 1):
                writer.writerow([f"{number}-{row}", picture, f"a red circle {number} {row}", row])
    return path


@pytest.fixture
def encode(xmodal_cli: Run, model: Path, table: Path) -> Run:
    """``encode("--shard", "1/2", ...)`` encodes the table."""
    return lambda *options: xmodal_cli("encode", table, "--model", model, *options)


def documents(paths: list[Path]) -> dict[str, tuple[object, ...]]:
    """Return the content of all documents of parts by id."""
    found: dict[str, tuple[object, ...]] = {}
    for path in paths:
        for batch in Part(path).batches():
            found |= {id_: content(batch.take([row])) for row, id_ in enumerate(batch.ids)}
    return found


def content(one: DocumentBatch) -> tuple[object, ...]:
    """Return the content of a document."""
    codes = tuple(one.packed[m].tobytes() for m in MODALITIES)
    vectors = tuple(one.vectors[m].tobytes() for m in MODALITIES)
    return codes, vectors, one.fields[0], one.origins[0]


def test_shards_together_hold_what_one_part_holds(encode: Run, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        assert encode("--shard", f"{number}/3", "--out", tmp_path / "parts").status == 0
    assert encode("--out", tmp_path / "all.parquet").status == 0
    parts = sorted((tmp_path / "parts").iterdir())
    assert [path.name for path in parts] == [f"part-0000{n}-of-00003.parquet" for n in (1, 2, 3)]
    assert documents(parts) == documents([tmp_path / "all.parquet"])
    ids = [set(documents([path])) for path in parts]
    assert all({f"{n}-0", f"{n}-1"} <= one or not {f"{n}-0", f"{n}-1"} & one
               for one in ids for n in range(20))  # fmt: skip
    assert sum(map(len, ids)) == 40 and min(map(len, ids)) > 0


def test_a_part_holds_the_codes_of_the_encoder(
    encode: Run, encoder: Encoder, table: Path, tmp_path: Path
) -> None:
    encode("--out", tmp_path / "all.parquet", "--no-vectors")
    (batch,) = Part(tmp_path / "all.parquet").batches()
    texts = [json.loads(fields)["text"] for fields in batch.fields]
    assert (batch.packed["text"] == encoder.encode_texts(texts).packed).all()
    images = [json.loads(fields)["image"] for fields in batch.fields]
    assert (batch.packed["image"] == encoder.encode_images(images).packed).all()
    assert not batch.vectors


def test_a_second_run_writes_equal_bytes_and_skips_a_complete_part(
    encode: Run, tmp_path: Path
) -> None:
    out = tmp_path / "p-*.parquet"
    part = tmp_path / "p-00001-of-00002.parquet"
    encode("--shard", "1/2", "--out", out)
    content, written = part.read_bytes(), part.stat().st_mtime_ns
    assert "complete" in encode("--shard", "1/2", "--out", out).err
    assert part.stat().st_mtime_ns == written
    part.unlink()
    encode("--shard", "1/2", "--out", out)
    assert part.read_bytes() == content


def test_a_part_of_other_files_is_not_replaced(encode: Run, table: Path, tmp_path: Path) -> None:
    encode("--out", tmp_path / "all.parquet")
    table.write_text(table.read_text() + f"new,{tmp_path / 'x.png'},a blue star,3\n")
    result = encode("--out", tmp_path / "all.parquet")
    assert result.status == 2 and "listing" in result.err and result.err.count("\n") == 1


def test_the_data_and_an_unusable_picture_are_counted_once(
    xmodal_cli: Run, model: Path, photos_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for picture in sorted(photos_folder.glob("**/*.png"))[:6]:
        shutil.copy(picture, folder)
    (folder / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "p.parquet"
    result = json.loads(xmodal_cli("encode", folder, "--model", model, "--out", out, "--json").out)
    assert result["documents"] == 6 and result["problems"] == {"picture not usable": 1}
    inside = xmodal_cli("encode", folder, "--model", model, "--out", folder / "p.parquet")
    assert inside.status == 2 and "inside" in inside.err


def test_parts_become_an_index_that_an_update_leaves_unchanged(
    encode: Run, xmodal_cli: Run, model: Path, table: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        encode("--shard", f"{number}/2", "--out", tmp_path / "parts")
    index = tmp_path / "i"
    result = xmodal_cli("index", tmp_path / "parts", "--index", index)
    assert "(40 added)" in result.out and "records no model" in result.err
    again = xmodal_cli("index", *(tmp_path / "parts").iterdir(), "--index", index, "--model", model)
    assert "(40 unchanged)" in again.out
    assert "(40 unchanged)" in xmodal_cli("index", table, "--index", index).out
    assert xmodal_cli("search", "a red circle 3 1", "--index", index).status == 0


def test_data_and_its_parts_become_equal_indexes(
    encode: Run, xmodal_cli: Run, model: Path, table: Path, tmp_path: Path
) -> None:
    """Bit for bit, and so does data whose ids documents of another source have."""
    encode("--out", tmp_path / "all.parquet")
    other = tmp_path / "other.csv"
    shutil.copy(table, other)
    for number, first in enumerate(([], [other])):
        indexes = [tmp_path / f"{name}-{number}" for name in ("data", "parts")]
        for index, source in zip(indexes, (table, tmp_path / "all.parquet"), strict=True):
            for data in (*first, source):
                result = xmodal_cli("index", data, "--index", index, "--model", model)
                assert "(40 added)" in result.out, result.err
        one, two = (stored(index) for index in indexes)
        assert one == two and len(one) == 40 * (number + 1)


def stored(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return the content of all documents of a local index by id."""
    return dict(
        (batch.ids[row], content(batch.take([row])))
        for batch in HammingIndex.load(folder, bits=None, fingerprint=None).batches()
        for row in range(len(batch))
    )


def test_parts_and_documents_of_another_source_keep_their_ids_apart(
    encode: Run, xmodal_cli: Run, model: Path, table: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.csv"
    shutil.copy(table, other)
    index = tmp_path / "i"
    xmodal_cli("index", other, "--index", index, "--model", model)
    encode("--out", tmp_path / "all.parquet")
    result = json.loads(
        xmodal_cli("index", tmp_path / "all.parquet", "--index", index, "--json").out
    )
    assert result["documents"] == 80 and result["renamed"]["3-1"] == "items.csv/3-1"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:-2]) + "\n")
    (tmp_path / "all.parquet").unlink()
    encode("--out", tmp_path / "all.parquet")
    pruned = xmodal_cli("index", tmp_path / "all.parquet", "--index", index, "--prune", "--json")
    changes = json.loads(pruned.out)["changes"]
    assert changes["unchanged"] == 38 and changes["removed"] == 2
    assert len(open_index(index)) == 78


@pytest.mark.parametrize("how", ["missing", "twice", "count", "model", "other"])
def test_incomplete_or_mixed_parts_are_named_in_one_line(
    encode: Run, xmodal_cli: Run, model: Path, tmp_path: Path, how: str
) -> None:
    parts = tmp_path / "parts"
    encode("--shard", "1/2", "--out", parts)
    expected = "2"
    if how == "twice":
        shutil.copy(parts / "part-00001-of-00002.parquet", parts / "copy.parquet")
        expected = "copy.parquet"
    elif how == "count":
        encode("--shard", "1/3", "--out", parts)
        expected = "1/3"
    elif how == "other":
        from pyarrow import parquet, table

        parquet.write_table(table({"a": [1]}), parts / "other.parquet")
        expected = "other.parquet"
    elif how == "model":
        first = Part(parts / "part-00001-of-00002.parquet")
        expected = "0123456789abcdef"
        info = replace(first.info, fingerprint=expected, shard=Shard(2, 2), documents=0)
        write_part(parts / "part-00002-of-00002.parquet", info, first.batches(), Problems())
    result = xmodal_cli("index", parts, "--index", tmp_path / "i")
    assert result.status == 2 and expected in result.err and result.err.count("\n") == 1
    assert not (tmp_path / "i").exists()


def test_every_damaged_byte_is_noticed_or_without_effect(encode: Run, tmp_path: Path) -> None:
    encode("--out", tmp_path / "all.parquet")
    whole, content = documents([tmp_path / "all.parquet"]), (tmp_path / "all.parquet").read_bytes()
    damaged = tmp_path / "damaged.parquet"
    noticed = 0
    for place in range(0, len(content), max(1, len(content) // 150)):
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            assert documents([damaged]) == whole
        except IndexFailure:
            noticed += 1
    assert noticed > 50


def test_a_stopped_run_leaves_nothing(
    encode: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("xmodal.index.parts.writing.checksum", stop)
    assert encode("--out", tmp_path / "parts" / "a.parquet").status != 0
    assert os.listdir(tmp_path / "parts") == []
