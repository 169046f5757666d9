"""Models, a local index, codes, a cache and a stopped run that older code wrote still load."""

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
    """The recorded fingerprint, codes and confidence; a bit may differ between processors."""
    if hasattr(encoder, "float32"):
        encoder.float32 = True  # as the codes were recorded
    wanted = EXPECTED["encoders"][name]
    assert encoder.fingerprint == wanted["fingerprint"]
    assert encoder.bits == wanted["bits"]
    pictures = encoder.encode_images([str(OLD / one) for one in EXPECTED["pictures"]])
    found = np.concatenate([pictures.to_bits(), encoder.encode_texts(EXPECTED["texts"]).to_bits()])
    recorded = BinaryCodes.from_hex([*wanted["image"], *wanted["text"]]).to_bits()
    assert (found == recorded).mean() >= 0.99
    shown = [encoder.confidence(distance) for distance in (0, 8, 16)]
    assert shown == pytest.approx(wanted["confidence"], abs=1e-5)


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    """The folder of the models that learned from pixels, unpacked."""
    with tarfile.open(OLD / "pixels.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.mark.parametrize("name", ON_CLIP)
def test_a_model_loads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(OLD)  # the backbone is named by a path relative to it
    check(xmodal.load_encoder(name), name)


def test_a_portable_model_loads(export_extra: None) -> None:
    check(xmodal.load_encoder(OLD / "portable"), "portable")


def test_a_model_of_pixels_and_words_loads(pixels: Path) -> None:
    check(xmodal.load_encoder(pixels / "model"), "pixels/model")


def test_a_portable_model_of_pixels_and_words_loads(export_extra: None, pixels: Path) -> None:
    check(xmodal.load_encoder(pixels / "portable"), "pixels/portable")


@pytest.mark.slow
def test_a_model_can_be_exported(
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

    wanted = EXPECTED["compressed"]
    compressor = xmodal.Compressor.load(OLD / "compressed")
    assert compressor.fingerprint == wanted["fingerprint"]
    assert read_codes(OLD / "compressed").to_hex() == wanted["codes"]
    codes = compressor.encode(np.array(wanted["vectors"], np.float32))
    assert codes.to_hex() == wanted["codes of vectors"]


def test_a_local_index_loads(tmp_path: Path) -> None:
    shutil.copytree(OLD / "index", tmp_path / "index")
    wanted = EXPECTED["index"]
    queries = BinaryCodes.from_hex(wanted["queries"])
    index = xmodal.open_index(str(tmp_path / "index"), bits=32)
    assert len(index) == wanted["documents"]
    assert index.fingerprint == wanted["encoder"]
    fields = {}
    for one in wanted["searches"]:
        options = {name: value for name, value in one.items() if name != "found"}
        hits = index.search(queries, **options)
        assert [[[hit.id, hit.distance] for hit in row] for row in hits] == one["found"]
        fields |= {hit.id: hit.fields for row in hits for hit in row}
    assert fields == wanted["fields"]
    index.delete(["doc-00"])
    index.close()
    assert len(xmodal.open_index(str(tmp_path / "index"))) == wanted["documents"] - 1


def test_a_feature_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(OLD)
    shutil.copytree(OLD / "cache", tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()

    def rows() -> int:
        database = sqlite3.connect(file)
        try:
            return int(database.execute("SELECT count(*) FROM features").fetchone()[0])
        finally:
            database.close()

    encoder, texts = xmodal.load_encoder("models/schgan"), EXPECTED["texts"]
    before = rows()
    codes = encoder.encode_texts(texts, cache=tmp_path / "cache")
    assert rows() == before == len(texts)
    recorded = BinaryCodes.from_hex(EXPECTED["encoders"]["models/schgan"]["text"])
    assert (codes.to_bits() == recorded.to_bits()).mean() >= 0.99


def test_a_stopped_run_goes_on_or_is_refused_in_one_line(
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
    try:
        xmodal.train(data, "stopped", options, settings)
    except ConfigError as error:  # a version with other settings
        assert "--restart" in str(error) and "\n" not in str(error)
        return
    history = (tmp_path / "stopped" / "history.jsonl").read_text().splitlines()
    assert len(history) == 2
    recorded = EXPECTED["stopped"]["pair mAP"]
    assert json.loads(history[0])["pair mAP"] == pytest.approx(recorded, abs=1e-6)


def test_a_config_serves_as_a_file_of_settings(
    tmp_path: Path, world: Path, xmodal_cli: Callable[..., Any]
) -> None:
    command = ("train", world, "--out", tmp_path / "new", "--bits", 32, "--no-report")
    backbones = ("--image-backbone", OLD / "clip", "--text-backbone", OLD / "clip")
    told = ("--settings", OLD / "models" / "schgan" / "config.json", "--set", "epochs=1")
    assert xmodal_cli(*command, *backbones, *told).status == 0
    assert xmodal.load_encoder(tmp_path / "new").about["settings"]["hidden"] == 8
