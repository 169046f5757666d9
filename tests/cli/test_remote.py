"""xmodal encode reads from and writes to S3, served by moto in this process."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandResult

from xmodal.data.remote import address, is_remote, write_remote
from xmodal.index.parts.part import Part

Run = Callable[..., CommandResult]
BUCKET = "s3://photos"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server that keeps its objects in memory."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, photos_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket with a table of four pictures in it, of which one is damaged and one is missing."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    from xmodal.data import remote

    remote._system.cache_clear()
    from pyarrow import fs

    owner = fs.S3FileSystem(
        access_key="test",
        secret_key="test",
        endpoint_override=server,
        region="us-east-1",
        allow_bucket_creation=True,
        allow_bucket_deletion=True,
        request_timeout=60,
    )
    owner.create_dir("photos")
    rows = [{"image": f"pics/{n} é#%.png", "text": f"a red circle {n}", "n": n} for n in range(4)]
    pictures = sorted(photos_folder.glob("**/*.png"))
    for row, picture in zip(rows[:3], pictures, strict=False):
        content = picture.read_bytes() if row["n"] else b"no picture"
        _put(owner, f"photos/{row['image']}", content)
    _put(owner, "photos/items.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    yield owner
    owner.delete_dir("photos")
    remote._system.cache_clear()


def _put(system: Any, name: str, content: bytes) -> None:
    with system.open_output_stream(name) as file:
        file.write(content)


def documents(path: str) -> dict[str, tuple[bytes, bytes]]:
    """Return the codes of a part by the text of the document."""
    found = {}
    for batch in Part(Path(path)).batches():
        for row in range(len(batch)):
            one = batch.take([row])
            text = json.loads(one.fields[0])["text"]
            found[text] = one.packed["image"].tobytes(), one.packed["text"].tobytes()
    return found


def test_parts_on_s3_hold_what_local_ones_hold(
    xmodal_cli: Run, model: Path, bucket: Any, tmp_path: Path
) -> None:
    for name in bucket.get_file_info(_everything()):
        if name.is_file:
            target = tmp_path / name.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(bucket.open_input_stream(name.path).read())
    table = tmp_path / "photos/items.jsonl"
    assert (
        xmodal_cli("encode", table, "--model", model, "--out", tmp_path / "a.parquet").status == 0
    )
    remote = f"{BUCKET}/items.jsonl"
    first = xmodal_cli("encode", remote, "--model", model, "--out", f"{BUCKET}/parts", "--json")
    assert json.loads(first.out)["problems"] == {"picture not usable": 2}
    assert f"{BUCKET}/pics/3 é#%.png: there is no such picture" in first.err
    part = f"{BUCKET}/parts/part-00001-of-00001.parquet"
    assert documents(part) == documents(str(tmp_path / "a.parquet"))
    assert "complete" in xmodal_cli("encode", remote, "--model", model, "--out", part).err
    names = {one.base_name for one in bucket.get_file_info(_everything("photos/parts"))}
    assert names == {"part-00001-of-00001.parquet"}
    (batch,) = Part(Path(part)).batches()
    images = {json.loads(fields)["image"] for fields in batch.fields}
    assert f"{BUCKET}/pics/1 é#%.png" in images


def _everything(folder: str = "photos") -> Any:
    from pyarrow import fs

    return fs.FileSelector(folder, recursive=True)


def test_a_folder_and_a_table_with_pictures_inside_are_read(
    xmodal_cli: Run, model: Path, bucket: Any, photos_folder: Path, tmp_path: Path
) -> None:
    from pyarrow import parquet, table

    folder = ["encode", f"{BUCKET}/pics", "--model", model, "--out", tmp_path / "a.parquet"]
    assert "2 image codes" in xmodal_cli(*folder).out
    picture = min(photos_folder.glob("**/*.png")).read_bytes()
    parquet.write_table(
        table({"image": [{"bytes": picture, "path": "a.png"}], "text": ["one"]}), tmp_path / "t"
    )
    _put(bucket, "photos/packed.parquet", (tmp_path / "t").read_bytes())
    packed = [
        "encode",
        f"{BUCKET}/packed.parquet",
        "--model",
        model,
        "--out",
        f"{BUCKET}/p.parquet",
    ]
    assert "1 image codes" in xmodal_cli(*packed).out
    inside = xmodal_cli(*folder[:-1], f"{BUCKET}/pics/a.parquet")
    assert inside.status == 2 and f"inside of {BUCKET}/pics" in inside.err


def test_an_index_is_made_of_the_parts_of_a_pattern_or_folder(
    xmodal_cli: Run, model: Path, bucket: Any, tmp_path: Path
) -> None:
    encode = ["encode", f"{BUCKET}/items.jsonl", "--model", model, "--out", f"{BUCKET}/parts"]
    assert xmodal_cli(*encode, "--shard", "1/2").status == 0
    index = ["--index", tmp_path / "i", "--model", model]
    missing = xmodal_cli("index", f"{BUCKET}/parts", *index)
    assert missing.status == 2 and f"missing beside {BUCKET}/parts/part-" in missing.err
    assert xmodal_cli(*encode, "--shard", "2/2").status == 0
    assert "(4 added)" in xmodal_cli("index", f"{BUCKET}/parts/part-*", *index).out
    assert "(4 unchanged)" in xmodal_cli("index", f"{BUCKET}/parts", *index).out


@pytest.mark.parametrize(
    ("data", "out", "expected"),
    [
        ("s3://absent/items.jsonl", "s3://photos/parts", "s3://absent/items.jsonl does not exist"),
        ("s3://photos/items.jsonl", "s3://absent/parts", "s3://absent/parts/part-00001"),
        ("s3://photos/items.jsonl", "codes.npz", "xmodal encode reads"),
        ("s3://photos/*.jsonl", "s3://photos/parts", "one folder or table"),
    ],
)
def test_a_mistake_is_one_line(
    xmodal_cli: Run, model: Path, bucket: Any, data: str, out: str, expected: str
) -> None:
    result = xmodal_cli("encode", data, "--model", model, "--out", out)
    assert result.status == 2 and expected in result.err and result.err.count("\n") == 1


def test_a_table_names_no_pictures_of_other_buckets_and_folders(
    xmodal_cli: Run, model: Path, bucket: Any, photos_folder: Path, tmp_path: Path
) -> None:
    local = min(photos_folder.glob("**/*.png"))
    names = [str(local), "../other/a.png", "s3://other/a.png", "s3://photos/pics/1 é#%.png"]
    rows = "".join(json.dumps({"image": name, "text": name}) + "\n" for name in names)
    _put(bucket, "photos/names.jsonl", rows.encode())
    arguments = ("--model", model, "--out", tmp_path / "n.parquet", "--json")
    result = json.loads(xmodal_cli("encode", f"{BUCKET}/names.jsonl", *arguments).out)
    assert result["image"] == 1 and result["text"] == 4
    assert result["problems"]["picture is not on the file system of its table"] == 3


def test_an_interrupted_part_is_absent(bucket: Any) -> None:
    path = Path(f"{BUCKET}/parts/a.parquet")
    with pytest.raises(KeyboardInterrupt), write_remote(path) as file:
        file.write(b"x" * 20_000_000)
        raise KeyboardInterrupt
    assert not bucket.get_file_info("photos/parts/a.parquet").is_file


def test_addresses_are_paths() -> None:
    path = Path("s3://bucket/a b/c.png")
    assert is_remote(path) and address(path) == "s3://bucket/a b/c.png"
    assert address(path.parent / "d.png") == "s3://bucket/a b/d.png"
    assert not is_remote("s3") and not is_remote(Path("photos/s3:/a")) and not is_remote("c:/a")
    assert address("photos/a.png") == "photos/a.png"
