"""Models, a local index, codes, a cache and a stopped run of an earlier version load."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xmodal
from xmodal.codes import BinaryCodes
from xmodal.encoders.encoder import Encoder
from xmodal.errors import ConfigError

OLD = Path(__file__).parents[1] / "artefacts" / "2026-11"
EXPECTED: dict[str, Any] = json.loads((OLD / "expected.json").read_text(encoding="utf-8"))
ON_CLIP = [name for name in EXPECTED["encoders"] if name.startswith("models/")]


def check(encoder: Encoder, name: str) -> None:
    """Compare fingerprint, codes and confidence; 1 % of the bits may differ between processors."""
    expected = EXPECTED["encoders"][name]
    assert encoder.fingerprint == expected["fingerprint"]
    assert encoder.bits == expected["bits"]
    pictures = encoder.encode_images([str(OLD / one) for one in EXPECTED["pictures"]])
    bits = np.concatenate([pictures.to_bits(), encoder.encode_texts(EXPECTED["texts"]).to_bits()])
    recorded = BinaryCodes.from_hex([*expected["image"], *expected["text"]]).to_bits()
    assert (bits == recorded).mean() >= 0.99
    # The curve of these versions is of an even mix, as in an index of two documents.
    confidence = encoder.confidence.hits_confidence("hamming", [1, 0, 0], 2, distances=[0, 8, 16])
    assert confidence == pytest.approx(expected["confidence"], abs=1e-4)


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    """Folder with the models of pixels and words, unpacked."""
    with tarfile.open(OLD / "pixels.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.mark.parametrize("name", ON_CLIP)
def test_model_loads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(OLD)  # the backbone is named by a path relative to it
    check(xmodal.load_encoder(name), name)


def test_portable_model_loads(export_extra: None) -> None:
    check(xmodal.load_encoder(OLD / "portable"), "portable")


def test_model_of_pixels_and_words_loads(pixels: Path) -> None:
    check(xmodal.load_encoder(pixels / "model"), "pixels/model")


def test_portable_model_of_pixels_and_words_loads(export_extra: None, pixels: Path) -> None:
    check(xmodal.load_encoder(pixels / "portable"), "pixels/portable")


@pytest.mark.slow
def test_model_can_be_exported(
    export_extra: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    xmodal_cli: Callable[..., Any],
) -> None:
    monkeypatch.chdir(OLD)
    export = ("export", "--model", "models/sigah", "--onnx", tmp_path / "new")
    assert xmodal_cli(*export).status == 0
    check(xmodal.load_encoder(tmp_path / "new"), "models/sigah")


def test_compressed_codes_load() -> None:
    from xmodal.training.compress import read_codes

    expected = EXPECTED["compressed"]
    compressor = xmodal.Compressor.load(OLD / "compressed")
    assert compressor.fingerprint == expected["fingerprint"]
    assert read_codes(OLD / "compressed").to_hex() == expected["codes"]
    bits = compressor.encode(np.array(expected["vectors"], np.float32)).to_bits()
    recorded = BinaryCodes.from_hex(expected["codes of vectors"]).to_bits()
    assert (bits == recorded).mean() >= 0.99


def test_local_index_loads(tmp_path: Path) -> None:
    shutil.copytree(OLD / "index", tmp_path / "index")
    expected = EXPECTED["index"]
    queries = BinaryCodes.from_hex(expected["queries"])
    index = xmodal.open_index(str(tmp_path / "index"), bits=32)
    assert len(index) == expected["documents"]
    assert index.fingerprint == expected["encoder"]
    fields = {}
    for search in expected["searches"]:
        options = {name: value for name, value in search.items() if name != "found"}
        hits = index.search(queries, **options)
        assert [[[hit.id, hit.distance] for hit in row] for row in hits] == search["found"]
        fields |= {hit.id: hit.fields for row in hits for hit in row}
    assert fields == expected["fields"]
    index.delete(["doc-00"])
    index.close()
    assert len(xmodal.open_index(str(tmp_path / "index"))) == expected["documents"] - 1


def test_feature_cache_of_format_1_is_kept_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(OLD)
    shutil.copytree(OLD / "cache", tmp_path / "cache")
    (old,) = (tmp_path / "cache").iterdir()

    def rows(file: Path) -> int:
        database = sqlite3.connect(file)
        try:
            return int(database.execute("SELECT count(*) FROM features").fetchone()[0])
        finally:
            database.close()

    encoder, texts = xmodal.load_encoder("models/schgan"), EXPECTED["texts"]
    before = rows(old)
    codes = encoder.encode_texts(texts, cache=tmp_path / "cache")
    (new,) = {*(tmp_path / "cache").glob("*.sqlite")} - {old}
    assert rows(old) == before and rows(new) == len(texts)
    recorded = BinaryCodes.from_hex(EXPECTED["encoders"]["models/schgan"]["text"])
    assert (codes.to_bits() == recorded.to_bits()).mean() >= 0.99


def test_stopped_run_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xmodal.config import Options
    from xmodal.data.synthetic import write_synthetic_data

    monkeypatch.chdir(tmp_path)
    shutil.copytree(OLD / "clip", "clip")
    shutil.copytree(OLD / "stopped", "stopped")
    data = xmodal.read(write_synthetic_data(Path("work") / "world", 60))
    options = Options(bits=32, image_backbone="clip", text_backbone="clip")
    settings = {"epochs": 2, "hidden": 8, "batch": 16}
    with pytest.raises(ConfigError) as refused:  # the settings of this version differ
        xmodal.train(data, "stopped", options, settings)
    assert "--restart" in str(refused.value) and "\n" not in str(refused.value)


def test_config_is_a_valid_settings_file(
    tmp_path: Path, photos_folder: Path, xmodal_cli: Callable[..., Any]
) -> None:
    command = ("train", photos_folder, "--out", tmp_path / "new", "--bits", 32, "--no-report")
    backbones = ("--image-backbone", OLD / "clip", "--text-backbone", OLD / "clip")
    settings = ("--settings", OLD / "models" / "schgan" / "config.json", "--set", "epochs=1")
    assert xmodal_cli(*command, *backbones, *settings).status == 0
    assert xmodal.load_encoder(tmp_path / "new").about["settings"]["hidden"] == 8
