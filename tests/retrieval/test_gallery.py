"""Gallery: a self-contained HTML page, or one PNG picture."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xmodal.errors import ConfigError
from xmodal.index.contract import Hit
from xmodal.retrieval.gallery import (
    THUMB,
    figures_of,
    unreadable_pictures,
    write_gallery,
    write_sheet,
)
from xmodal.retrieval.results import Results


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """A red picture, 400 x 200."""
    path = tmp_path / "red & round.png"
    Image.new("RGB", (400, 200), "red").save(path)
    return path


def hit(id_: str, distance: int = 3, **fields: object) -> Hit:
    return Hit(id_, distance, fields)


def test_page_contains_its_pictures_and_has_no_links(tmp_path: Path, red: Path) -> None:
    hits = [hit("a", image=str(red), text="a red one"), hit("b", text="no picture")]
    hits[0] = hits[0]._replace(confidence=0.9)
    write_gallery(tmp_path / "g.html", [Results("red", hits), Results(red, hits)])
    page = (tmp_path / "g.html").read_text(encoding="utf-8")
    assert re.findall(r"(?:src|href|url|@import)\b", page) == ["src"] * 3
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(pictures) == 3  # the hit with a picture twice, and the query
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as thumb:
        assert thumb.size == (THUMB, THUMB // 2)
    assert "//" not in re.sub(r"base64,[^\"]+", "", page)
    assert page.count("a red one") == 2 and "distance 3, confidence 90%" in page
    assert "<small>distance 3</small>" in page  # no confidence, none shown


def test_page_escapes_all_text(tmp_path: Path, red: Path) -> None:
    evil = '<script>alert("x")</script>'
    hits = [hit(evil, image=str(red)), hit("b", text=evil), hit("c", image="<script>.png")]
    write_gallery(tmp_path / "g.html", [Results(evil, hits)], title=evil)
    page = (tmp_path / "g.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 6  # title twice, query, three hits
    assert 'alt="red &amp; round.png"' in page


def test_unreadable_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("words")
    hits = [hit("a", image=str(tmp_path / "text.jpg")), hit("b", image=str(tmp_path / "gone.jpg"))]
    write_gallery(tmp_path / "g.html", [Results("x", hits)])
    page = (tmp_path / "g.html").read_text()
    assert "text.jpg cannot be shown" in page and "gone.jpg cannot be shown" in page
    write_gallery(tmp_path / "g.png", [Results("x", hits)])
    assert (tmp_path / "g.png").stat().st_size > 0


def test_unreadable_pictures_are_listed_once(tmp_path: Path, red: Path) -> None:
    (tmp_path / "text.jpg").write_text("words")
    gone, text = tmp_path / "gone.jpg", tmp_path / "text.jpg"
    paths = {"a": gone, "b": red, "c": text, "d": gone}
    hits = [hit(id_, image=str(path)) for id_, path in paths.items()]
    assert unreadable_pictures(Results("x", [*hits, hit("e", text="alone")])) == [gone, text]


def test_page_shows_the_nearest_caption_and_the_nearest_picture(tmp_path: Path, red: Path) -> None:
    texts, images = ["first", "second"], ["gone.jpg", str(red)]
    found = [hit("a", text=texts, image=images)._replace(nearest=1)]
    write_gallery(tmp_path / "g.html", [Results("red", found)])
    page = (tmp_path / "g.html").read_text(encoding="utf-8")
    assert "first<small>" in page and "second" not in page
    assert 'alt="red &amp; round.png"' in page and "gone.jpg" not in page
    write_gallery(tmp_path / "g.html", [Results("red", found, target="text")])
    page = (tmp_path / "g.html").read_text(encoding="utf-8")
    assert "second<small>" in page and "gone.jpg cannot be shown" in page
    write_gallery(tmp_path / "g.png", [Results("red", found)])


def test_query_without_hits_says_no_match(tmp_path: Path) -> None:
    write_gallery(tmp_path / "g.html", [Results("a", []), Results("b", [hit("x")])])
    assert (tmp_path / "g.html").read_text().count("<p>no match</p>") == 1


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


def test_png_grows_with_hits_and_queries(tmp_path: Path, red: Path) -> None:
    def sheet(hits: int, queries: int) -> tuple[int, int]:
        found = [hit(str(k), image=str(red), text="words " * 50) for k in range(hits)]
        result = Results("red", found)
        write_gallery(tmp_path / "g.png", [result] * queries)
        return size(tmp_path / "g.png")

    width, height = sheet(3, 1)
    assert sheet(0, 1) == (width, height)  # minimum width: three hits
    wider, same = sheet(5, 1)
    assert same == height and wider - width >= 2 * THUMB
    same, higher = sheet(3, 3)
    assert same == width and higher - height >= 2 * THUMB


def test_png_contains_the_pictures(tmp_path: Path, red: Path) -> None:
    write_gallery(tmp_path / "g.PNG", [Results(red, [hit("a", image=str(red))] * 2)])
    with Image.open(tmp_path / "g.PNG") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    is_red = (np.abs(pixels - (255, 0, 0)) < 8).all(axis=2)
    assert is_red.sum() == 3 * THUMB * THUMB // 2  # the query and two hits, each 160 x 80


def test_write_gallery_creates_folders_and_rejects_other_suffixes(tmp_path: Path) -> None:
    write_gallery(tmp_path / "new" / "g.html", [])
    assert (tmp_path / "new" / "g.html").is_file()
    with pytest.raises(ConfigError, match=r"g\.pdf"):
        write_gallery(tmp_path / "g.pdf", [])


def test_caption_has_distance_and_confidence() -> None:
    assert figures_of(hit("a", 7)) == ("distance 7", "")
    fused = hit("a", 7)._replace(
        confidence=0.424, ranks={"codes": None, "words": 2}, matched=("red", "shoe")
    )
    assert figures_of(fused) == ("distance 7, confidence 42%", "words 2: red shoe")


def test_write_sheet_doubles_small_pictures(tmp_path: Path) -> None:
    blue = np.zeros((3, 8, 8, 3), np.uint8)
    blue[..., 2] = 255
    write_sheet(tmp_path / "a.png", [blue, blue[:1]], "synthetic, epoch 2")
    with Image.open(tmp_path / "a.png") as sheet:
        pixels = np.asarray(sheet)
    assert int((pixels == [0, 0, 255]).all(axis=2).sum()) == 4 * 16 * 16  # twice the size each
