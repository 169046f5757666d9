"""``fine_tune``: training, saved weights, stopped runs, export, and the option of the command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from tests.support.exported import equal_bits
from tests.support.tiny_models import save_clip
from xmodal.checksums import file_record
from xmodal.config import Options, configure
from xmodal.data.dataset import Dataset
from xmodal.encoders.folder import write_config
from xmodal.encoders.load import load_encoder
from xmodal.errors import ConfigError, ModelError
from xmodal.modality import MODALITIES
from xmodal.training.methods.contrastive.config import Config
from xmodal.training.methods.contrastive.tuning_config import parse_blocks
from xmodal.training.train import train

SETTINGS: dict[str, Any] = {
    **{"epochs": 4, "hidden": 16, "batch": 16, "fine_tune": "text:1,image:1"},
    **{"fine_tune_rate": 1e-2, "negatives": "policy", "warmup": 1},
}
FROZEN = {name: value for name, value in SETTINGS.items() if not name.startswith("fine_tune")}


@pytest.fixture(scope="module")
def clip(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny CLIP with random weights."""
    texts = [str(item.captions[0]) for item in dataset.items[:60]]
    return str(save_clip(tmp_path_factory.mktemp("clip"), texts))


@pytest.fixture(scope="module")
def few(dataset: Dataset) -> Dataset:
    """60 items of the synthetic data, without labels and without a given split."""
    items = (replace(item, split=None, labels=frozenset()) for item in dataset.items[:60])
    return replace(dataset, items=tuple(items), label_column=None)


@pytest.fixture(scope="module")
def options(clip: str) -> Options:
    return Options("contrastive", 16, clip, clip)


