"""The command line from end to end, on the small world: what works is told plainly and once."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import xmodal
from xmodal.data.dataset import Dataset
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.folder import write_config
from xmodal.index.contract import open_index

Run = Callable[..., Any]
COMMANDS = ("train", "encode", "index", "search", "evaluate", "export", "demo")
SMALL = ("--image-backbone", "small-cnn", "--text-backbone", "words", "--bits", "16")
QUICK = ("--set", "epochs=1", "--set", "batch=32", "--set", "hidden=32")


# ---- help ------------------------------------------------------------------------------------


def test_every_command_has_an_example(xmodal_cli: Run) -> None:
    everything = xmodal_cli("--help")
    assert everything.status == 0 and re.search(r"Example:\n +xmodal train photos/", everything.out)
    for command in COMMANDS:
        told = xmodal_cli(command, "--help")
        assert told.status == 0 and command in everything.out
        assert re.search(rf"Example:\n +xmodal {command} ", told.out), command
        assert told.err == ""


def test_version(xmodal_cli: Run) -> None:
    assert xmodal_cli("--version").out == f"xmodal, version {xmodal.__version__}\n"


# ---- train -----------------------------------------------------------------------------------


def test_train_and_train_again(xmodal_cli: Run, world: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.model"
    command = ("train", world, "--out", out, *SMALL, *QUICK)
    first = xmodal_cli(*command)
    assert first.status == 0
    assert "world: 150 items, 150 pairs" in first.err and "epoch   1/1" in first.err
    assert f"{out}: 16 bits, encoder " in first.out and "validation" in first.out
    assert {file.name for file in out.iterdir()} == {
        "config.json",
        "weights.safetensors",
        "history.jsonl",
        "split.json",
        "report.json",
    }
    hint = "column labels (5 values) is stored as a field; --label-column labels trains on it\n"
    assert first.err.count(hint) == 1
    data = json.loads((out / "config.json").read_text())["data"]
    assert (data["labelled"], data["label_column"]) == (0, None)
    report = json.loads((out / "report.json").read_text())
    assert set(report["rows"]) > {"chance", "cca + itq", "xmodal schgan"}
    written = {f: (out / f).stat().st_mtime_ns for f in ("weights.safetensors", "config.json")}

    again = xmodal_cli(*command, "--no-report", "--json")
    assert again.status == 0 and "epoch" not in again.err
    told = json.loads(again.out)
    assert told["encoder"] == str(out) and told["fingerprint"] in first.out
    assert {f: (out / f).stat().st_mtime_ns for f in written} == written

    other = xmodal_cli(*command, "--restart", "--seed", 1, "--no-report", "--json")
    assert other.status == 0 and "epoch   1/1" in other.err
    assert json.loads(other.out)["fingerprint"] != told["fingerprint"]


def test_settings_can_come_from_the_file_of_another_encoder(
    xmodal_cli: Run, world: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "b.model"
    file = ("--settings", model / "config.json")
    told = xmodal_cli(
        "train", world, "--out", out, *SMALL, *file, "--set", "epochs=1", "--no-report"
    )
    assert told.status == 0
    theirs, ours = (
        json.loads((folder / "config.json").read_text())["settings"] for folder in (model, out)
    )
    assert ours == theirs | {"epochs": 1}


def test_captions_beside_pictures_are_enough(
    xmodal_cli: Run, dataset: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for item in dataset.items[:40]:
        assert item.image is not None and item.text is not None
        shutil.copy(item.image, folder)
        (folder / item.image.name).with_suffix(".txt").write_text(item.text)
    told = xmodal_cli("train", folder, "--out", tmp_path / "m", *SMALL, *QUICK, "--json")
    assert told.status == 0 and "photos: 40 items, 40 pairs" in told.err
    assert 0 < json.loads(told.out)["text->image"] < 1
    facts = json.loads((tmp_path / "m/report.json").read_text())["facts"]
    assert facts["relevant means"] == "is the natural pair"
    for share in ("--validation", "--query"):  # neither part is needed
        out = tmp_path / f"m{share}"
        told = xmodal_cli("train", folder, "--out", out, *SMALL, *QUICK, share, 0, "--json")
        assert told.status == 0 and "NaN" not in told.out
        assert "NaN" not in (out / "history.jsonl").read_text()


# ---- index -----------------------------------------------------------------------------------


def test_indexing_twice_makes_no_duplicates(
    xmodal_cli: Run, world: Path, model: Path, tmp_path: Path
) -> None:
    command = ("index", world, "--model", model, "--index", tmp_path / "i")
    first = xmodal_cli(*command)
    assert first.status == 0
    assert first.out == (
        f"{tmp_path / 'i'}: 150 documents; from {world}: 150 pictures, 150 texts\n"
    )
    again = xmodal_cli(*command, "--json")
    told = json.loads(again.out)
    assert told.pop("index") == str(tmp_path / "i")
    assert told == {"documents": 150, "image": 150, "text": 150, "problems": {}}
    assert len(open_index(tmp_path / "i")) == 150


def test_a_table_with_named_columns_of_texts_alone(
    xmodal_cli: Run, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("nr,worte,farbe\n1,a red circle,red\n2,a blue star,blue\n")
    columns = ("--text-column", "worte", "--id-column", "nr")
    command = ("index", tmp_path / "t.csv", "--model", model, "--index", tmp_path / "i", *columns)
    assert "2 documents" in xmodal_cli(*command).out
    asked = ("search", "a red circle", "--model", model, "--index", tmp_path / "i", "--json")
    found = json.loads(xmodal_cli(*asked, "--target", "text").out)["hits"]
    assert found[0] == {
        "id": "1",
        "distance": 0,
        "fields": {"farbe": "red", "text": "a red circle"},
        "confidence": None,  # known between pictures and texts only
    }
    assert xmodal_cli(*asked, "--target", "image").status == 1  # there are no pictures


# ---- search ----------------------------------------------------------------------------------


@pytest.fixture
def search(xmodal_cli: Run, model: Path, index_path: Path) -> Run:
    """``xmodal search`` in the index of the world."""

    def run(*arguments: object) -> Any:
        return xmodal_cli("search", *arguments, "--model", model, "--index", index_path)

    return run


def test_search_by_words(search: Run, encoder: Encoder, index_path: Path) -> None:
    told = search("a red circle on the left", "-k", 7, "--json")
    assert told.status == 0 and told.err == ""
    answer = json.loads(told.out)
    assert answer["query"] == "a red circle on the left" and len(answer["hits"]) == 7
    codes = encoder.encode_texts(["a red circle on the left"])
    expected = open_index(index_path).search(codes, 7, target="image")[0]
    assert [(h["id"], h["distance"]) for h in answer["hits"]] == [h[:2] for h in expected]
    for hit in answer["hits"]:
        assert hit["confidence"] == round(encoder.confidence(hit["distance"]), 4)
        assert hit["fields"]["image"].endswith(hit["id"])


def test_search_by_a_picture_finds_texts(
    search: Run, dataset: Dataset, encoder: Encoder, index_path: Path
) -> None:
    item = dataset.items[0]
    told = search("--image", item.image, "-k", 3, "--json")
    assert len(json.loads(told.out)["hits"]) == 3
    alike = json.loads(search("--image", item.image, "-k", 3, "--target", "image", "--json").out)
    codes = encoder.encode_images([str(item.image)])
    expected = open_index(index_path).search(codes, 3, target="image")[0]
    assert [(h["id"], h["distance"]) for h in alike["hits"]] == [h[:2] for h in expected]
    assert alike["hits"][0]["confidence"] is None


def test_hits_are_printed_as_a_table(search: Run) -> None:
    told = search("a red circle", "-k", 3)
    lines = told.out.splitlines()
    assert lines[0].split() == ["distance", "confidence", "text", "file"] and len(lines) == 4
    assert all(re.match(r"\d+ +\d+%.*\.png$", line) for line in lines[1:]), told.out


def test_filters(search: Run) -> None:
    told = search("a star", "--where", "colour=red", "--where", "shape=star", "-k", 99, "--json")
    hits = json.loads(told.out)["hits"]
    assert hits and {(h["fields"]["colour"], h["fields"]["shape"]) for h in hits} == {
        ("red", "star")
    }


def test_cut_offs(search: Run, encoder: Encoder) -> None:
    everything = json.loads(search("a red circle", "-k", 150, "--json").out)["hits"]
    middle = everything[75]["distance"]
    near = json.loads(search("a red circle", "-k", 150, "--max-distance", middle, "--json").out)
    assert near["hits"] == [hit for hit in everything if hit["distance"] <= middle]
    least = encoder.confidence(middle)
    told = search("a red circle", "-k", 150, "--min-confidence", least, "--json")
    assert json.loads(told.out)["hits"] == near["hits"]
    both = search("a red circle", "-k", 150, "--min-confidence", 0, "--max-distance", middle)
    assert len(both.out.splitlines()) == 1 + len(near["hits"])


def test_no_match_is_an_answer(search: Run) -> None:
    told = search("a red circle", "--where", "colour=transparent")
    assert (told.status, told.out, told.err) == (1, "no match\n", "")
    told = search("a red circle", "--where", "colour=transparent", "--json")
    assert told.status == 1 and json.loads(told.out)["hits"] == []


def test_an_empty_index_says_how_to_fill_it(
    xmodal_cli: Run, model: Path, encoder: Encoder, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    open_index(empty, bits=encoder.bits, fingerprint=encoder.fingerprint, create=True).close()
    told = xmodal_cli("search", "a", "--model", model, "--index", empty)
    assert told.status == 1 and told.out == "no match\n"
    assert "is empty: fill it with xmodal index DATA" in told.err


@pytest.mark.parametrize("ending", ["html", "png"])
def test_a_gallery_is_written(search: Run, dataset: Dataset, tmp_path: Path, ending: str) -> None:
    file = tmp_path / "new" / f"hits.{ending}"
    told = search("a red circle", "-k", 4, "--gallery", file)
    assert told.status == 0 and f"gallery: {file}" in told.err
    if ending == "html":
        assert file.read_text().count("data:image/jpeg;base64,") == 4
    else:
        with Image.open(file) as image:
            assert image.format == "PNG" and image.width > 4 * 160
    by_picture = search("--image", dataset.items[0].image, "--gallery", file)
    assert by_picture.status == 0


# ---- encode ----------------------------------------------------------------------------------


def test_encode_single_texts_and_pictures(
    xmodal_cli: Run, model: Path, encoder: Encoder, dataset: Dataset
) -> None:
    image = str(dataset.items[0].image)
    expected = [*encoder.encode_texts(["red", "blue"]).to_hex()]
    expected += encoder.encode_images([image]).to_hex()
    asked = ("encode", "--model", model, "--text", "red", "--text", "blue", "--image", image)
    assert xmodal_cli(*asked).out.split() == expected
    told = [json.loads(line) for line in xmodal_cli(*asked, "--json").out.splitlines()]
    assert [one["code"] for one in told] == expected
    assert told[0]["text"] == "red" and told[2]["image"] == image


def test_encode_data_into_a_file(
    xmodal_cli: Run, model: Path, world: Path, encoder: Encoder, dataset: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "codes.npz"
    told = xmodal_cli("encode", world, "--model", model, "--out", out)
    assert told.out == f"{out}: 150 image codes, 150 text codes\n"
    with np.load(out, allow_pickle=False) as saved:
        assert saved["bits"] == encoder.bits and saved["image_ids"].tolist() == dataset.ids
        assert saved["image_codes"].shape == (150, encoder.bits // 8)
        expected = encoder.encode_texts([str(dataset.items[7].text)])
        assert (saved["text_codes"][7] == expected.packed[0]).all()
    assert [file.name for file in tmp_path.iterdir()] == ["codes.npz"]


# ---- evaluate --------------------------------------------------------------------------------


def test_evaluate_prints_a_table(xmodal_cli: Run, model: Path, world: Path) -> None:
    told = xmodal_cli("evaluate", world, "--model", model)
    assert told.status == 0
    for words in ("world: 32 bits", "chance", "cca + itq", "xmodal schgan", "base rate: "):
        assert words in told.out


def test_evaluate_uses_the_label_column_of_the_training(
    xmodal_cli: Run, model: Path, world: Path, tmp_path: Path
) -> None:
    assert json.loads((model / "config.json").read_text())["data"]["label_column"] == "labels"
    command = ("evaluate", world, "--model", model, "--json")
    told = xmodal_cli(*command)
    assert json.loads(told.out)["facts"]["relevant means"] == "shares a label"
    assert "--label-column" not in told.err
    other = xmodal_cli(*command, "--label-column", "colour")
    assert json.loads(other.out)["rows"] != json.loads(told.out)["rows"]

    rows = [json.loads(line) for line in (world / "metadata.jsonl").read_text().splitlines()]
    for row in rows:
        row["file_name"], row["class"] = str(world / row["file_name"]), row.pop("labels")
        row["id"] = Path(row["file_name"]).name
    table = tmp_path / "t.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = xmodal_cli("evaluate", table, "--model", model, "--json")
    assert json.loads(told.out)["facts"]["relevant means"] == "is the natural pair"
    assert "t.jsonl has no column labels" in told.err
    assert "--label-column class measures by it" in told.err


def test_models_of_different_label_columns_are_refused(
    xmodal_cli: Run, model: Path, world: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(model, tmp_path / "other.model"))
    config = json.loads((other / "config.json").read_text())
    config["data"]["label_column"] = "shape"
    write_config(other, config)
    told = xmodal_cli("evaluate", world, "--model", model, "--model", other)
    assert told.status == 2 and "different label columns (labels, shape)" in told.err


def test_evaluate_two_seeds_into_files(
    xmodal_cli: Run, model: Path, world: Path, dataset: Dataset, tmp_path: Path
) -> None:
    other = tmp_path / "other.model"
    command = (
        "train",
        world,
        "--out",
        other,
        *SMALL,
        "--bits",
        32,
        *QUICK,
        "--label-column",
        "labels",
    )
    assert xmodal_cli(*command, "--seed", 1, "--no-report").status == 0
    models = ("--model", model, "--model", other)
    files = ("--out", tmp_path / "new" / "report.json", "--trec", tmp_path / "runs")
    told = xmodal_cli("evaluate", world, *models, *files, "--json")
    assert told.status == 0
    report = json.loads(told.out)
    assert report == json.loads((tmp_path / "new" / "report.json").read_text())
    assert report["seeds"] == 2
    assert report["spread"]["xmodal schgan"]["image->text"]["mAP"] > 0
    assert {file.name for file in (tmp_path / "runs").iterdir()} == {
        f"{name}.model.{kind}"
        for name in ("toy", "other")
        for kind in ("image-text.run", "text-image.run", "qrels")
    }
    queries = {item.id for item in dataset if item.split == "test"}
    lines = (tmp_path / "runs/toy.model.text-image.run").read_text().splitlines()
    assert {line.split()[0] for line in lines} == queries
    assert not {line.split()[2] for line in lines} & queries
    assert xmodal_cli("evaluate", world, *models, "--out", tmp_path / "report.txt").status == 0
    assert "±" in (tmp_path / "report.txt").read_text()


# ---- demo ------------------------------------------------------------------------------------


def test_the_demo_runs_from_start_to_end(xmodal_cli: Run, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    told = xmodal_cli("demo", "--out", out, "--pictures", 360, "--set", "epochs=1")
    assert told.status == 0
    assert "chance" in told.out and "combinations" in told.out
    for name in ("gallery.html", "gallery.png", "report.json", "model/config.json", "index"):
        assert (out / name).exists(), name
