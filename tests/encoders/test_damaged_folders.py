"""Folders of trained encoders: changed files raise ModelError; files are UTF-8 in any locale."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from xmodal.encoders.folder import TORCH_ENCODER, read_config
from xmodal.encoders.load import load_encoder
from xmodal.encoders.torch_encoder import TrainedEncoder
from xmodal.errors import ModelError


def damages(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield descriptions and configs in which one key is missing or has another value."""
    for key in ("format", "fingerprint", "towers", "backbones", "confidence"):
        yield f"without {key}", {k: v for k, v in config.items() if k != key}
        for value in (None, [], "x", {}, -1):
            yield f"{key} is {value!r}", config | {key: value}
    for key in ("towers", "backbones", "confidence"):
        for inner in config[key]:
            yield f"{key} without {inner}", config | {key: _without(config[key], inner)}
            for value in (None, [], "x", -1):
                yield f"{inner} is {value!r}", config | {key: config[key] | {inner: value}}


def _without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in mapping.items() if k != key}


def test_changed_config_raises_or_gives_the_same_codes(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "m")
    config = _without(
        json.loads((model / "config.json").read_text()), "sha256"
    )  # as in earlier versions
    raised = []
    for what, damaged in damages(config):
        (tmp_path / "m/config.json").write_text(json.dumps(damaged))
        try:
            loaded = load_encoder(tmp_path / "m")
        except ModelError as error:
            assert "\n" not in str(error), what
            raised.append(what)
        else:  # a value that does not decide a code, such as the path of a backbone
            assert loaded.fingerprint == config["fingerprint"], what
            found = loaded.confidence.hits_confidence("vectors", [0.5], 9, distances=[1])
            assert found[0] is None or 0 <= found[0] <= 1, what
    expected = {"without towers", "without fingerprint", "bits is 'x'", "min_confidence is None"}
    assert expected < set(raised)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\0", '{"train": 5}'])
@pytest.mark.parametrize("name", ["config.json", "split.json"])
def test_json_file_with_other_content_raises(
    model: Path, tmp_path: Path, name: str, content: str
) -> None:
    shutil.copytree(model, tmp_path / "m")
    (tmp_path / "m" / name).write_text(content)
    with pytest.raises(ModelError, match="is damaged"):
        load_encoder(tmp_path / "m")


def test_changed_config_with_its_digest_raises(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    for what, damaged in damages(config):
        (tmp_path / "config.json").write_text(json.dumps(damaged))
        with pytest.raises(ModelError, match=r"config\.json|format"):
            read_config(tmp_path, TORCH_ENCODER)
            pytest.fail(what)


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "flipped": _flipped,
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "missing": Path.unlink,
    "folder": _folder,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["config.json", "split.json", "weights.safetensors"])
def test_damaged_file_of_a_trained_encoder_is_named(
    model: Path, tmp_path: Path, name: str, damage: str
) -> None:
    copied = Path(shutil.copytree(model, tmp_path / "m"))
    DAMAGES[damage](copied / name)
    with pytest.raises(ModelError, match=re.escape(name)) as raised:
        load_encoder(copied)
    assert "\n" not in str(raised.value) and "train" in str(raised.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_of_a_portable_encoder_is_named(
    clip_path: Path, tmp_path: Path, damage: str
) -> None:
    whole = clip_path / "x.onnx"
    for name in sorted(path.name for path in whole.iterdir() if path.name != "README.md"):
        copied = Path(shutil.copytree(whole, tmp_path / name))
        DAMAGES[damage](copied / name)
        with pytest.raises(ModelError, match=re.escape(name)) as raised:
            encoder = load_encoder(copied)
            encoder.encode_images([Image.new("RGB", (40, 40), "red")])
            encoder.encode_texts(["a red star"])
        assert "\n" not in str(raised.value) and "xmodal export" in str(raised.value)


@pytest.mark.parametrize("name", ["config.json", "split.json", "weights.safetensors"])
def test_file_of_another_encoder_of_the_same_shape_is_named(
    model: Path, tmp_path: Path, name: str
) -> None:
    other = load_encoder(model)
    assert isinstance(other, TrainedEncoder)
    other.split = {role: [*ids, "x"] for role, ids in other.split.items()}
    with torch.no_grad():
        next(other.towers.parameters()).add_(0.1)
    del other.fingerprint
    other.save(tmp_path / "other")
    copied = Path(shutil.copytree(model, tmp_path / "m"))
    shutil.copy(tmp_path / "other" / name, copied / name)
    with pytest.raises(ModelError, match=r"weights\.safetensors|split\.json"):
        load_encoder(copied)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
@pytest.mark.parametrize("name", ["config.json", "split.json", "weights.safetensors"])
def test_missing_permission_is_not_called_damage(model: Path, tmp_path: Path, name: str) -> None:
    copied = Path(shutil.copytree(model, tmp_path / "m"))
    (copied / name).chmod(0)
    with pytest.raises(PermissionError):
        load_encoder(copied)


def test_files_are_written_in_utf8_under_any_locale(model: Path, tmp_path: Path) -> None:
    program = f"""
import locale
from xmodal.encoders.load import load_encoder
encoder = load_encoder({str(model)!r})
encoder.split = {{"train": ["\\u00e9", "\\u6f22"]}}
encoder.save({str(tmp_path)!r})
print(locale.getencoding())
"""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | plain, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "utf" not in ran.stdout.lower()
    assert load_encoder(tmp_path).split == {"train": ["é", "漢"]}
