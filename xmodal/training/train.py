"""From data to an encoder: features, split, a method, calibration, figures, a folder.

``METHODS`` is a plain dict; a method is a module with ``Config`` and ``train``.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from xmodal.backbones import load_image_backbone, load_text_backbone
from xmodal.codes import check_bits
from xmodal.confidence import Confidence, fit, sample_distances
from xmodal.config import Options, configure
from xmodal.data import Dataset, Split
from xmodal.data import split as divide
from xmodal.encoder import CHECKPOINT, CONFIG, HISTORY, SPLIT
from xmodal.errors import ConfigError, DataError
from xmodal.features import Array, Progress, pair_features
from xmodal.index import Modality
from xmodal.towers import Towers
from xmodal.trained import WEIGHTS, BackboneRef, TrainedEncoder, as_tensor
from xmodal.training.methods.dshgan import train as dshgan
from xmodal.training.methods.multiadversarial import train as multiadversarial
from xmodal.training.methods.schgan import train as schgan
from xmodal.training.methods.schgan_paper import train as schgan_paper
from xmodal.training.methods.sigah import train as sigah
from xmodal.training.methods.ssah import train as ssah
from xmodal.training.pairs import Pairs, matches
from xmodal.training.run import SHEET, EpochShown, Run, TrainingData

METHODS: dict[str, ModuleType] = {
    "schgan": schgan,
    "schgan-paper": schgan_paper,
    "dshgan": dshgan,
    "multiadversarial": multiadversarial,
    "sigah": sigah,
    "ssah": ssah,
}
OURS = {CONFIG, WEIGHTS, SPLIT, HISTORY, CHECKPOINT, "report.json"}
"""What may be in an encoder's folder, beside sheets of pictures; a restart removes nothing else."""


def train(
    data: Dataset,
    out: str | Path | None = None,
    options: Options | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    cache: Path | None = None,
    restart: bool = False,
    progress: Progress | None = None,
    show: EpochShown | None = None,
) -> TrainedEncoder:
    """Train an encoder on the pairs of ``data`` and save it in the folder ``out``.

    ``settings`` change fields of the method's Config. A run that was stopped goes on where it was;
    a finished one with the same data and settings is only loaded. Pictures and texts that cannot
    be used are noted in ``data.problems``. Raises DataError, ConfigError, ModelError.
    """
    options = options or Options()
    check_bits(options.bits)
    if options.seed < 0:
        raise ConfigError(f"seed is {options.seed}, expected 0 or more")
    if options.method not in METHODS:
        known = ", ".join(METHODS)
        raise ConfigError(f"there is no method {options.method!r}, expected one of {known}")
    method = METHODS[options.method]
    config = configure(method.Config, settings or {})
    folder = Path(out) if out is not None else None
    pairs = data.pairs()
    if not len(pairs):
        raise DataError(
            f"{data.name} has no pair of a picture and a text among {len(data)} items: training "
            "needs captions beside the pictures" + "".join(f"; {x}" for x in data.problems.lines())
        )
    identity = _identity(pairs, options, config)
    if folder is not None:
        finished = _prepare(folder, identity, restart)
        if finished is not None:
            return finished

    image_backbone = load_image_backbone(options.image_backbone)
    text_backbone = load_text_backbone(options.text_backbone)
    usable, features = pair_features(
        image_backbone, text_backbone, pairs, cache=cache, progress=progress
    )
    split = divide(
        usable, validation=options.validation, query=options.query, seed=options.split_seed
    )
    training = _training_data(usable, features, split, options, image_backbone.raw)
    run = Run(
        training,
        seed=options.seed,
        folder=folder,
        identity=identity,
        patience=options.patience,
        show=show,
    )
    towers: Towers = method.train(training, config, run)
    encoder = TrainedEncoder(
        towers,
        {
            "image": BackboneRef(options.image_backbone, image_backbone.fingerprint),
            "text": BackboneRef(options.text_backbone, text_backbone.fingerprint),
        },
        _calibrate(towers, training.validation, options.seed),
        {"identity": identity, **_about(data, split, options, config, run, training)},
        split.ids(),
    )
    if folder is not None:
        run.write_history(folder)
        encoder.save(folder)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return encoder