@pytest.fixture(scope="module")
def tuned(
    few: Dataset, options: Options, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a fine-tuned encoder; read-only."""
    folder = tmp_path_factory.mktemp("tuned") / "my.model"
    train(few, folder, options, SETTINGS, cache=cache)
    return folder


def sources(few: Dataset) -> dict[Any, list[Any]]:
    return {
        "image": [item.images[0] for item in few],
        "text": [str(item.captions[0]) for item in few],
    }


def test_the_folder_has_the_changed_weights_and_other_codes_than_a_frozen_one(
    few: Dataset, options: Options, tuned: Path, tmp_path: Path, cache: Path
) -> None:
    frozen = train(few, tmp_path / "frozen.model", options, FROZEN, cache=cache)
    before = {m: frozen.encode(m, sources(few)[m]).codes.packed for m in MODALITIES}
    names = load_file(tuned / "backbones.safetensors")
    assert {name.partition(".")[0] for name in names} == set(MODALITIES)
    encoder = load_encoder(tuned, engine="torch")
    assert encoder.fingerprint not in (frozen.fingerprint, "") and not encoder.shared_space
    for modality, given in sources(few).items():
        uncached = encoder.encode(modality, given).codes.packed
        assert np.array_equal(encoder.encode(modality, given, cache=cache).codes.packed, uncached)
        assert not np.array_equal(uncached, before[modality])
        assert np.array_equal(frozen.encode(modality, given).codes.packed, before[modality])
    assert not (tmp_path / "frozen.model/backbones.safetensors").exists()
    history = (tuned / "history.jsonl").read_text().splitlines()
    assert len(history) == 4 and "triplet" in json.loads(history[-1])


def test_a_finished_run_is_loaded_and_a_frozen_one_is_another(
    few: Dataset, options: Options, tuned: Path
) -> None:
    again = train(few, tuned, options, SETTINGS, show=never)
    assert again.fingerprint == load_encoder(tuned).fingerprint
    with pytest.raises(ConfigError, match=r"fine_tune 'text:1,image:1', not 'none'"):
        train(few, tuned, options, FROZEN, show=never)


def test_the_rate_of_blocks_makes_another_run_only_where_blocks_are_trained(
    few: Dataset, options: Options, tuned: Path, tmp_path: Path, cache: Path
) -> None:
    rate = {"fine_tune_rate": 1e-4}
    frozen = train(few, tmp_path / "my.model", options, FROZEN | rate, cache=cache)
    again = train(few, tmp_path / "my.model", options, FROZEN, show=never)
    assert again.fingerprint == frozen.fingerprint
    with pytest.raises(ConfigError, match=r"fine_tune_rate 0\.01, not 0\.0001"):
        train(few, tuned, options, SETTINGS | rate, show=never)


def never(*figures: Any) -> None:
    raise AssertionError(f"trained again: {figures}")


@pytest.mark.parametrize("last", [1, 2, 4])
def test_a_stopped_run_continues_with_the_same_bits(
    few: Dataset, options: Options, tuned: Path, tmp_path: Path, cache: Path, last: int
) -> None:
    def stop(epoch: int, *_: Any) -> None:
        if epoch == last:
            raise KeyboardInterrupt

    folder = tmp_path / "stopped.model"
    with pytest.raises(KeyboardInterrupt):
        train(few, folder, options, SETTINGS, cache=cache, show=stop)
    train(few, folder, options, SETTINGS, cache=cache)
    for name in ("weights.safetensors", "backbones.safetensors"):
        assert (folder / name).read_bytes() == (tuned / name).read_bytes()


def test_changed_weights_that_do_not_belong_to_the_encoder_are_refused(
    tuned: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "my.model"
    shutil.copytree(tuned, folder)
    file = folder / "backbones.safetensors"
    save_file({name: 2 * one for name, one in load_file(file).items()}, file)
    with pytest.raises(ModelError, match=r"damaged .*backbones\.safetensors.*train again"):
        load_encoder(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("sha256")
    config["files"][file.name] = file_record(file)
    write_config(folder, config)
    with pytest.raises(ModelError, match=r"damaged .*other weights of the image backbone"):
        load_encoder(folder)
    file.unlink()
    with pytest.raises(ModelError, match=r"damaged .*backbones\.safetensors"):
        load_encoder(folder)


@pytest.mark.slow
def test_a_portable_encoder_has_the_same_codes(
    few: Dataset, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xmodal.export import Check, export

    portable = export(tuned, tmp_path / "my.onnx", check=Check(items=20))
    encoder = load_encoder(tuned, engine="torch")
    assert portable.fingerprint == encoder.fingerprint
    for modality, given in sources(few).items():
        assert equal_bits(portable, encoder, modality, given) > 0.99


@pytest.mark.parametrize(
    ("options_", "settings", "error", "message"),
    [
        ({"precision": "bfloat16"}, {}, ConfigError, "precision is bfloat16, expected float32"),
        ({"text_backbone": "words"}, {}, ModelError, "'words' has no weights"),
        ({"method": "schgan"}, {}, ConfigError, "needs the method contrastive, found schgan"),
        ({}, {"fine_tune": "text:9"}, ModelError, "has 2 blocks, found 9"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused(
    few: Dataset,
    options: Options,
    options_: dict[str, Any],
    settings: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    given = {"fine_tune": "text:1,image:1"} | settings
    with pytest.raises(error, match=message):
        train(few, None, replace(options, **options_), given)


def test_settings_of_an_earlier_version_are_accepted_with_their_defaults_alone() -> None:
    stored = {"fine_tune": "text:1", "fine_tune_epochs": 12, "fine_tune_batch": 256}
    assert configure(Config, stored).fine_tune == "text:1"
    with pytest.raises(ConfigError, match="fine_tune_epochs was removed: fine_tune_epochs=20"):
        configure(Config, {"fine_tune_epochs": 20})


@pytest.mark.parametrize(
    "text", ["", "text", "text:0", "text:-1", "text:x", "audio:1", "text:1,text:2", "text:²", "1"]
)
def test_other_forms_of_the_setting_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected numbers of blocks .* such as text:2,image:1"):
        parse_blocks(text)
    assert parse_blocks("image:1, text:12") == {"image": 1, "text": 12}


def test_the_command_trains_indexes_searches_and_evaluates(
    xmodal_cli: Callable[..., Any], photos_folder: Path, clip: str, tmp_path: Path
) -> None:
    model, index = tmp_path / "my.model", tmp_path / "my.index"
    backbones = ("--image-backbone", clip, "--text-backbone", clip, "--bits", 16)
    tuning = ("--fine-tune", "text:1", "--set", "epochs=2")
    trained = xmodal_cli("train", photos_folder, "--out", model, *backbones, *tuning)
    assert trained.status == 0 and "epoch   2/2" in trained.err, trained.err
    assert xmodal_cli("index", photos_folder, "--model", model, "--index", index).status == 0
    found = xmodal_cli("search", "a red circle", "--model", model, "--index", index)
    assert found.status == 0 and found.out
    assert xmodal_cli("evaluate", photos_folder, "--model", model).status == 0
    wrong = xmodal_cli("train", photos_folder, "--out", tmp_path / "x", "--fine-tune", "text")
    assert wrong.status == 2 and "fine_tune is 'text', expected numbers of blocks" in wrong.err
