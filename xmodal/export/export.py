"""Export of a trained encoder: two ONNX graphs, compared with torch, and a model card.

All files are written into a temporary folder beside the target, ``config.json`` last, and that
folder is then renamed: an export that was stopped leaves no folder that could be loaded.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from xmodal.data.dataset import Dataset, Problems, Progress
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.folder import (
    CONFIG,
    FILES,
    SPLIT,
    file_record,
    read_config,
    write_config,
    write_json,
)
from xmodal.encoders.onnx_encoder import FORMAT, KIND, PortableEncoder, SideConfig
from xmodal.encoders.torch_encoder import TrainedEncoder
from xmodal.errors import ConfigError, DataError, ModelError
from xmodal.export.model_card import model_card
from xmodal.export.onnx_graph import write_graph
from xmodal.export.parity import Codes, Sample, encode, held_out, parity, quality, rendered
from xmodal.export.quantization import quantize, stamp_fingerprint
from xmodal.modality import MODALITIES, Modality

MIN_EQUAL_BITS = 0.999
"""Share of code bits in which torch and an ONNX graph in float32 must agree."""
DEFAULT_ITEMS = 500
CARD, REPORT = "README.md", "report.json"
TEMPORARY_FILES = {CARD, CONFIG, f"{CONFIG}.new", SPLIT, f"{SPLIT}.new", "tokenizer.json"}.union(
    *({f"{side}.onnx", f"{side}.onnx.data", f"{side}.float.onnx"} for side in MODALITIES)
)
"""Files that a stopped export can leave in its temporary folder."""
PACKAGES = ("xmodal", "torch", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Check:
    """Sample for the comparison with torch: at most ``items`` of ``data``.

    Without ``data``, pictures and captions are rendered.
    """

    data: Dataset | None = None
    items: int = DEFAULT_ITEMS


def export(
    model: str | Path,
    out: str | Path,
    *,
    int8: bool = False,
    check: Check | None = None,
    image_backbone: str | None = None,
    text_backbone: str | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> PortableEncoder:
    """Write the trained encoder in ``model`` as a portable one into the folder ``out``.

    ``about["export"]`` of the result holds the comparison of its codes with those of torch.

    Raises ModelError if under 99.9 % of the float32 bits are equal, or if a backbone cannot be
    written as a graph; ConfigError if ``out`` exists, if ``model`` is portable, or if its precision
    is not float32; DataError if there are no items to compare.
    """
    folder, check = Path(out), check or Check()
    if check.items < 1:
        raise ConfigError(f"items is {check.items}, expected at least 1")
    if read_config(Path(model)).get("kind") == KIND:
        raise ConfigError(f"{model} is portable already: export the encoder that it was made of")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already: name a new folder, or remove it")
    trained = TrainedEncoder.load(model, image_backbone=image_backbone, text_backbone=text_backbone)
    if trained.precision != "float32":
        raise ConfigError(
            f"{model} computes in {trained.precision}, an exported model in float32, with other "
            "codes: train again with --precision float32"
        )
    with _temporary_sibling(folder) as new, tempfile.TemporaryDirectory() as rendering:
        sample = (
            rendered(Path(rendering), check.items)
            if check.data is None
            else held_out(check.data, trained, check.items)
        )
        say(f"writing both sides into {folder}")
        sides: dict[Modality, SideConfig] = {
            side: write_graph(trained, side, new) for side in MODALITIES
        }
        write_json(new / SPLIT, {role: list(ids) for role, ids in trained.split.items()})
        config = _config(trained, sides, new) | {"report": _report(Path(model))}
        say(f"comparing with torch: {sample.about}")
        config = _compared(config, trained, sample, new, int8, progress)
        (new / CARD).write_text(model_card(folder.name, config), encoding="utf-8")
        write_config(new, config)
    return PortableEncoder.load(folder)


@contextmanager
def _temporary_sibling(folder: Path) -> Iterator[Path]:
    """An empty folder beside ``folder``, renamed to it unless the block raises."""
    whole = folder.absolute()
    new = whole.with_name(f"{whole.name}.new")
    left = {path.name for path in new.iterdir()} if new.is_dir() else set()
    if not left <= TEMPORARY_FILES:
        raise ConfigError(
            f"{new} is in the way, with {min(left - TEMPORARY_FILES)} in it: name another --onnx"
        )
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        if folder.is_dir():
            folder.rmdir()  # it is empty
        os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _compared(
    config: dict[str, Any],
    trained: TrainedEncoder,
    sample: Sample,
    folder: Path,
    int8: bool,
    progress: Progress | None,
) -> dict[str, Any]:
    """The config with the results of the comparison; with ``int8`` the graphs are quantized too.

    Raises ModelError if the float32 graphs differ from torch in too many bits.
    """
    problems = Problems()

    def codes(encoder: Encoder, problems: Problems) -> Codes:
        return encode(encoder, sample, problems, progress)

    by_torch = codes(trained, problems)
    by_onnx = codes(PortableEncoder(folder, config), Problems())  # the problems are the same
    found = parity(by_onnx, by_torch)
    _check_parity(found, sample)
    equal = {"torch float32": found}
    computed = {"torch float32": by_torch, "onnx float32": by_onnx}
    if int8:
        config = _to_int8(config, folder)
        small = codes(PortableEncoder(folder, config), Problems())
        equal = {name: parity(small, other) for name, other in computed.items()}
        equal["onnx float32 with torch float32"] = found
        computed["onnx int8"] = small
    measured = {name: quality(one, sample) for name, one in computed.items()}
    return config | {
        "export": {
            "checked on": sample.about,
            "agreement": equal,
            "mAP": {name: figures for name, figures in measured.items() if figures},
            "problems": problems.count_by_kind(),
            "versions": {name: version(name) for name in PACKAGES}
            | {"python": platform.python_version(), "machine": platform.machine()},
        }
    }


def _check_parity(found: dict[str, dict[str, float]], sample: Sample) -> None:
    """Raise ModelError or DataError unless enough bits of both sides are equal."""
    for side in MODALITIES:
        if side not in found:
            raise DataError(f"no {side} among {sample.about} can be used: check with others")
        if found[side]["bits"] < MIN_EQUAL_BITS:
            raise ModelError(
                f"the exported {side} side has {found[side]['bits']:.2%} of its bits in common "
                f"with torch, expected at least {MIN_EQUAL_BITS:.1%}: this backbone cannot be "
                "exported faithfully"
            )


def _config(
    trained: TrainedEncoder, sides: dict[Modality, SideConfig], folder: Path
) -> dict[str, Any]:
    """Content of ``config.json`` without the comparison."""
    curve = trained.confidence
    refs = {side: vars(ref) | {"spec": _short(ref.spec)} for side, ref in trained.backbones.items()}
    options = {
        name: _short(value) if name.endswith("_backbone") else value
        for name, value in trained.about.get("options", {}).items()
    }
    return {
        "kind": KIND,
        "format": FORMAT,
        "fingerprint": trained.fingerprint,
        "bits": trained.bits,
        "precision": "float32",
        "sides": {side: config.told() for side, config in sides.items()},
        "confidence": {"slope": curve.slope, "offset": curve.offset},
        "shared_space": trained.shared_space,
        "backbones": refs,
        FILES: _files(folder),
        **trained.about,
        "options": options,
    }


def _to_int8(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Quantize both graphs; the config gets a new fingerprint, because codes change."""
    sides = {side: SideConfig.read(config["sides"][side]) for side in MODALITIES}
    small = {side: quantize(one, folder) for side, one in sides.items()}
    return config | {
        "fingerprint": stamp_fingerprint([*small.values()], folder, config["fingerprint"]),
        "made of": config["fingerprint"],
        "precision": "int8",
        "sides": {side: one.told() for side, one in small.items()},
        FILES: _files(folder),
    }


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file on which codes depend."""
    paths = sorted(path for path in folder.iterdir() if path.name != SPLIT)
    return {path.name: file_record(path) for path in paths}


def _short(spec: str) -> str:
    """A backbone's name, or the last two parts of its path: an export contains no local folders."""
    return "/".join(Path(spec).parts[-2:])


def _report(model: Path) -> dict[str, Any] | None:
    """Content of ``report.json`` that ``xmodal train`` wrote, or None."""
    try:
        found = json.loads((model / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
