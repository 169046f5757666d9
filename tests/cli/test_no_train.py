"""Indexing and search without training, with a tiny CLIP whose towers agree on shapes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.aligned_clip import KINDS, save_aligned_clip, write_shapes
from support.tiny_models import save_bert

COUNT = 120
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_aligned_clip(tmp_path_factory.mktemp("aligned") / "clip")


def found(run: Run, index: Path, *query: object) -> list[str]:
    """The kinds of the first ten pictures."""
    result = run("search", *query, "--index", index, "-k", 10, "--target", "image", "--json")
    assert result.status == 0, result.err
    hits = json.loads(result.out)["hits"]
    return [KINDS[int(Path(hit["id"]).stem) % len(KINDS)] for hit in hits]


@pytest.mark.parametrize("captions", [True, False])
def test_index_and_search_without_a_model(
    xmodal_cli: Run, clip: Path, tmp_path: Path, captions: bool
) -> None:
    write_shapes(tmp_path / "photos", COUNT, captions=captions)
    index = tmp_path / "my.index"
    result = xmodal_cli(
        "index", tmp_path / "photos", "--index", index, "--image-backbone", clip, "--bits", 64
    )
    assert result.status == 0, result.err
    assert "an aligned pair of backbones, no training" in result.err
    assert "recall@10 of the float cosine, image->image" in result.out
    assert ("text->image" in result.out) == captions
    assert "entropy of a bit" in result.out
    write_shapes(tmp_path / "more", 8, captions=captions, seed=5)
    for number, text in enumerate(KINDS):
        if captions:
            assert found(xmodal_cli, index, text).count(text) >= 8
        else:  # the mean of texts is estimated from general phrases, which this model has not seen
            assert len(found(xmodal_cli, index, text)) == 10
        query = ("--image", tmp_path / "more" / f"{number}.png")
        assert found(xmodal_cli, index, *query).count(text) >= 8

    again = xmodal_cli("index", tmp_path / "more", "--index", index, "--json")
    assert again.status == 0, again.err
    assert "fitted" not in json.loads(again.out)
    shutil.move(index, tmp_path / "moved")  # the model lies in the index
    assert found(xmodal_cli, tmp_path / "moved", KINDS[0])


def test_train_without_training_and_evaluate(xmodal_cli: Run, clip: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "photos", COUNT, captions=True)
    command = ("train", tmp_path / "photos", "--out", tmp_path / "m", "--no-train", "--json")
    result = xmodal_cli(*command, "--text-backbone", clip)
    assert result.status == 0, result.err
    report = json.loads(result.out)
    assert report["queries"] == round(COUNT / 10) and 0 < report["recall"]["text->image"] <= 1
    assert json.loads((tmp_path / "m" / "config.json").read_text())["towers"]["bits"] == 256
    repeated = xmodal_cli(*command, "--text-backbone", clip)
    assert json.loads(repeated.out)["fingerprint"] == report["fingerprint"]
    other = xmodal_cli(*command, "--text-backbone", clip, "--bits", 32)
    assert "another encoder" in other.err
    assert xmodal_cli("evaluate", tmp_path / "photos", "--model", tmp_path / "m").status == 0
    indexed = xmodal_cli(
        "index", tmp_path / "photos", "--model", tmp_path / "m", "--index", tmp_path / "i"
    )
    assert indexed.status == 0, indexed.err
    assert KINDS[2] in found(xmodal_cli, tmp_path / "i", KINDS[2])  # the index records its model


def test_backbones_of_two_models_are_refused(xmodal_cli: Run, clip: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "photos", 6, captions=False)
    bert = save_bert(tmp_path / "bert")
    result = xmodal_cli(
        *("index", tmp_path / "photos", "--index", tmp_path / "i"),
        *("--image-backbone", clip, "--text-backbone", bert),
    )
    assert result.status == 2 and "xmodal train DATA" in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "i").exists()


def test_index_without_a_record_and_addresses_need_a_model(
    xmodal_cli: Run, clip: Path, tmp_path: Path
) -> None:
    write_shapes(tmp_path / "photos", 12, captions=False)
    index = ("index", tmp_path / "photos", "--index", tmp_path / "i", "--image-backbone", clip)
    result = xmodal_cli(*index)
    assert result.status == 0 and "not measured" in result.out, result.err
    (tmp_path / "i" / "model.json").unlink()
    shutil.rmtree(tmp_path / "i" / "model")
    for command in (index, ("search", "red", "--index", tmp_path / "i")):
        assert "records its model" in xmodal_cli(*command).err
    address = "opensearch://localhost:1/x"
    assert "--model is missing" in xmodal_cli("search", "red", "--index", address).err
    assert "no index" in xmodal_cli("search", "red", "--index", tmp_path / "none").err
