"""Training, encoding, indexing and evaluation from files of features, by the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodal.data.dataset import Dataset
from xmodal.features.backbones import load_text_backbone
from xmodal.features.extract import text_features

Run = Callable[..., Any]
TRAIN = ("--bits", 32, "--set", "epochs=2", "--set", "hidden=32", "--no-report")


@pytest.fixture(scope="module")
def features(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random features of the pictures of ``dataset``, features of its captions by ``words``."""
    path = tmp_path_factory.mktemp("features") / "features.npz"
    captions = [item.captions[0] for item in dataset]
    text, _ = text_features(load_text_backbone("words"), captions)
    image = text[:, :64] + np.random.default_rng(0).normal(0, 0.01, (len(text), 64))
    np.savez(path, ids=np.array(dataset.ids), image=image.astype(np.float16), text=text)
    return path


def test_features_alone(xmodal_cli: Run, features: Path, tmp_path: Path) -> None:
    model = tmp_path / "m"
    trained = xmodal_cli("train", features, "--out", model, *TRAIN)
    assert trained.status == 0 and "150 items, 150 pairs" in trained.err, trained.err
    backbones = json.loads((model / "config.json").read_text())["backbones"]
    assert backbones["image"] == {"spec": "features", "fingerprint": "features-image-64"}
    codes = tmp_path / "codes.npz"
    encoded = xmodal_cli("encode", "--features", features, "--model", model, "--out", codes)
    assert encoded.status == 0, encoded.err
    with np.load(codes) as arrays:
        assert arrays["image_codes"].shape == arrays["text_codes"].shape == (150, 4)
    report = xmodal_cli("evaluate", features, "--model", model, "--json")
    refused = xmodal_cli("evaluate", features, "--model", model, "--workbench", tmp_path / "w")
    assert refused.status == 2 and "--workbench needs texts" in refused.err
    assert report.status == 0, report.err
    indexed = xmodal_cli("index", features, "--model", model, "--index", tmp_path / "i", "--json")
    assert json.loads(indexed.out)["image"] == 150
    refused = xmodal_cli("search", "red", "--index", tmp_path / "i")
    assert refused.status == 2 and "--features FILE" in refused.err
    other = tmp_path / "other.npz"
    np.savez(other, image=np.ones((2, 7)))
    wrong = xmodal_cli("encode", "--features", other, "--model", model, "--out", codes)
    assert wrong.status == 2 and "7 numbers" in wrong.err and "expected 64" in wrong.err


def test_table_without_picture_files(
    xmodal_cli: Run, dataset: Dataset, features: Path, tmp_path: Path
) -> None:
    table = tmp_path / "items.jsonl"
    rows = [{"file_name": item.id, "text": item.captions[0]} for item in dataset]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("train", table, "--features", features, "--out", tmp_path / "m", *TRAIN)
    trained = xmodal_cli(*command, "--text-backbone", "words", "--json")
    assert trained.status == 0, trained.err
    repeated = xmodal_cli(*command, "--text-backbone", "words", "--json")
    assert json.loads(repeated.out)["fingerprint"] == json.loads(trained.out)["fingerprint"]
    code = xmodal_cli("encode", "--text", rows[0]["text"], "--model", tmp_path / "m").out.strip()
    out = tmp_path / "codes.npz"
    xmodal_cli("encode", table, "--features", features, "--model", tmp_path / "m", "--out", out)
    with np.load(out) as arrays:  # the raw caption and its feature have one code
        assert arrays["text_codes"][0].tobytes().hex() == code
    np.savez(tmp_path / "n.npz", **dict(np.load(features)) | {"image": np.ones((150, 3))})
    other = [tmp_path / "n.npz" if x == features else x for x in command]
    changed = xmodal_cli(*other, "--text-backbone", "words")
    assert changed.status == 2 and "features: name another --out" in changed.err


def test_features_of_another_backbone_are_refused(
    xmodal_cli: Run, dataset: Dataset, features: Path, photos_folder: Path, tmp_path: Path
) -> None:
    arrays = dict(np.load(features))
    np.savez(tmp_path / "f.npz", **arrays | {"text": arrays["text"][:, ::-1]})
    command = ("train", photos_folder, "--out", tmp_path / "m", *TRAIN)
    named = ("--text-backbone", "words", "--features")
    refused = xmodal_cli(*command, *named, tmp_path / "f.npz")
    assert refused.status == 2 and "are not those of words" in refused.err
    np.savez(tmp_path / "g.npz", **arrays | {"text": arrays["text"][:, :9]})
    refused = xmodal_cli(*command, *named, tmp_path / "g.npz")
    assert refused.status == 2 and "features of 9 numbers" in refused.err


def test_compress_says_what_an_archive_is_for(
    xmodal_cli: Run, features: Path, tmp_path: Path
) -> None:
    result = xmodal_cli("compress", features, "--out", tmp_path / "c")
    assert result.status == 2 and "xmodal train" in result.err
