"""JSON files read element by element: the values and the refusals of ``json.load``."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from xmodal.data.readers import json_stream
from xmodal.data.readers.json_stream import read_elements
from xmodal.data.readers.read import read
from xmodal.data.readers.reading import Reading
from xmodal.errors import DataError

CONTENTS = (
    [],
    {},
    [{"a": 1, "b": [1, {"c": None}]}, "text", 12, -1.5e-7, True, None, [], [[]]],
    [float("inf"), -float("inf"), 1e300, 10**30, ""],
    {"images": [{"id": 1}, {}], "info": {"x": [1]}, "annotations": [], "n": 5, "é\n": "\ud83d"},
    {"a": "one", "b": ["\u2028", "\\", '"', "\t"]},
    "text",
    12345,
    True,
)


def elements(path: Path) -> Any:
    """Return the content of a file, put together from its elements."""
    found: dict[str | None, Any] = {}
    for key, number, value in read_elements(path, Reading()):
        if number:
            found[key].append(value)
        else:
            found[key] = value
    return found[None] if None in found else found


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("number", range(len(CONTENTS)))
@pytest.mark.parametrize("style", [{}, {"indent": 1}, {"ensure_ascii": False}])
def test_elements_are_those_of_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, number: int, style: dict[str, Any]
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    text = f" \n{json.dumps(CONTENTS[number], **style)}\r\n"
    path = tmp_path / "t.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass").replace(b"\xed\xa0\xbd", b"?"))
    assert elements(path) == json.loads(path.read_bytes())


@pytest.mark.parametrize("seed", range(6))
def test_damaged_json_is_refused_as_by_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    random_ = random.Random(seed)
    monkeypatch.setattr(json_stream, "CHUNK", random_.randint(1, 40))
    path = tmp_path / "t.json"
    refused = 0
    for _ in range(150):
        text = json.dumps(random_.choice(CONTENTS), indent=random_.choice([None, 1]))
        place = random_.randrange(len(text))
        inserted = random_.choice(["", ",", "]", "}", '"', "x", "1", ":", "\\", "NaN"])
        text = random_.choice([text[:place], text[:place] + inserted + text[place + 1 :]])
        path.write_text(text)
        try:
            expected = json.loads(text)
        except ValueError:
            refused += 1
            with pytest.raises(DataError, match=r"t\.json"):
                elements(path)
        else:
            assert json.dumps(elements(path)) == json.dumps(expected)
    assert refused > 20


def test_refusal_names_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 16)
    path = tmp_path / "t.json"
    path.write_text('[{"text": "a"},\n' * 1 + '{"text": "b"},\n' * 20 + '{"text": c}]')
    with pytest.raises(DataError, match="line 22"):
        read(path)
    path.write_text('[{"text": "' + "x" * 100 + '"}]')
    monkeypatch.setattr(json_stream, "MAX_VALUE", 50)
    with pytest.raises(DataError, match="more than 50 characters"):
        read(path)


@pytest.mark.parametrize("annotations_first", [False, True])
def test_coco_in_any_order_of_its_lists(tmp_path: Path, annotations_first: bool) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    images = [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}, "no object"]
    annotations = [
        {"image_id": 8, "caption": "of b"},
        {"image_id": 7, "caption": "one"},
        {"image_id": 7, "caption": "two"},
        {"image_id": 9, "caption": "unknown"},
        {"image_id": 7},
    ]
    content = {"info": {}, "images": images, "annotations": annotations}
    names = list(content)[:: -1 if annotations_first else 1]
    path = tmp_path / "t.json"
    path.write_text(json.dumps({name: content[name] for name in names}))
    data = read(path)
    assert {item.id: item.captions for item in data} == {
        "a.png": ("one", "two"),
        "b.png": ("of b",),
    }
    kinds = data.problems.count_by_kind()
    assert kinds["caption of an unknown picture"] == kinds["annotation without a caption"] == 1
    path.write_text(path.read_text()[:-1])
    with pytest.raises(DataError, match="not JSON"):
        read(path)


def test_object_with_one_list_of_objects_is_that_list(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"version": 1, "tags": ["a"], "data": [{"text": "a"}, 3]}))
    data = read(path)
    assert data.ids == ["row 1"] and data.problems.names("bad line") == ["row 2 is not an object"]
    for content in ({"a": [{}], "b": [{}]}, {"tags": ["a"]}, 5):
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match="holds a JSON"):
            read(path)


LLAVA = [
    {"from": "human", "value": "<image>\nWhat is this?"},
    {"from": "gpt", "value": "A red dog.\n<image>"},
    {"from": "human", "value": "Where?"},
    {"from": "gpt", "value": "On the grass."},
]
CHAT = [
    {"role": "system", "content": "You help."},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A red dog."}]},
    {"role": "user", "content": "Where?"},
    {"role": "assistant", "content": "On the grass."},
]


@pytest.mark.parametrize("kind", ["json", "jsonl"])
@pytest.mark.parametrize(("column", "turns"), [("conversations", LLAVA), ("messages", CHAT)])
def test_answers_of_conversations_are_captions(
    tmp_path: Path, kind: str, column: str, turns: list[Any]
) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    rows = [{"id": "x", "image": "a.png", column: turns}, {"id": "y", column: turns[:1]}]
    content = json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows))
    path = tmp_path / f"llava.{kind}"
    path.write_text(content)
    (item,) = (data := read(path))
    assert item.id == "x" and item.captions == ("A red dog.", "On the grass.")
    assert data.problems.names("caption empty") == ["y"]
