"""Training from data to a saved encoder: features, split, method, calibration, figures, folder.

``METHODS`` maps the name of a method to its module, which has ``Config`` and ``train``.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from xmodal.codes import check_bits
from xmodal.config import Options, configure, current_names
from xmodal.data.dataset import Dataset, Progress
from xmodal.data.split import Split
from xmodal.data.split import split as split_pairs
from xmodal.encoders.calibration import Confidence, fit, sample_distances
from xmodal.encoders.folder import CHECKPOINT, TORCH_ENCODER, prepare_folder
from xmodal.encoders.torch_encoder import BackboneRef, TrainedEncoder, as_tensor
from xmodal.encoders.towers import Towers
from xmodal.errors import ConfigError, DataError
from xmodal.features.backbones import load_image_backbone, load_text_backbone
from xmodal.features.extract import Array, pair_features, source_offsets
from xmodal.modality import MODALITIES, Modality
from xmodal.training.methods.dshgan import train as dshgan
from xmodal.training.methods.multiadversarial import train as multiadversarial
from xmodal.training.methods.schgan import train as schgan
from xmodal.training.methods.schgan_paper import train as schgan_paper
from xmodal.training.methods.sigah import train as sigah
from xmodal.training.methods.ssah import train as ssah
from xmodal.training.pairs import Pairs, match_matrix
from xmodal.training.precision import equal_bits
from xmodal.training.run import EpochShown, Run, TrainingData

METHODS: dict[str, ModuleType] = {
    "schgan": schgan,
    "schgan-paper": schgan_paper,
    "dshgan": dshgan,
    "multiadversarial": multiadversarial,
    "sigah": sigah,
    "ssah": ssah,
}


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

    ``settings`` change fields of the method's Config. A stopped run in ``out`` is continued; the
    encoder of a finished run with the same data and settings is loaded, another one is only
    replaced with ``restart``. Pictures and texts that cannot be used are added to
    ``data.problems``. ``cache``: folder of cached features. ``progress``: progress bars of the
    feature extraction; ``show``: callback after each epoch.

    Raises DataError for data without usable pairs, ConfigError for options, settings and folders,
    CodeError for bits, ModelError for backbones.
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
            "needs captions beside the pictures"
            + "".join(f"; {x}" for x in data.problems.summary_lines())
        )
    if folder is not None:
        if prepare_folder(folder, TORCH_ENCODER, restart):
            return _load_finished(folder, pairs, options, config)

    precision = options.precision
    image_backbone = load_image_backbone(options.image_backbone, precision=precision)
    text_backbone = load_text_backbone(options.text_backbone, precision=precision)
    usable, features = pair_features(
        image_backbone, text_backbone, pairs, cache=cache, progress=progress
    )
    split = split_pairs(
        usable, validation=options.validation, query=options.query, seed=options.split_seed
    )
    training = _training_data(usable, features, split, options, image_backbone.raw)
    identity = _identity(pairs, asdict(options), asdict(config))
    run = Run(
        training,
        seed=options.seed,
        folder=folder,
        identity=identity,
        patience=options.patience,
        show=show,
    )
    towers: Towers = method.train(training, config, run)
    about = _about(data, split, options, config, run, training)
    about["figures"] |= equal_bits(towers, usable, features, options, cache)
    encoder = TrainedEncoder(
        towers,
        {
            "image": BackboneRef(options.image_backbone, image_backbone.fingerprint),
            "text": BackboneRef(options.text_backbone, text_backbone.fingerprint),
        },
        _calibrate(towers, training.validation, options.seed),
        {"identity": identity, **about},
        split.ids(),
        precision,
    )
    if folder is not None:
        run.write_history(folder)
        encoder.save(folder)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return encoder


def _training_data(
    usable: Dataset, features: Mapping[Modality, Array], split: Split, options: Options, raw: bool
) -> TrainingData:
    """Tensors of the training and validation parts; ``options.label_share`` of labels is kept."""
    row = {id_: place for place, id_ in enumerate(usable.ids)}
    first = {m: source_offsets(usable, m)[:-1] for m in MODALITIES}

    def tensors(part: Dataset) -> Pairs:
        labels, labelled = part.with_label_share(options.label_share, options.seed).labels(
            usable.classes
        )
        rows = [row[id_] for id_ in part.ids]
        return Pairs(
            as_tensor(features["image"][first["image"][rows]]),
            as_tensor(features["text"][first["text"][rows]]),
            torch.from_numpy(labels.astype(np.float32)),
            torch.from_numpy(labelled),
        )

    return TrainingData(tensors(split.train), tensors(split.validation), options.bits, raw)


def _calibrate(towers: Towers, pairs: Pairs, seed: int) -> Confidence:
    """Fit the confidence curve to validation pairs; without pairs the curve is flat."""
    if not len(pairs):
        return Confidence(0.0, 0.0, towers.bits)
    match = match_matrix(pairs.labels, pairs.labelled).numpy()
    image, text = towers.codes("image", pairs.image), towers.codes("text", pairs.text)
    return fit(*sample_distances(image, text, match, np.random.default_rng(seed)), towers.bits)


def _about(
    data: Dataset, split: Split, options: Options, config: Any, run: Run, training: TrainingData
) -> dict[str, Any]:
    """Return the part of ``config.json`` that describes the training."""
    return {
        "options": asdict(options),
        "settings": asdict(config),
        "data": {
            "name": data.name,
            "label_column": data.label_column,
            **{role: len(ids) for role, ids in split.ids().items()},
            "labelled": int(training.train.labelled.sum()),
            "problems": data.problems.count_by_kind(),
        },
        "figures": _figures(run),
        "versions": {
            "xmodal": version("xmodal"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _figures(run: Run) -> dict[str, float]:
    """Return the validation figures of the best epoch, and its number."""
    best = next((row for row in run.history if row["epoch"] == run.best_epoch), {})
    named = {f"validation {name}": best[name] for name in ("mAP", "pair mAP") if name in best}
    return {name: round(value, 4) for name, value in named.items()} | {"epoch": run.best_epoch}


# ---- the folder ------------------------------------------------------------------------------


def _identity(data: Dataset, options: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return a hash of the pairs, the options and all settings, in their stored order."""
    hashed = hashlib.blake2b(digest_size=8)
    # Runs of earlier versions had no precision, which is float32 today.
    chosen = {k: v for k, v in options.items() if (k, v) != ("precision", "float32")}
    hashed.update(json.dumps([chosen, settings]).encode())
    for item in data:
        image, text = _name_of(item.images), _name_of(item.captions)
        hashed.update(f"{item.id}\0{image}\0{text}\0{item.labels}\0".encode())
    return hashed.hexdigest()


def _name_of(sources: Sequence[object]) -> object:
    """Return one source, or the list of several ones, for the identity."""
    return sources[0] if len(sources) == 1 else [str(source) for source in sources]


def _load_finished(folder: Path, pairs: Dataset, options: Options, config: Any) -> TrainedEncoder:
    """Load the encoder of the same run; raise ConfigError if the folder has another one."""
    encoder = TrainedEncoder.load(folder)
    if not _same_run(encoder.about, pairs, options, config):
        raise ConfigError(
            f"{folder} holds an encoder that was trained with other data or settings: name another "
            "--out, or replace it with --restart"
        )
    return encoder


def _same_run(about: Mapping[str, Any], pairs: Dataset, options: Options, config: Any) -> bool:
    """Whether a stored encoder was trained on these pairs with these options and settings.

    Stored settings of an earlier version are compared under their current names.
    """
    stored, settings = about.get("options"), about.get("settings")
    if not isinstance(stored, dict) or not isinstance(settings, dict):
        return False
    if {"precision": "float32"} | stored != asdict(options):
        return False
    try:
        same = current_names(type(config), settings) == asdict(config)
    except ConfigError:
        return False
    return same and about.get("identity") == _identity(pairs, stored, settings)
