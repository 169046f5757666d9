"""Collection and Results: the Python interface of notebooks."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

import xmodal
from xmodal.errors import ConfigError, DataError, IndexMismatch, IndexMissing
from xmodal.index.contract import Hit
from xmodal.index.origins import Entry
from xmodal.retrieval.results import MAX_SHOWN, MAX_TEXT, Results

ROOT = Path(__file__).parents[2]
CAPTIONS = pd.DataFrame(
    {"caption": ["a red circle", "a blue star", "a green square"], "price": [5, 3, 1]}
)


@pytest.fixture
def photos(index_path: Path, model: Path) -> xmodal.Collection:
    return xmodal.Collection(index_path, model=model)


@pytest.fixture
def captions(tmp_path: Path, model: Path) -> xmodal.Collection:
    made = xmodal.Collection.create(tmp_path / "captions.index", model=model)
    made.add(CAPTIONS, source="prices")
    return made


def test_hits_are_those_of_a_retriever(photos: xmodal.Collection, encoder: xmodal.Encoder) -> None:
    retriever = xmodal.Retriever(encoder, photos.index)
    expected = retriever.search(text="a red circle", k=5)
    assert list(photos.search_text("a red circle", k=5)) == expected
    assert photos.search("a red circle", k=5) == expected
    assert xmodal.search(photos.uri, "a red circle", model=photos._model, k=5) == expected
    picture = expected[0].fields["image"]
    by_image = retriever.search(image=picture, k=3)
    assert photos.search_image(picture, k=3) == by_image
    with Image.open(picture) as image:
        assert photos.search_image(image, k=3) == by_image
    assert photos.search_like(expected[0].id, k=3) == retriever.search(like=expected[0].id, k=3)


def test_a_search_by_document_loads_no_encoder(index_path: Path, tmp_path: Path) -> None:
    photos = xmodal.Collection(index_path, model=tmp_path / "no.model")
    assert len(photos.search_like("00001.png", k=2)) == 2
    with pytest.raises(xmodal.XmodalError, match=r"no\.model"):
        photos.search("red")


def test_documents(photos: xmodal.Collection) -> None:
    ids = [document.id for document in photos]
    assert len(photos) == len(ids) == 150 and ids == sorted(ids)
    first = next(iter(photos))
    assert first in photos and first.id in photos and "no.png" not in photos and 3 not in photos
    assert photos[first.id] == first.fields
    red = list(photos.documents({"colour": "red"}))
    assert red == [one for one in photos if one.fields["colour"] == "red"]
    with pytest.raises(IndexMissing, match=r"no document 'no\.png'"):
        photos["no.png"]
    table = photos.to_pandas()
    assert list(table["id"]) == ids and set(table["colour"]) == {
        one.fields["colour"] for one in photos
    }
    assert "150 documents, 32 bits" in repr(photos) and "colour" in photos._repr_html_()


def test_an_index_of_captions_is_searched_by_them(captions: xmodal.Collection) -> None:
    results = captions.search("a red circle")
    assert results.searched == "text" and results[0].fields["text"] == "a red circle"
    assert captions.search("a red circle", target="image") == []


def test_tables_in_memory_are_read_like_files(
    captions: xmodal.Collection, tmp_path: Path, photos_folder: Path
) -> None:
    again = captions.add(CAPTIONS, source="prices")
    assert again.numbers["unchanged"] == 3 and len(captions) == 3
    changed = captions.add(pa.table({"caption": ["a red circle"], "price": [7]}), source="prices")
    assert changed.numbers["missing"] == 2 and captions["row 1"]["price"] == 7
    CAPTIONS.to_parquet(tmp_path / "captions.parquet")
    from_file, in_memory = xmodal.read(tmp_path / "captions.parquet"), xmodal.read(CAPTIONS)
    assert [item.captions for item in from_file] == [item.captions for item in in_memory]
    assert [item.fields for item in from_file] == [item.fields for item in in_memory]
    paths = pd.DataFrame({"image": sorted(photos_folder.glob("*.png"))[:2]})
    assert len(xmodal.read(paths)) == 2
    named = xmodal.read(paths.assign(image=["00000.png", "00001.png"]), pictures=photos_folder)
    assert [item.id for item in named] == ["00000.png", "00001.png"]
    filtered = xmodal.read(CAPTIONS[CAPTIONS.price < 4])
    assert [set(item.fields) for item in filtered] == [{"price"}] * 2  # not the index


def test_mistakes_are_one_line(captions: xmodal.Collection, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="source is missing"):
        captions.add(CAPTIONS)
    with pytest.raises(DataError, match="column image holds pictures, expected paths"):
        xmodal.read(CAPTIONS.assign(image=[b"\x89PNG"] * 3))
    with pytest.raises(DataError, match="values that cannot be read"):
        xmodal.read(CAPTIONS.assign(image=[Image.new("RGB", (2, 2))] * 3))
    with pytest.raises(DataError, match="the table has no usable item: it is empty"):
        xmodal.read(CAPTIONS[:0])
    with pytest.raises(ConfigError, match="found a table in memory"):
        xmodal.read(CAPTIONS, labels_from="folders")
    with pytest.raises(ConfigError, match="expected a text, a picture or a document"):
        captions.search()
    with pytest.raises(IndexMissing, match="xmodal index DATA"):
        xmodal.search(tmp_path / "none", "red")
    with pytest.raises(ConfigError, match="model is missing"):
        xmodal.Collection.create(tmp_path / "none")


def test_an_index_of_another_encoder_is_refused(tmp_path: Path, model: Path) -> None:
    codes = xmodal.BinaryCodes.from_relaxed([[1.0] * 32])
    with xmodal.open_index(tmp_path / "i", bits=32, fingerprint="other", create=True) as index:
        index.add(["a"], image=codes)
    with pytest.raises(IndexMismatch, match="was filled by encoder other"):
        xmodal.search(tmp_path / "i", "red", model=model)


def test_search_keeps_its_encoder(index_path: Path, model: Path) -> None:
    from xmodal.retrieval.collection import _cached_encoder

    xmodal.search(index_path, "red", model=model)
    before = _cached_encoder.cache_info().hits
    xmodal.search(index_path, "red", model=model)
    assert _cached_encoder.cache_info().hits == before + 1


# ---- results -----------------------------------------------------------------------------------


def results(*hits: Hit, query: str = "red") -> Results:
    return Results(query, list(hits))


def test_results_are_a_sequence() -> None:
    found = results(*(Hit(str(n), n, {}) for n in range(4)))
    assert len(found) == 4 and found[1].id == "1" and [hit.id for hit in found[2:]] == ["2", "3"]
    assert found[2:].first_rank == 3 and found[2:].to_arrow()["rank"].to_pylist() == [3, 4]
    assert found == [Hit(str(n), n, {}) for n in range(4)] and bool(results()) is False


def test_text_of_results_has_no_control_characters() -> None:
    evil = Hit("a\x1b[31m", 3, {"text": "red\x1b]0;x\x07\nnext"}, confidence=0.5)
    text = repr(results(evil, query="q\x1b[0m"))
    assert "\x1b" not in text and "\x07" not in text and len(text.splitlines()) == 2
    assert "distance 3  confidence 50%" in text


def test_html_of_results_is_escaped_and_bounded(tmp_path: Path) -> None:
    Image.new("RGB", (4000, 2000), "red").save(tmp_path / "red.png")
    evil = "<script>alert(1)</script>"
    fields = {"image": str(tmp_path / "red.png"), "text": evil + "x" * 10_000}
    page = results(*(Hit(evil, 3, fields) for _ in range(60)), query=evil)._repr_html_()
    assert "<script" not in page and page.count("<li>") == MAX_SHOWN and "10 more" in page
    assert "x" * (MAX_TEXT + 1) not in page
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(pictures) == MAX_SHOWN
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as thumb:
        assert max(thumb.size) <= 160
    assert re.findall(r"(?:src|href)=", page) == ["src="] * MAX_SHOWN  # nothing is loaded


def test_a_notebook_shows_pictures(photos: xmodal.Collection) -> None:
    formatters = pytest.importorskip("IPython.core.formatters", reason="pip install ipykernel")
    shown, _ = formatters.DisplayFormatter().format(photos.search("a red circle", k=2))
    assert shown["text/html"].count("<img ") == 2
    assert shown["text/plain"].startswith("Results for 'a red circle': 2 hits\n  1. distance")


def test_tables_of_results() -> None:
    hits = [
        Hit("a", 1, {"text": ["one", "two"], "score": 3, "mixed": "x"}, nearest=1, confidence=0.5),
        Hit("b", 2, {"image": "b.png", "mixed": [1, 2]}, matched=("red",)),
    ]
    frame = results(*hits).to_pandas()
    assert list(frame["id"]) == ["a", "b"] and list(frame["rank"]) == [1, 2]
    table = results(*hits).to_arrow().to_pydict()
    assert table["text"] == ["one", None] and table["image"] == [None, "b.png"]
    assert table["field_score"] == [3, None] and table["mixed"] == ["x", "[1, 2]"]
    empty = results().to_arrow()
    assert empty.num_rows == 0 and {"rank", "id", "text"} <= set(empty.column_names)


SNIPPET = """
from pathlib import Path
import pandas as pd
import xmodal

photos = xmodal.Collection("my.index")
results = photos.search_text("red shoes", k=5, where={"price": {"lt": 50}})
first: xmodal.Hit = results[0]
some: xmodal.Results = results[:3]
distance: int = first.distance
for hit in xmodal.search("my.index", image=Path("a.jpg")):
    print(hit.id, hit.confidence)
changes = photos.add(pd.DataFrame({"caption": ["red"]}), source="x")
print(changes.summary(), len(photos), "a.jpg" in photos)
"""
WRONG = 'photos.search_text("red", K=5)  # error\nresults.nothing  # error\n'


@pytest.mark.slow
def test_types_of_a_users_program(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="pip install mypy")
    (tmp_path / "user.py").write_text(SNIPPET + textwrap.dedent(WRONG))
    options = ["--strict", "--no-error-summary", "--follow-imports=silent"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--ignore-missing-imports", "user.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    lines = (SNIPPET + WRONG).splitlines()
    expected = [number for number, line in enumerate(lines, 1) if line.endswith("# error")]
    found = [int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line]
    assert found == expected, done.stdout + done.stderr


def test_iteration_yields_entries(photos: xmodal.Collection) -> None:
    assert isinstance(next(iter(photos)), Entry)
