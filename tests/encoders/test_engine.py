"""Engine: the portable encoder beside a trained one, GPU detection, searches without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from xmodal.encoders import engine
from xmodal.encoders.engine import (
    has_gpu,
    portable_folder,
    portable_obstacle,
    read_obstacle,
    use_portable,
    write_obstacle,
)
from xmodal.encoders.folder import (
    CHECKPOINT,
    CONFIG,
    NOT_PORTABLE,
    PORTABLE,
    TORCH_ENCODER,
    WEIGHTS,
    open_run,
    write_config,
)
from xmodal.encoders.load import load_encoder
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.encoders.torch_encoder import TrainedEncoder
from xmodal.errors import ConfigError, ModelError

Run = Callable[..., Any]
SEARCH = """
import sys
from xmodal.cli import main
try:
    main()
finally:
    print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.fixture
def both(model: Path, portable_path: Path, tmp_path: Path) -> Path:
    """The folder of a trained encoder with its portable one."""
    folder = Path(shutil.copytree(model, tmp_path / "both.model"))
    shutil.copytree(portable_path, folder / PORTABLE)
    return folder


@pytest.fixture(autouse=True)
def defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU; commands write portable encoders."""
    monkeypatch.setenv("XMODAL_DEVICE", "cpu")
    monkeypatch.delenv("XMODAL_NO_PORTABLE")


def edited(folder: Path, **changes: object) -> None:
    """Change values of a config.json and write its digest again."""
    write_config(folder, json.loads((folder / CONFIG).read_text()) | changes)


# ---- choice ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, PortableEncoder),
        ({"engine": "onnx"}, PortableEncoder),
        ({"engine": "torch"}, TrainedEncoder),
        ({"text_backbone": "words"}, TrainedEncoder),
    ],
)
def test_engine_decides_the_encoder(
    both: Path, options: dict[str, Any], expected: type[object]
) -> None:
    assert isinstance(load_encoder(both, **options), expected)


def test_gpu_encodes_data_with_torch_and_queries_with_onnx(
    both: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "has_gpu", lambda: True)
    assert isinstance(load_encoder(both), TrainedEncoder)
    assert isinstance(load_encoder(both, for_queries=True), PortableEncoder)


def test_model_without_portable_encoder_is_loaded_by_torch(model: Path) -> None:
    assert isinstance(load_encoder(model), TrainedEncoder)
    with pytest.raises(ConfigError, match=r"xmodal export"):
        load_encoder(model, engine="onnx")


def test_portable_folder_refuses_torch(portable_path: Path) -> None:
    with pytest.raises(ConfigError, match="is portable"):
        load_encoder(portable_path, engine="torch")


def test_export_of_another_encoder_is_not_used(both: Path) -> None:
    edited(both / PORTABLE, fingerprint="0" * 16)
    assert portable_folder(both) is None
    assert isinstance(load_encoder(both), TrainedEncoder)


def test_missing_onnxruntime_means_torch(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert not use_portable(for_queries=True)
    assert isinstance(load_encoder(both), TrainedEncoder)


@pytest.mark.skipif(sys.platform != "linux", reason="the files of drivers are those of Linux")
@pytest.mark.parametrize(
    ("variables", "driver", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"CUDA_VISIBLE_DEVICES": ""}, True, False),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, True, False),
        ({"CUDA_VISIBLE_DEVICES": "0"}, True, True),
        ({"XMODAL_DEVICE": "cpu"}, True, False),
        ({"XMODAL_DEVICE": "cuda:1"}, False, True),
    ],
)
def test_gpu_is_found_by_driver_and_environment(
    variables: dict[str, str],
    driver: bool,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "XMODAL_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(engine, "DRIVERS", (str(tmp_path if driver else tmp_path / "absent"),))
    assert has_gpu() is expected


def test_commands_import_no_torch(both: Path, index_path: Path, photos_folder: Path) -> None:
    picture = next(photos_folder.glob("*.png"))
    for command in (
        ("search", "red", "--index", index_path),
        ("search", "--image", picture, "--index", index_path),
        ("encode", "--text", "a red circle"),
        ("index", photos_folder, "--index", both.parent / "new.index"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", SEARCH, *map(str, command), "--model", both],
            capture_output=True,
            text=True,
            env=os.environ | {"XMODAL_DEVICE": "cpu"},
        )
        assert done.returncode == 0, done.stderr
        imported = set(done.stderr.splitlines()[-1].split())
        assert "onnxruntime" in imported
        assert not {"torch", "transformers", "onnx"} & imported, command


# ---- writing ---------------------------------------------------------------------------------


def test_index_writes_the_portable_encoder_once(
    xmodal_cli: Run, export_extra: None, model: Path, photos_folder: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(model, tmp_path / "x.model"))
    command = ("index", photos_folder, "--model", copied, "--index", tmp_path / "i")
    done = xmodal_cli(*command, "--engine", "torch")
    assert done.status == 0 and not (copied / PORTABLE).exists()
    killed = copied / f".{PORTABLE}.new"  # what a killed export leaves
    killed.mkdir()
    (killed / "image.onnx").write_bytes(b"unfinished")
    assert isinstance(load_encoder(copied), TrainedEncoder)
    done = xmodal_cli(*command)
    assert done.status == 0, done.err
    assert not killed.exists()
    written = portable_folder(copied)
    assert written is not None
    before = (written / CONFIG).stat().st_mtime_ns
    assert xmodal_cli(*command).status == 0
    assert (written / CONFIG).stat().st_mtime_ns == before
    (written / CONFIG).write_text("{")  # damaged
    done = xmodal_cli("export", "--model", copied, "--items", 20, "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["encoder"] == str(written)
    assert isinstance(load_encoder(copied), PortableEncoder)


def test_repeated_training_completes_the_portable_encoder(
    xmodal_cli: Run, export_extra: None, model: Path, photos_folder: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(model, tmp_path / "x.model"))
    (copied / PORTABLE).mkdir()
    (copied / PORTABLE / CONFIG).write_text("{")  # damaged
    command = ("train", photos_folder, "--out", copied, "--label-column", "labels", "--bits", 32)
    command += ("--image-backbone", "small-cnn", "--text-backbone", "words", "--no-report")
    command += ("--settings", model / CONFIG)
    done = xmodal_cli(*command, "--no-portable")
    assert done.status == 0, done.err
    assert (copied / PORTABLE / CONFIG).read_text() == "{"
    done = xmodal_cli(*command)
    assert done.status == 0, done.err
    assert portable_folder(copied) is not None


def test_impossible_export_prints_one_line_and_is_not_repeated(
    xmodal_cli: Run,
    export_extra: None,
    model: Path,
    photos_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = import_module("xmodal.export.export")
    calls = []

    def fails(*arguments: object) -> None:
        calls.append(arguments)
        raise ModelError("no way\nto export")

    monkeypatch.setattr(module, "write_graph", fails)
    copied = Path(shutil.copytree(model, tmp_path / "x.model"))
    command = ("index", photos_folder, "--model", copied, "--index", tmp_path / "i")
    for _ in range(2):
        done = xmodal_cli(*command)
        assert done.status == 0
        assert [line for line in done.err.splitlines() if "no way to export" in line]
    assert len(calls) == 1
    assert read_obstacle(copied) == "no way to export"
    assert {path.name for path in copied.iterdir()} & {PORTABLE, f"{PORTABLE}.new"} == set()


def test_damaged_record_of_an_impossible_export_is_ignored(tmp_path: Path) -> None:
    write_obstacle(tmp_path, "no way\nto export")
    assert read_obstacle(tmp_path) == "no way to export"
    record = tmp_path / NOT_PORTABLE
    whole = record.read_bytes()
    damages = [whole[:n] for n in (0, 5, len(whole) - 1)] + [b"N" + whole[1:], whole + b"x"]
    for content in damages:
        record.write_bytes(content)
        assert read_obstacle(tmp_path) is None, content
    record.write_text("written by an earlier version\n")
    assert read_obstacle(tmp_path) == "written by an earlier version"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"precision": "bfloat16"}, "bfloat16"),
        ({"backbones": {"image": {"spec": "features"}, "text": {"spec": "words"}}}, "features"),
    ],
)
def test_obstacles_of_an_export(
    model: Path, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    copied = Path(shutil.copytree(model, tmp_path / "x.model"))
    edited(copied, **changes)
    assert reason in str(portable_obstacle(copied))


def test_missing_packages_are_an_obstacle(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert "[export]'" in str(portable_obstacle(model))


# ---- folder ----------------------------------------------------------------------------------


def test_restart_removes_the_portable_encoder_at_the_end(both: Path) -> None:
    (both / f"{PORTABLE}.new").mkdir()  # of a killed export
    with open_run(both, TORCH_ENCODER, restart=True) as run:
        assert run.work is not None and (both / PORTABLE / CONFIG).is_file()
        (run.work / CONFIG).write_text("{}")
        run.complete()
    assert [path.name for path in both.iterdir()] == [CONFIG]


def test_restart_keeps_other_files_in_the_portable_folder(both: Path) -> None:
    (both / PORTABLE / "notes.txt").write_text("mine")
    with (
        pytest.raises(ConfigError, match=r"portable/notes\.txt"),
        open_run(both, TORCH_ENCODER, restart=True),
    ):
        pass
    assert (both / WEIGHTS).is_file() and (both / PORTABLE / "notes.txt").is_file()


def test_stopped_training_with_a_portable_folder_continues(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_text("")
    (tmp_path / f"{PORTABLE}.new").mkdir()
    with open_run(tmp_path, TORCH_ENCODER, restart=False) as run:
        assert not run.finished and (tmp_path / CHECKPOINT).exists()
