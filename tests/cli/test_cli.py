"""Commands end to end on rendered pictures: output, files, exit status."""

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
from xmodal.cli.encode import _write_codes
from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.folder import write_config
from xmodal.index.contract import open_index
from xmodal.index.local import open_folder

Run = Callable[..., Any]
COMMANDS = (
    *("train", "encode", "index", "search", "info", "check"),
    *("serve", "mcp", "evaluate", "compress", "export", "demo"),
    *("config", "completion"),
)
SMALL = ("--image-backbone", "small-cnn", "--text-backbone", "words", "--bits", "16")
HAMMING = ("--by", "codes", "--stage", "hamming")
QUICK = ("--set", "epochs=1", "--set", "batch=32", "--set", "hidden=32")


# ---- help ------------------------------------------------------------------------------------


def test_help_of_every_command_has_an_example(xmodal_cli: Run) -> None:
    overview = xmodal_cli("--help")
    assert overview.status == 0 and re.search(r"Example:\n +xmodal train photos/", overview.out)
    for command in COMMANDS:
        result = xmodal_cli(command, "--help")
        assert result.status == 0 and command in overview.out
        assert re.search(rf"Example:\n +xmodal {command} ", result.out), command
        assert result.err == ""


def test_version(xmodal_cli: Run) -> None:
    assert xmodal_cli("--version").out == f"xmodal, version {xmodal.__version__}\n"


# ---- train -----------------------------------------------------------------------------------


