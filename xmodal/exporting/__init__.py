"""From a trained encoder to a portable one: two ONNX graphs, checked, with a model card.

Everything is written into a folder beside the one that is wanted, ``config.json`` last, and that
folder then gets its name: a stopped export leaves nothing that could be taken for a finished one.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from xmodal.data import Dataset, Problems, Progress
from xmodal.device import precision
from xmodal.encoder import CONFIG, SPLIT, Encoder, read_config, write_json
from xmodal.errors import ConfigError, DataError, ModelError
from xmodal.exporting.agreement import Codes, Sample, agreement, encode, held_out, quality, rendered
from xmodal.exporting.card import card
from xmodal.exporting.graphs import write_side
from xmodal.exporting.quantised import mark, quantise
from xmodal.index import MODALITIES, Modality
from xmodal.portable import FORMAT, KIND, PortableEncoder, SideConfig
from xmodal.trained import TrainedEncoder

LEAST = 0.999
"""Share of bits that a graph in float32 must have in common with torch in float32."""
ITEMS = 500
CARD, REPORT = "README.md", "report.json"
OURS = {CARD, CONFIG, f"{CONFIG}.new", SPLIT, f"{SPLIT}.new", "tokenizer.json"}.union(
    *({f"{side}.onnx", f"{side}.onnx.data", f"{side}.float.onnx"} for side in MODALITIES)
)
"""What a stopped export may have left."""
PACKAGES = ("xmodal", "torch", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Check:
    """What to compare by: items of ``data``, or a rendered world; at most ``items`` of a side."""

    data: Dataset | None = None
    items: int = ITEMS


def export(
    model: str | Path,
    out: str | Path,
    *,
    int8: bool = False,
    check: Check | None = None,
    image_backbone: str | None = None,
    text_backbone: str | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda words: None,
) -> PortableEncoder:
    """Make a portable encoder in the folder ``out`` of the trained one in ``model``.

    Its ``about["export"]`` says how far its codes agree with torch's. Raises ModelError if that is
    under 99.9 % of the bits in float32, or if a backbone cannot be written as a graph; ConfigError
    if ``out`` is there already, or ``model`` is portable; DataError if there is nothing to check
    by.
    """
    folder, check = Path(out), check or Check()
    if check.items < 1:
        raise ConfigError(f"items is {check.items}, expected at least 1")
    if read_config(Path(model)).get("kind") == KIND:
        raise ConfigError(f"{model} is portable already: export the encoder that it was made of")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already: name a new folder, or remove it")
    trained = TrainedEncoder.load(model, image_backbone=image_backbone, text_backbone=text_backbone)
    exact = replace(trained, float32=True)
    with _beside(folder) as new, tempfile.TemporaryDirectory() as rendering:
        sample = (
            rendered(Path(rendering), check.items)
            if check.data is None
            else held_out(check.data, trained, check.items)
        )
        say(f"writing both sides into {folder}")
        sides: dict[Modality, SideConfig] = {
            side: write_side(exact, side, new) for side in MODALITIES
        }
        write_json(new / SPLIT, {role: list(ids) for role, ids in trained.split.items()})
        config = _config(exact, sides, new) | {"report": _report(Path(model))}
        say(f"comparing with torch: {sample.about}")
        config = _checked(config, trained, exact, sample, new, int8, progress)
        (new / CARD).write_text(card(folder.name, config), encoding="utf-8")
        write_json(new / CONFIG, config)
    return PortableEncoder.load(folder)


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder to write in, which takes the name of ``folder`` if all went well."""
    whole = folder.absolute()
    new = whole.with_name(f"{whole.name}.new")
    left = {path.name for path in new.iterdir()} if new.is_dir() else set()
    if not left <= OURS:
        raise ConfigError(
            f"{new} is in the way, with {min(left - OURS)} in it: name another --onnx"
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


def _checked(
    config: dict[str, Any],
    trained: TrainedEncoder,
    exact: TrainedEncoder,
    sample: Sample,
    folder: Path,
    int8: bool,
    progress: Progress | None,
) -> dict[str, Any]:
    """The config with what the comparison found; graphs become int8 on the way if that is asked."""
    problems = Problems()
    own = str(precision()).removeprefix("torch.")

    def codes(encoder: Encoder) -> Codes:
        return encode(encoder, sample, Problems(), progress)  # all have the same problems

    by_torch = encode(exact, sample, problems, progress)
    ours = codes(PortableEncoder(folder, config))
    agreed = {"torch float32": agreement(ours, by_torch)}
    for side in MODALITIES:
        found = agreed["torch float32"].get(side)
        if found is None:
            raise DataError(f"no {side} among {sample.about} can be used: check with others")
        if found["bits"] < LEAST:
            raise ModelError(
                f"the exported {side} side has {found['bits']:.2%} of its bits in common with "
                f"torch, expected at least {LEAST:.1%}: this backbone cannot be exported faithfully"
            )
    told = {"torch float32": by_torch, "onnx float32": ours}
    if own != "float32":
        told[f"torch {own}"] = codes(trained)
        agreed[f"torch {own}"] = agreement(ours, told[f"torch {own}"])
    if int8:
        config = _to_int8(config, folder)
        told["onnx int8"] = codes(PortableEncoder(folder, config))
        agreed = {name: agreement(told["onnx int8"], theirs) for name, theirs in told.items()}
        del agreed["onnx int8"]
        agreed["onnx float32 with torch float32"] = agreement(ours, by_torch)
    measured = {name: quality(one, sample) for name, one in told.items()}
    return config | {
        "export": {
            "checked on": sample.about,
            "agreement": agreed,
            "mAP": {name: figures for name, figures in measured.items() if figures},
            "problems": problems.counts(),
            "versions": {name: version(name) for name in PACKAGES}
            | {"python": platform.python_version(), "machine": platform.machine()},
        }
    }


def _config(
    trained: TrainedEncoder, sides: dict[Modality, SideConfig], folder: Path
) -> dict[str, Any]:
    """What ``config.json`` says before anything is measured."""
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
        "sides": {side: told.told() for side, told in sides.items()},
        "confidence": {"slope": curve.slope, "offset": curve.offset},
        "shared_space": trained.shared_space,
        "backbones": refs,
        "files": _files(folder),
        **trained.about,
        "options": options,
    }


def _to_int8(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Replace both graphs; the codes are others, and so is the fingerprint."""
    sides = {side: SideConfig.read(config["sides"][side]) for side in MODALITIES}
    small = {side: quantise(told, folder) for side, told in sides.items()}
    return config | {
        "fingerprint": mark([*small.values()], folder, config["fingerprint"]),
        "made of": config["fingerprint"],
        "precision": "int8",
        "sides": {side: told.told() for side, told in small.items()},
        "files": _files(folder),
    }


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and hash of each file that decides a code."""
    paths = sorted(path for path in folder.iterdir() if path.name != SPLIT)
    return {
        path.name: {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in paths
    }


def _short(spec: str) -> str:
    """A backbone's name, or the end of its path: a folder of this machine is nobody's business."""
    return "/".join(Path(spec).parts[-2:])


def _report(model: Path) -> dict[str, Any] | None:
    """What ``xmodal train`` measured on held-out queries, if it did."""
    try:
        found = json.loads((model / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
