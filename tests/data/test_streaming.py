"""Reading row by row: the items of ``read`` in little memory, from one or several sources."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from xmodal.data.items import Item
from xmodal.data.problems import MAX_NAMES, Problems
from xmodal.data.readers.columns import Columns
from xmodal.data.readers.items import items_from_rows
from xmodal.data.readers.pictures import PictureFolder
from xmodal.data.readers.read import iterate, read, stream
from xmodal.data.readers.reading import Expected, Reading
from xmodal.data.readers.repeats import RowKeys
from xmodal.data.readers.seen_texts import SeenTexts
from xmodal.errors import ConfigError, DataError

Write = Callable[[Path, list[dict[str, Any]]], Path]


def write_csv(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "t.csv"
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_jsonl(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_json(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "t.json"
    path.write_text(json.dumps(rows, indent=1))
    return path


def write_parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "t.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2000)
    return path


WRITERS = (write_csv, write_jsonl, write_json, write_parquet)


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 3), "red").save(path)
    return path


def by_id(items: Iterator[Item]) -> dict[str, Item]:
    return {item.id: item for item in items}


# ---- items of rows -----------------------------------------------------------------------------


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("seed", range(3))
def test_iterate_gives_the_items_of_read_for_scattered_rows(
    tmp_path: Path, write: Write, seed: int
) -> None:
    names = [picture(tmp_path / f"{number}.png").name for number in range(6)]
    rows = [
        {"image": f"./{name}" if turn == 1 else name, "text": f"{name} {turn}"}
        for name in names
        for turn in range(3)
    ]
    random.Random(seed).shuffle(rows)
    path = write(tmp_path, rows)
    data = read(path)
    firsts = dict.fromkeys(row["image"].removeprefix("./") for row in rows)
    assert [item.images[0].name for item in data] == list(firsts)  # type: ignore[union-attr]
    captions = {name: [r["text"] for r in rows if r["image"].endswith(name)] for name in names}
    assert all(list(x.captions) == captions[x.images[0].name] for x in data)  # type: ignore[union-attr]
    assert by_id(iterate(path)) == by_id(iter(data))


def test_items_are_held_until_their_last_row_only() -> None:
    rows = [("r1", {"id": "a", "text": "1"}), ("r2", {"id": "b", "text": "2"})]
    rows += [("r3", {"id": "a", "text": "3"}), ("r4", {"id": "c", "text": "4"})]
    columns = Columns(text="text", id="id")
    keys = RowKeys(columns, Path())
    for _, row in rows:
        keys.add(row)
    for in_order, expected in ((False, ["b 2", "a 3", "c 4"]), (True, ["a 3", "b 3", "c 4"])):
        reading, taken = Reading(in_order=in_order), []
        source = (taken.append(row) or row for row in rows)  # type: ignore[func-returns-value]
        items = items_from_rows(
            source, columns, PictureFolder(Path("t.csv"), reading), reading, keys.repeats()
        )
        assert [f"{item.id} {len(taken)}" for item in items] == expected


def test_rows_that_appear_after_the_first_pass_are_not_lost() -> None:
    columns, reading = Columns(text="text", id="id"), Reading()
    keys = RowKeys(columns, Path())
    for id_ in ("a", "a", "a"):
        keys.add({"id": id_})
    pictures = PictureFolder(Path("t.csv"), reading)
    fewer = [("r1", {"id": "a", "text": "1"})]
    more = fewer * 3 + [("r4", {"id": "b", "text": "4"})]
    for rows, ids in ((fewer, ["a"]), (more, ["a", "b"])):
        items = items_from_rows(rows, columns, pictures, reading, keys.repeats())
        assert [item.id for item in items] == ids


def test_an_item_of_many_rows_that_differ_takes_no_quadratic_time(tmp_path: Path) -> None:
    rows = [{"id": "same", "text": f"text {n}", "n": n, "m": -n} for n in range(20_000)]
    (item,) = iterate(write_jsonl(tmp_path, rows))
    assert item.fields == {"n": list(range(20_000)), "m": [-n for n in range(20_000)]}


@pytest.mark.parametrize("write", WRITERS)
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, write: Write) -> None:
    rows = [{"id": f"i{n}", "text": f"caption {n} " + "word " * 40} for n in range(20_000)]
    path = write(tmp_path, rows)
    del rows
    next(iter(iterate(path)))  # modules are imported
    tracemalloc.start()
    try:
        assert sum(1 for _ in iterate(path)) == 20_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000  # the captions alone are as many bytes, with their objects twice that


def test_columns_of_late_rows_decide_what_is_one_item(tmp_path: Path) -> None:
    rows = [{"text": "1", "id": "a"}, {"text": "2", "id": "a", "file": "x"}]
    rows = [{"text": "0"}] * 200 + rows  # type: ignore[list-item]
    data = read(write_jsonl(tmp_path, rows))
    assert data.items[-1].captions == ("1", "2") and len(data) == 201


def test_names_of_problems_are_bounded_and_counted() -> None:
    problems, others = Problems(), Problems()
    for number in range(MAX_NAMES + 5):
        problems.add("bad", number)
        others.add("bad", number)
    assert len(problems.names("bad")) == MAX_NAMES and len(problems) == MAX_NAMES + 5
    problems.extend(others)
    assert problems.count_by_kind() == {"bad": 2 * MAX_NAMES + 10}
    (line,) = problems.summary_lines(2)
    assert line == f"{2 * MAX_NAMES + 10:,} x bad: 0, 1, and {2 * MAX_NAMES + 8:,} more"


def test_seen_texts_are_those_that_were_added() -> None:
    seen = SeenTexts()
    texts = [f"text {number}" for number in range(5000)]
    assert all(seen.add(text) for text in texts) and len(seen) == 5000
    assert not any(seen.add(text) for text in texts) and "text 4999" in seen and "no" not in seen


# ---- several sources ---------------------------------------------------------------------------


def test_several_sources_are_one_dataset(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / name / "1.png")
    table = write_jsonl(tmp_path, [{"text": "words"}, {"id": "1.png", "text": "own id"}])
    data = read([tmp_path / "a", tmp_path / "b", table])
    assert data.ids == ["1.png", "b/1.png", "line 1", "t.jsonl/1.png"]
    assert [item.id for item in iterate([tmp_path / "a", str(table)])][-1] == "t.jsonl/1.png"
    assert data.name == "a and 2 more"


def test_unusable_source_among_several_is_recorded(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing")
    data = read([tmp_path / "a", tmp_path / "empty", tmp_path / "broken.parquet"])
    assert data.ids == ["1.png"] and len(data.problems) == 2
    with pytest.raises(DataError, match="empty"):
        read([tmp_path / "empty", tmp_path / "broken.parquet"])
    with pytest.raises(DataError, match="gone does not exist"):
        read([tmp_path / "a", tmp_path / "gone"])
    with pytest.raises(DataError):
        read([])


def test_pictures_are_sources_with_the_captions_beside_them(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "1.png"), picture(tmp_path / "deep" / "2.JPG")
    (tmp_path / "1.txt").write_text("a red square")
    data = read([first, tmp_path / "gone.png", second])
    assert [(item.id, item.captions) for item in data] == [
        (first.as_posix(), ("a red square",)),
        (second.as_posix(), ()),
    ]
    assert data.problems.names("picture missing") == [str(tmp_path / "gone.png")]
    assert read(first).items[0].images == (first,)


# ---- columns -----------------------------------------------------------------------------------


def test_members_of_objects_are_columns(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = [
        {"meta": {"caption": "red", "file": {"name": "a.png"}}},
        {"meta": {"caption": ["one", "two"]}, "x": 1},
        {"meta": None},
        {"meta.caption": "a column of this name", "meta": {"caption": "no"}},
    ]
    path = write_jsonl(tmp_path, rows)
    data = read(path, Columns(text="meta.caption", image="meta.file.name"))
    assert [item.captions for item in data] == [
        ("red",),
        ("one", "two"),
        ("a column of this name",),
    ]
    assert data.ids[0] == "a.png"
    captions = [{"captions": [{"raw": {"x": "one"}}, {"raw": {"x": "two"}}, 3]}]
    (item,) = read(write_jsonl(tmp_path, captions), Columns(text="captions.raw.x"))
    assert item.captions == ("one", "two")
    with pytest.raises(DataError, match=r"meta\.caption"):
        read(write_jsonl(tmp_path, rows[:2]))
    with pytest.raises(ConfigError, match=r"'mata\.caption'.*meta\.caption"):
        read(path, Columns(text="mata.caption"))


@pytest.mark.parametrize("write", WRITERS)
def test_columns_that_may_be_captions_or_pictures_are_named(tmp_path: Path, write: Write) -> None:
    picture(tmp_path / "a.png")
    rows = [{"image": "a.png", "blip": "a dog on grass", "shop": "x"}] * 3
    assert read(write(tmp_path, rows)).problems.names(
        "column that may hold captions, not used (--text-column)"
    ) == ["blip"]
    rows = [{"still": "a.png", "text": "a dog"}] * 3
    assert read(write(tmp_path, rows)).problems.names(
        "column that may name pictures, not used (--image-column)"
    ) == ["still"]
    rows = [{"image": "a.png", "text": "a dog", "note": "seen in the park"}] * 3
    assert not len(read(write(tmp_path, rows)).problems)


# ---- expected number ---------------------------------------------------------------------------


@pytest.mark.parametrize("write", WRITERS)
def test_the_number_of_items_of_a_table_is_known_at_the_first_item(
    tmp_path: Path, write: Write
) -> None:
    expected = Expected()
    table = write(tmp_path, [{"id": row, "text": f"text {row}"} for row in range(50)])
    next(stream(table, expected=expected))
    assert expected.number == 50


def test_the_number_of_items_of_folders_and_shards_is_known_at_the_first_item(
    tmp_path: Path,
) -> None:
    for number in range(6):
        picture(tmp_path / "in" / str(number % 2) / f"{number}.png")
    expected = Expected()
    next(stream([tmp_path / "in" / "0", tmp_path / "in" / "1"], expected=expected))
    assert expected.number == 3
    assert len([*stream(tmp_path / "in", expected=(whole := Expected()))]) == whole.number == 6
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(4):
        rows = [{"id": f"{number} {row}", "text": f"text {row}"} for row in range(30)]
        write_parquet(folder, rows).rename(folder / f"train-0000{number}-of-00004.parquet")
    next(stream(folder, expected=(shards := Expected())))
    assert 110 < shards.number < 130