def _training_data(
    usable: Dataset, features: Mapping[Modality, Array], split: Split, options: Options, raw: bool
) -> TrainingData:
    """Tensors of the train and validation parts, labels hidden as ``options`` say."""
    row = {id_: place for place, id_ in enumerate(usable.ids)}

    def tensors(part: Dataset) -> Pairs:
        labels, known = part.with_label_share(options.label_share, options.seed).labels(
            usable.classes
        )
        rows = [row[id_] for id_ in part.ids]
        return Pairs(
            as_tensor(features["image"][rows]),
            as_tensor(features["text"][rows]),
            torch.from_numpy(labels.astype(np.float32)),
            torch.from_numpy(known),
        )

    return TrainingData(tensors(split.train), tensors(split.validation), options.bits, raw)


def _calibrate(towers: Towers, pairs: Pairs, seed: int) -> Confidence:
    """The confidence curve of validation pairs; without any, a flat one."""
    if not len(pairs):
        return Confidence(0.0, 0.0, towers.bits)
    match = matches(pairs.labels, pairs.labelled).numpy()
    image, text = towers.codes("image", pairs.image), towers.codes("text", pairs.text)
    return fit(*sample_distances(image, text, match, np.random.default_rng(seed)), towers.bits)


def _about(
    data: Dataset, split: Split, options: Options, config: object, run: Run, training: TrainingData
) -> dict[str, Any]:
    """What an encoder's folder says about how it was made."""
    return {
        "options": asdict(options),
        "settings": asdict(config),  # type: ignore[call-overload]
        "data": {
            "name": data.name,
            **{role: len(ids) for role, ids in split.ids().items()},
            "labelled": int(training.train.labelled.sum()),
            "problems": data.problems.counts(),
        },
        "figures": _figures(run),
        "versions": {
            "xmodal": version("xmodal"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _figures(run: Run) -> dict[str, float]:
    """What validation said of the epoch that was kept."""
    kept = next((row for row in run.history if row["epoch"] == run.best_epoch), {})
    named = {f"validation {name}": kept[name] for name in ("mAP", "pair mAP") if name in kept}
    return {name: round(value, 4) for name, value in named.items()} | {"epoch": run.best_epoch}


def _identity(data: Dataset, options: Options, config: object) -> str:
    """A hash of all that decides the outcome of a run."""
    hashed = hashlib.blake2b(digest_size=8)
    hashed.update(json.dumps([asdict(options), asdict(config)]).encode())  # type: ignore[call-overload]
    for item in data:
        hashed.update(f"{item.id}\0{item.image}\0{item.text}\0{item.labels}\0".encode())
    return hashed.hexdigest()


def _prepare(folder: Path, identity: str, restart: bool) -> TrainedEncoder | None:
    """Make the folder ready; return the encoder if this very run was finished there before."""
    if folder.is_file():
        raise ConfigError(f"{folder} is a file, expected a folder to put the encoder in")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    others = {name for name in there if not name.endswith(".new")}
    if restart:
        others = {name for name in others - OURS if not SHEET.fullmatch(name)}
    if others and (restart or not there & {CONFIG, CHECKPOINT}):
        raise ConfigError(
            f"{folder} is a folder with other things in it ({min(others)}): name a new one"
        )
    if restart:
        for name in there:
            (folder / name).unlink()
    if (folder / CONFIG).is_file():
        encoder = TrainedEncoder.load(folder)
        if encoder.about.get("identity") == identity:
            return encoder
        raise ConfigError(
            f"{folder} holds an encoder that was trained with other data or settings: name another "
            "--out, or replace it with --restart"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return None
