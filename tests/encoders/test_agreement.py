"""Codes of other threads, instructions and runtimes: the share of equal bits is printed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.aligned_clip import write_shapes
from support.tiny_models import save_clip

from xmodal.config import Options
from xmodal.data.readers.read import read
from xmodal.encoders.agreement import MIN_EQUAL, compare_codes
from xmodal.errors import ConfigError, DataError
from xmodal.training.rotation import fit_rotation_encoder

ENVIRONMENTS = {
    "two threads": {"OMP_NUM_THREADS": "2"},
    "no vector instructions": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
}


@pytest.fixture(scope="module")
def clip_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pictures with captions, and an encoder that is fitted to them."""
    folder = tmp_path_factory.mktemp("agreement")
    write_shapes(folder / "photos", 80, captions=True)
    clip = str(save_clip(folder / "clip"))
    options = Options(bits=64, image_backbone=clip, text_backbone=clip)
    fit_rotation_encoder(read(folder / "photos"), folder / "m", options, cache=None)
    return folder / "photos", folder / "m"


def encoded(photos: Path, model: Path, out: Path, environment: dict[str, str], *more: Any) -> str:
    """The lines of ``xmodal encode`` in a process of its own, without cached features."""
    command = (sys.executable, "-c", "from xmodal.cli import main; main()")
    cache = {"XMODAL_CACHE": str(out.with_suffix(".cache"))}
    done = subprocess.run(
        [*command, "encode", photos, "--model", model, "--out", out, *more],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | cache | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_codes_do_not_depend_on_threads_and_instructions(
    clip_model: tuple[Path, Path], tmp_path: Path
) -> None:
    reference = tmp_path / "reference.npz"
    lines = encoded(*clip_model, reference, {}, "--margins")
    assert "of 5,120 bits" in lines and "within 1e-4" in lines
    for number, (name, environment) in enumerate(ENVIRONMENTS.items()):
        out = tmp_path / f"{number}.npz"
        lines = encoded(*clip_model, out, environment, "--compare", reference)
        print(name, *lines.splitlines()[1:], sep="\n  ")
        for agreement in compare_codes(dict(np.load(out)), reference).values():
            assert agreement.bits >= MIN_EQUAL and agreement.n == 80


@pytest.mark.slow
def test_codes_do_not_depend_on_the_runtime(
    export_extra: None, clip_model: tuple[Path, Path], tmp_path: Path
) -> None:
    from xmodal.export import Check, export

    photos, model = clip_model
    export(model, tmp_path / "portable", check=Check(items=20))
    reference = tmp_path / "torch.npz"
    encoded(photos, model, reference, {})
    out = tmp_path / "onnx.npz"
    print(encoded(photos, tmp_path / "portable", out, {}, "--compare", reference))
    for agreement in compare_codes(dict(np.load(out)), reference).values():
        assert agreement.bits >= MIN_EQUAL


def test_other_files_are_refused(tmp_path: Path, xmodal_cli: Callable[..., Any]) -> None:
    ids = {
        f"{m}_{name}": np.array([value])
        for m in ("image", "text")
        for name, value in (("ids", "a"), ("positions", 0))
    }
    codes = {f"{m}_codes": np.zeros((1, 1), np.uint8) for m in ("image", "text")}
    arrays = {"bits": np.array(8)} | ids | codes
    path = tmp_path / "codes.npz"
    np.savez(path, **arrays)
    assert compare_codes(arrays, path)["image"].bits == 1
    changed = arrays | {"text_codes": np.full((1, 1), 3, np.uint8)}
    assert compare_codes(changed, path)["text"].bits == 6 / 8
    with pytest.raises(ConfigError, match="of 8 bits, expected 16"):
        compare_codes(arrays | {"bits": np.array(16)}, path)
    others = {"image_ids": np.array(["b"]), "text_ids": np.array(["b"])}
    with pytest.raises(DataError, match="no code of the same data"):
        compare_codes(arrays | others, path)
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match="no file of codes"):
        compare_codes(arrays, path)


def test_damaged_file_of_codes_is_named_or_gives_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {"bits": np.array(16)}
    for modality in ("image", "text"):
        arrays[f"{modality}_ids"] = np.array([f"item {number}" for number in range(30)])
        arrays[f"{modality}_positions"] = np.zeros(30, np.int64)
        arrays[f"{modality}_codes"] = rng.integers(0, 256, (30, 2), dtype=np.uint8)
    file = tmp_path / "codes.npz"
    np.savez(file, **arrays)
    whole, expected = file.read_bytes(), compare_codes(arrays, file)
    damaged = [whole[:length] for length in (0, 3, len(whole) // 2, len(whole) - 1)]
    for at in range(0, len(whole), 11):
        damaged.append(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
    refused = 0
    for content in damaged:
        file.write_bytes(content)
        try:
            assert compare_codes(arrays, file) == expected
        except (DataError, ConfigError) as error:
            assert str(file) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > len(damaged) / 2
