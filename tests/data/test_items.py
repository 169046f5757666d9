"""Documents of items."""

from __future__ import annotations

from pathlib import Path

import pytest

from xmodal.data.items import Item


def absolute(path: str) -> str:
    return str(Path.cwd() / path)


def test_document_has_fields_text_image_and_labels() -> None:
    item = Item("a", (Path("x/a.png"),), ("words",), ("l",), {"price": 3, "text": "of a field"})
    expected = {"price": 3, "text": "words", "labels": ["l"], "image": absolute("x/a.png")}
    assert item.document() == expected
    assert Item("b", fields={"price": 3}).document() == {"price": 3}


def test_document_lists_several_pictures_and_captions() -> None:
    item = Item("a", (Path("a.png"), Path("b.png")), ("one", "two", "three"))
    images = [absolute("a.png"), absolute("b.png")]
    assert item.document() == {"text": ["one", "two", "three"], "image": images}
    assert item.sources("image") == item.images and item.sources("text") == item.captions


def test_document_has_the_path_of_a_picture_for_every_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "link").symlink_to("x/y")
    monkeypatch.chdir(tmp_path)
    for path, expected in {
        "a.png": tmp_path / "a.png",
        "./x/../a.png": tmp_path / "a.png",
        "link/a.png": tmp_path / "link" / "a.png",
        "link/../a.png": tmp_path / "x" / "a.png",
        str(tmp_path / "b.png"): tmp_path / "b.png",
    }.items():
        assert Item("i", (Path(path),)).document() == {"image": str(expected)}, path