def test_train_writes_files_and_does_not_repeat_finished_work(
    xmodal_cli: Run, photos_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.model"
    command = ("train", photos_folder, "--out", out, *SMALL, *QUICK)
    first = xmodal_cli(*command)
    assert first.status == 0
    assert "photos_folder: 150 items, 150 pairs" in first.err and "epoch   1/1" in first.err
    assert f"{out}: 16 bits, encoder " in first.out and "R@10" in first.out
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
    assert report["name"] == "xmodal contrastive" and report["rows"] == {}
    assert set(report["captions"]["query"]["baselines"]) > {"chance", "cca + itq"}
    written = {f: (out / f).stat().st_mtime_ns for f in ("weights.safetensors", "config.json")}

    again = xmodal_cli(*command, "--no-report", "--json")
    assert again.status == 0 and "epoch" not in again.err
    summary = json.loads(again.out)
    assert summary["encoder"] == str(out) and summary["fingerprint"] in first.out
    assert {f: (out / f).stat().st_mtime_ns for f in written} == written

    other = xmodal_cli(*command, "--restart", "--seed", 1, "--no-report", "--json")
    assert other.status == 0 and "epoch   1/1" in other.err
    assert json.loads(other.out)["fingerprint"] != summary["fingerprint"]


def test_train_reads_settings_of_another_encoder(
    xmodal_cli: Run, photos_folder: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "b.model"
    file = ("--settings", model / "config.json")
    result = xmodal_cli(
        "train", photos_folder, "--out", out, *SMALL, *file, "--set", "epochs=1", "--no-report"
    )
    assert result.status == 0
    expected, used = (
        json.loads((folder / "config.json").read_text())["settings"] for folder in (model, out)
    )
    assert used == expected | {"epochs": 1}


def test_train_on_pictures_with_caption_files(
    xmodal_cli: Run, dataset: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for item in dataset.items[:40]:
        assert item.images and item.captions
        shutil.copy(item.images[0], folder)
        (folder / item.images[0].name).with_suffix(".txt").write_text(item.captions[0])
    result = xmodal_cli("train", folder, "--out", tmp_path / "m", *SMALL, *QUICK, "--json")
    assert result.status == 0 and "photos: 40 items, 40 pairs" in result.err
    found = json.loads((tmp_path / "m/report.json").read_text())["captions"]["query"]
    assert 0 <= found["text_to_image"]["r10"] <= 1
    for share in ("--validation", "--query"):  # both parts are optional
        out = tmp_path / f"m{share}"
        result = xmodal_cli("train", folder, "--out", out, *SMALL, *QUICK, share, 0, "--json")
        assert result.status == 0 and "NaN" not in result.out
        assert "NaN" not in (out / "history.jsonl").read_text()


# ---- index -----------------------------------------------------------------------------------


def test_index_twice_has_no_duplicates(
    xmodal_cli: Run, photos_folder: Path, model: Path, tmp_path: Path
) -> None:
    command = ("index", photos_folder, "--model", model, "--index", tmp_path / "i")
    first = xmodal_cli(*command)
    assert first.status == 0
    assert first.out == (
        f"{tmp_path / 'i'}: 150 documents; from {photos_folder}: 150 pictures, 150 texts "
        "(150 added)\n"
    )
    again = xmodal_cli(*command, "--json")
    summary = json.loads(again.out)
    assert summary.pop("index") == str(tmp_path / "i")
    assert summary.pop("changes")["unchanged"] == 150
    assert summary == {"documents": 150, "image": 150, "text": 150, "renamed": {}, "problems": {}}
    assert len(open_index(tmp_path / "i")) == 150


def test_index_of_texts_from_named_columns(xmodal_cli: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("nr,worte,farbe\n1,a red circle,red\n2,a blue star,blue\n")
    columns = ("--text-column", "worte", "--id-column", "nr")
    command = ("index", tmp_path / "t.csv", "--model", model, "--index", tmp_path / "i", *columns)
    assert "2 documents" in xmodal_cli(*command).out
    command = ("search", "a red circle", "--model", model, "--index", tmp_path / "i", "--json")
    found = json.loads(xmodal_cli(*command, "--target", "text").out)["hits"]
    expected = {
        "id": "1",
        "distance": 0,
        "fields": {"farbe": "red", "text": "a red circle"},
        "confidence": None,  # calibrated for pairs of picture and text only
        "nearest": {"position": 0, "text": "a red circle"},
    }
    assert found[0] == found[0] | expected
    assert xmodal_cli(*command, "--target", "image").status == 1  # no pictures in the index


# ---- search ----------------------------------------------------------------------------------


@pytest.fixture
def search(xmodal_cli: Run, model: Path, index_path: Path) -> Run:
    """``xmodal search`` in the index of the rendered pictures."""

    def run(*arguments: object) -> Any:
        return xmodal_cli("search", *arguments, "--model", model, "--index", index_path)

    return run


def test_search_by_text_returns_hits_with_confidence(
    search: Run, encoder: Encoder, index_path: Path
) -> None:
    result = search("a red circle on the left", "-k", 7, "--json")
    assert result.status == 0 and result.err == ""
    answer = json.loads(result.out)
    assert answer["query"] == "a red circle on the left" and len(answer["hits"]) == 7
    codes = encoder.encode_texts(["a red circle on the left"])
    hamming = search("a red circle on the left", "-k", 7, "--json", *HAMMING)
    expected = open_index(index_path).search(codes, 7, target="image")[0]
    found = [(h["id"], h["distance"]) for h in json.loads(hamming.out)["hits"]]
    assert found == [h[:2] for h in expected]
    for hit in answer["hits"]:
        assert 0 <= hit["confidence"] <= 1
        assert hit["fields"]["image"].endswith(hit["id"])


def test_search_by_a_picture_finds_texts_or_pictures(
    search: Run, dataset: Dataset, encoder: Encoder, index_path: Path
) -> None:
    item = dataset.items[0]
    result = search("--image", item.images[0], "-k", 3, "--json")
    assert len(json.loads(result.out)["hits"]) == 3
    pictures = json.loads(
        search("--image", item.images[0], "-k", 3, "--target", "image", "--json", *HAMMING).out
    )
    codes = encoder.encode_images([str(item.images[0])])
    expected = open_index(index_path).search(codes, 3, target="image")[0]
    assert [(h["id"], h["distance"]) for h in pictures["hits"]] == [h[:2] for h in expected]
    assert pictures["hits"][0]["confidence"] is None


def test_search_prints_a_line_for_each_hit(search: Run) -> None:
    lines = search("a red circle", "-k", 3).out.splitlines()
    assert len(lines) == 3
    for rank, line in enumerate(lines, start=1):
        assert re.match(rf"{rank}\t\d+\t\d+%\t[^\t]+\t[^\t]+\t/.+\.png$", line), line


def test_search_with_filters(search: Run) -> None:
    result = search("a star", "--where", "colour=red", "--where", "shape=star", "-k", 99, "--json")
    hits = json.loads(result.out)["hits"]
    assert hits and {(h["fields"]["colour"], h["fields"]["shape"]) for h in hits} == {
        ("red", "star")
    }


def test_search_with_maximum_distance_and_minimum_confidence(search: Run, encoder: Encoder) -> None:
    query = ("a red circle", "--by", "codes")
    unlimited = json.loads(search(*query, "-k", 150, "--json").out)["hits"]
    middle = unlimited[75]["distance"]
    near = json.loads(search(*query, "-k", 150, "--max-distance", middle, "--json").out)
    expected = [hit["id"] for hit in unlimited if hit["distance"] <= middle]
    assert [hit["id"] for hit in near["hits"]] == expected
    minimum = unlimited[75]["confidence"]
    result = search(*query, "-k", 150, "--min-confidence", minimum, "--json")
    confident = [hit for hit in unlimited if hit["confidence"] >= minimum]
    assert json.loads(result.out)["hits"] == confident and confident
    both = search(*query, "-k", 150, "--min-confidence", 0, "--max-distance", middle)
    assert len(both.out.splitlines()) == len(near["hits"])


def test_search_without_match_exits_with_1(search: Run) -> None:
    result = search("a red circle", "--where", "colour=transparent")
    assert (result.status, result.out, result.err) == (1, "no match\n", "")
    result = search("a red circle", "--where", "colour=transparent", "--json")
    assert result.status == 1 and json.loads(result.out)["hits"] == []


def test_search_in_an_empty_index_names_the_index_command(
    xmodal_cli: Run, model: Path, encoder: Encoder, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    open_index(empty, bits=encoder.bits, fingerprint=encoder.fingerprint, create=True).close()
    result = xmodal_cli("search", "a", "--model", model, "--index", empty)
    assert result.status == 1 and result.out == "no match\n"
    assert f"{empty} is empty" in result.err and "xmodal index DATA" in result.err


@pytest.mark.parametrize("suffix", ["html", "png"])
def test_search_writes_a_gallery(
    search: Run, dataset: Dataset, tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / "new" / f"hits.{suffix}"
    result = search("a red circle", "-k", 4, "--gallery", file)
    assert result.status == 0 and f"gallery: {file}" in result.err
    if suffix == "html":
        assert file.read_text().count("data:image/jpeg;base64,") == 4
    else:
        with Image.open(file) as image:
            assert image.format == "PNG" and image.width > 4 * 160
    by_picture = search("--image", dataset.items[0].images[0], "--gallery", file)
    assert by_picture.status == 0


# ---- encode ----------------------------------------------------------------------------------


def test_encode_prints_codes_of_texts_and_pictures(
    xmodal_cli: Run, model: Path, encoder: Encoder, dataset: Dataset
) -> None:
    image = str(dataset.items[0].images[0])
    expected = [*encoder.encode_texts(["red", "blue"]).to_hex()]
    expected += encoder.encode_images([image]).to_hex()
    command = ("encode", "--model", model, "--text", "red", "--text", "blue", "--image", image)
    assert xmodal_cli(*command).out.split() == expected
    lines = [json.loads(line) for line in xmodal_cli(*command, "--json").out.splitlines()]
    assert [line["code"] for line in lines] == expected
    assert lines[0]["text"] == "red" and lines[2]["image"] == image


def test_encode_writes_codes_of_data(
    xmodal_cli: Run,
    model: Path,
    photos_folder: Path,
    encoder: Encoder,
    dataset: Dataset,
    tmp_path: Path,
) -> None:
    out = tmp_path / "codes.npz"
    result = xmodal_cli("encode", photos_folder, "--model", model, "--out", out)
    assert result.out == f"{out}: 150 image codes, 150 text codes\n"
    with np.load(out, allow_pickle=False) as saved:
        assert saved["bits"] == encoder.bits and saved["image_ids"].tolist() == dataset.ids
        assert saved["image_codes"].shape == (150, encoder.bits // 8)
        expected = encoder.encode_texts([str(dataset.items[7].captions[0])])
        assert (saved["text_codes"][7] == expected.packed[0]).all()
        assert not saved["image_positions"].any() and not saved["text_positions"].any()
    assert [file.name for file in tmp_path.iterdir()] == ["codes.npz"]


@pytest.fixture
def captions() -> Dataset:
    """An item with three captions, one of them unusable, and an item with one."""
    several = Item("a", captions=("a red circle", "!!!", "a blue star"))
    return Dataset((several, Item("b", captions=("a green cross",))))


def test_encode_repeats_the_id_of_an_item_with_several_captions(
    encoder: Encoder, captions: Dataset, tmp_path: Path
) -> None:
    options = {"cache": tmp_path / "cache", "margins": False, "compare": None}
    _write_codes(encoder, captions, tmp_path / "codes.npz", options)
    with np.load(tmp_path / "codes.npz", allow_pickle=False) as saved:
        assert saved["text_ids"].tolist() == ["a", "a", "b"]
        assert saved["text_positions"].tolist() == [0, 2, 0]
        expected = encoder.encode_texts(["a red circle", "a blue star", "a green cross"])
        assert np.array_equal(saved["text_codes"], expected.packed)
        assert saved["image_ids"].tolist() == saved["image_positions"].tolist() == []


def test_search_shows_the_nearest_caption(
    xmodal_cli: Run, model: Path, encoder: Encoder, captions: Dataset, tmp_path: Path
) -> None:
    with open_folder(tmp_path / "i", bits=encoder.bits, create=True) as index:
        for batch in encoder.batches(captions, cache=tmp_path / "cache"):
            index.add(batch)
    command = ("search", "a blue star", "--model", model, "--index", tmp_path / "i")
    found = json.loads(xmodal_cli(*command, "--target", "text", "--json").out)["hits"]
    assert (found[0]["id"], found[0]["distance"]) == ("a", 0)
    assert found[0]["nearest"] == {"position": 1, "text": "a blue star"}
    first = xmodal_cli(*command, "--target", "text").out.splitlines()[0]
    assert "a blue star" in first and "a red circle" not in first


# ---- evaluate --------------------------------------------------------------------------------


def test_evaluate_prints_a_table(xmodal_cli: Run, model: Path, photos_folder: Path) -> None:
    result = xmodal_cli("evaluate", photos_folder, "--model", model)
    assert result.status == 0
    for words in ("photos_folder: 32 bits", "chance", "cca + itq", "xmodal schgan", "base rate: "):
        assert words in result.out


def test_evaluate_uses_the_label_column_of_the_training(
    xmodal_cli: Run, model: Path, photos_folder: Path, tmp_path: Path
) -> None:
    assert json.loads((model / "config.json").read_text())["data"]["label_column"] == "labels"
    command = ("evaluate", photos_folder, "--model", model, "--json")
    result = xmodal_cli(*command)
    assert json.loads(result.out)["facts"]["relevant means"] == "shares a label"
    assert "--label-column" not in result.err
    other = xmodal_cli(*command, "--label-column", "colour")
    assert json.loads(other.out)["rows"] != json.loads(result.out)["rows"]

    rows = [
        json.loads(line) for line in (photos_folder / "metadata.jsonl").read_text().splitlines()
    ]
    for row in rows:
        row["file_name"], row["class"] = str(photos_folder / row["file_name"]), row.pop("labels")
        row["id"] = Path(row["file_name"]).name
    table = tmp_path / "t.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = xmodal_cli("evaluate", table, "--model", model, "--json")
    assert json.loads(result.out)["rows"] == {}
    assert json.loads(result.out)["captions"]["query"]["text_to_image"]["r10"] > 0
    assert "t.jsonl has no column labels" in result.err
    assert "--label-column class measures by it" in result.err


def test_evaluate_refuses_models_of_different_label_columns(
    xmodal_cli: Run, model: Path, photos_folder: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(model, tmp_path / "other.model"))
    config = json.loads((other / "config.json").read_text())
    config["data"]["label_column"] = "shape"
    write_config(other, config)
    result = xmodal_cli("evaluate", photos_folder, "--model", model, "--model", other)
    assert result.status == 2 and "(labels, shape)" in result.err


def test_evaluate_writes_report_and_trec_files_of_two_seeds(
    xmodal_cli: Run, model: Path, photos_folder: Path, dataset: Dataset, tmp_path: Path
) -> None:
    other = tmp_path / "other.model"
    command = (
        "train",
        photos_folder,
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
    files += ("--workbench", tmp_path / "workbench")
    result = xmodal_cli("evaluate", photos_folder, *models, *files, "--json")
    assert result.status == 0
    report = json.loads(result.out)
    assert report == json.loads((tmp_path / "new" / "report.json").read_text())
    assert report["seeds"] == 2
    assert report["spread"]["xmodal schgan"]["image->text"]["mAP"] > 0
    assert {file.name for file in (tmp_path / "runs").iterdir()} == {
        f"{name}.model.{kind}"
        for name in ("toy", "other")
        for kind in (
            *("image-text.run", "text-image.run", "qrels"),
            *("captions.image-text.run", "captions.image-text.qrels"),
            *("captions.text-image.run", "captions.text-image.qrels"),
        )
    }
    queries = {item.id for item in dataset if item.split == "test"}
    lines = (tmp_path / "runs/toy.model.text-image.run").read_text().splitlines()
    assert {line.split()[0] for line in lines} == queries
    assert not {line.split()[2] for line in lines} & queries
    judgments = json.loads((tmp_path / "workbench/toy.model.judgments.json").read_text())
    judged = {rating["docId"] for one in judgments["judgmentRatings"] for rating in one["ratings"]}
    assert judged == queries
    assert (
        xmodal_cli("evaluate", photos_folder, *models, "--out", tmp_path / "report.txt").status == 0
    )
    assert "±" in (tmp_path / "report.txt").read_text()


# ---- demo ------------------------------------------------------------------------------------


def test_demo_writes_model_index_report_and_galleries(xmodal_cli: Run, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = xmodal_cli("demo", "--out", out, "--pictures", 360, "--set", "epochs=1")
    assert result.status == 0
    assert "chance" in result.out and "combinations" in result.out
    for name in ("gallery.html", "gallery.png", "report.json", "model/config.json", "index"):
        assert (out / name).exists(), name
