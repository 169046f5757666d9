"""Training from data to a saved encoder: features, split, method, calibration, figures, folder.

``METHODS`` maps the name of a method to its module, which has ``Config`` and ``train``.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from xmodal import __version__
from xmodal.codes import check_bits
from xmodal.config import FEATURES, Options, configure
from xmodal.data.dataset import Dataset
from xmodal.data.groups import with_groups
from xmodal.data.picture_files import picture_hashes
from xmodal.data.progress import Progress
from xmodal.data.situation import labels_hint, recognise
from xmodal.data.split import ROLES, Split
from xmodal.data.split import split as split_pairs
from xmodal.data.unpaired import unpaired_items
from xmodal.encoders.calibration import Confidence, known_words
from xmodal.encoders.changed_weights import Changed
from xmodal.encoders.folder import TORCH_ENCODER, RunFolder, open_run
from xmodal.encoders.torch_encoder import (
    PREFIXES,
    BackboneRef,
    RowTensor,
    TrainedEncoder,
    as_rows,
)
from xmodal.encoders.towers import Towers
from xmodal.errors import ConfigError, DataError
from xmodal.evaluation.explain import labels_notice
from xmodal.evaluation.report import MIN_MEASURED
from xmodal.features.backbones import (
    ImageBackbone,
    TextBackbone,
    load_image_backbone,
    load_text_backbone,
)
from xmodal.features.from_file import FileSource, check_backbone
from xmodal.features.rows import FeatureRows
from xmodal.features.states import StateSource
from xmodal.features.units import BackboneSource, FeatureSource, FeatureTable
from xmodal.features.unpaired import unpaired_features
from xmodal.modality import Modality
from xmodal.training.calibrate import calibrate, collection_of
from xmodal.training.checkpoint import continue_or_clear
from xmodal.training.fine_tune import Tuned, check_method, state_source
from xmodal.training.identity import find_difference, pictures_record, run_identity
from xmodal.training.methods.contrastive import train as contrastive
from xmodal.training.methods.contrastive.train import CaptionRun
from xmodal.training.methods.contrastive.trainer import CaptionData
from xmodal.training.methods.dshgan import train as dshgan
from xmodal.training.methods.multiadversarial import train as multiadversarial
from xmodal.training.methods.schgan import train as schgan
from xmodal.training.methods.schgan_paper import train as schgan_paper
from xmodal.training.methods.sigah import train as sigah
from xmodal.training.methods.ssah import train as ssah
from xmodal.training.pairs import StoredPairs
from xmodal.training.precision import equal_bits
from xmodal.training.run import EpochShown, Run, TrainingData

log = logging.getLogger(__name__)
METHODS: dict[str, ModuleType] = {
    "contrastive": contrastive,
    "schgan": schgan,
    "schgan-paper": schgan_paper,
    "dshgan": dshgan,
    "multiadversarial": multiadversarial,
    "sigah": sigah,
    "ssah": ssah,
}

SHOWN_FIGURES = ("mAP", "pair mAP", "R@1", "R@10")
"""Validation figures that config.json has."""


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
    features: FileSource | None = None,
) -> TrainedEncoder:
    """Train an encoder on the pairs of ``data`` and save it in the folder ``out``.

    ``settings`` change fields of the method's Config. A stopped run in ``out`` is continued; the
    encoder of a finished run with the same data and settings is loaded, another one is only
    replaced with ``restart``, when the new one is complete. Pictures and texts that cannot be used
    are added to ``data.problems``. ``cache``: folder of cached features. ``progress``: progress
    bars of the feature extraction; ``show``: callback after each epoch. ``features``: the features
    of ``data`` from a file, see :func:`~xmodal.features.from_file.with_features`; backbones of
    ``options`` other than "features" must have made them, and encode later pictures and texts.

    Raises DataError for data without usable pairs, ConfigError for options, settings and folders,
    CodeError for bits, ModelError for backbones, InUse if another process writes ``out``.

    >>> from xmodal.config import Options
    >>> options = Options(bits=16, image_backbone="small-cnn", text_backbone="words")
    >>> encoder = xmodal.train(xmodal.read("photos"), options=options, settings={"epochs": 1})
    >>> encoder.bits
    16
    """
    options = options or Options()
    options = replace(options, method=resolve_method(options.method, data))
    check_bits(options.bits)
    if options.seed < 0:
        raise ConfigError(f"seed is {options.seed}, expected 0 or more")
    check_method(options.method, settings or {})
    config = configure(METHODS[options.method].Config, settings or {})
    folder = Path(out) if out is not None else None
    pairs = data.pairs()
    if not len(pairs):
        raise DataError(
            f"{data.name} has no pair of a picture and a text among {len(data)} items: training "
            "needs captions beside the pictures, or --no-train and a model such as CLIP"
            f"{labels_hint(data)}" + "".join(f"; {x}" for x in data.problems.summary_lines())
        )
    with open_run(folder, TORCH_ENCODER, restart) as place:
        if folder is not None and place.finished:
            used = _used(data, options, config)
            return _load_finished(folder, used, options, config, features)
        return _train(data, pairs, place, options, config, cache, progress, show, features)


def _load_finished(
    folder: Path, pairs: Dataset, options: Options, config: Any, features: FileSource | None
) -> TrainedEncoder:
    """Load the encoder of the same run; raise ConfigError if the folder has another one."""
    encoder = TrainedEncoder.load(folder)
    difference = find_difference(encoder.about, pairs, options, config, features)
    if difference is not None:
        raise ConfigError(
            f"{folder} holds an encoder that was trained with {difference}: name another "
            "--out, or replace it with --restart"
        )
    return encoder


def _train(
    data: Dataset,
    pairs: Dataset,
    place: RunFolder,
    options: Options,
    config: Any,
    cache: Path | None,
    progress: Progress | None,
    show: EpochShown | None,
    features: FileSource | None,
) -> TrainedEncoder:
    """Train by the method of ``options``, and save the encoder in the folder of the run."""
    method = METHODS[options.method]
    source, refs = _feature_source(pairs, options, features, cache, progress)
    blocks = config.blocks if options.method == "contrastive" else {}
    if blocks:
        source = state_source(source, blocks, options)
    used = _used(data, options, config)
    hashes = picture_hashes(used.pictures())
    table = FeatureTable.of(with_groups(pairs, hashes), source)
    split = split_pairs(
        table.data,
        validation=options.validation,
        query=options.query,
        seed=options.split_seed,
        split_map=options.split_map,
    )
    notice = labels_notice(split)
    if notice is not None:
        log.warning(notice)
    identity = run_identity(used, asdict(options), asdict(config), features)
    run = _run(method, table, split, options, source)
    if isinstance(run, CaptionRun):
        items = unpaired_items(used, hashes, options.split_map)
        run.data = replace(run.data, unpaired=unpaired_features(items, source, data.problems))
        if isinstance(source, StateSource):
            run.data = replace(run.data, sides=source.sides)
    pictures = pictures_record(used, hashes)
    run.folder, run.identity, run.show = place.work, f"{identity}-{pictures['sha256']}", show
    continue_or_clear(place, run.identity)
    towers: Towers = method.train(run.data, config, run)
    changed: Changed = {}
    if isinstance(source, StateSource):
        tuned = Tuned.of(source, refs, table)
        refs, changed, table = tuned.refs, tuned.changed, tuned.table
    about = _about(data, split, options, config, run)
    if features is None:
        about["figures"] |= equal_bits(towers, table.data, table.rows, options, cache)
    if method is contrastive and (widths := config.prefix_widths(options.bits)):
        about[PREFIXES] = {
            str(width): replace(
                _calibrate(towers.prefix(width), table, split, options), known_words=None
            ).to_config()
            for width in widths
        }
    encoder = TrainedEncoder(
        towers,
        refs,
        _calibrate(towers, table, split, options),
        {"identity": identity, "pictures": pictures, **about},
        split.ids(),
        options.precision,
        options.trust_remote_code,
        changed,
    )
    if place.work is not None:
        run.write_history(place.work)
        if isinstance(run, CaptionRun):
            run.write_left_out(place.work)
        encoder.save(place.work)
        place.complete()
    return encoder


def _used(data: Dataset, options: Options, config: Any) -> Dataset:
    """Return the items that the training reads: pairs, and items without a pair if it uses them."""
    pairs = data.pairs()
    if options.method != "contrastive" or config.unpaired == "none" or config.blocks:
        return pairs
    found = unpaired_items(data, None, options.split_map)
    uses = bool(found) if config.unpaired != "auto" else found.enough(len(pairs))
    return data if uses else pairs


def _feature_source(
    pairs: Dataset,
    options: Options,
    file: FileSource | None,
    cache: Path | None,
    progress: Progress | None,
) -> tuple[FeatureSource, dict[Modality, BackboneRef]]:
    """Return the source of the features of ``pairs``, and what made them, for the encoder.

    Backbones are compared with the features of a file. Raises ConfigError if a backbone is
    "features" and there is no file.
    """
    specs: dict[Modality, str] = {"image": options.image_backbone, "text": options.text_backbone}
    loaded: dict[Modality, ImageBackbone | TextBackbone] = {}
    refs: dict[Modality, BackboneRef] = {}
    for modality, spec in specs.items():
        if spec == FEATURES:
            if file is None:
                raise ConfigError(f"the {modality} backbone is {FEATURES}: add --features FILE")
            refs[modality] = BackboneRef(spec, file.fingerprint(modality))
            continue
        load = load_image_backbone if modality == "image" else load_text_backbone
        loaded[modality] = load(
            spec, precision=options.precision, trust_remote_code=options.trust_remote_code
        )
        refs[modality] = BackboneRef(spec, loaded[modality].fingerprint)
        if file is not None:
            check_backbone(file, pairs, modality, loaded[modality], cache)
    if file is not None:
        return file, refs
    return BackboneSource(loaded["image"], loaded["text"], cache, progress), refs  # type: ignore[arg-type]


def resolve_method(method: str, data: Dataset) -> str:
    """Return ``method``, and for "auto" the method that fits the data.

    Data with labels is trained with schgan: by labels it finds more than the contrastive method
    with label terms. Raises ConfigError for an unknown method.
    """
    if method == "auto":
        return "schgan" if data.classes else "contrastive"
    if method not in METHODS:
        known = ", ".join(("auto", *METHODS))
        raise ConfigError(f"there is no method {method!r}, expected one of {known}")
    return method


def _run(
    method: ModuleType, table: FeatureTable, split: Split, options: Options, source: FeatureSource
) -> Run:
    """Return the run of a method with its training and validation data."""
    settings: dict[str, Any] = {"seed": options.seed, "patience": options.patience}
    if method is contrastive:
        classes = table.data.classes
        train, validation = (
            table.units(part.with_label_share(options.label_share, options.seed), classes)
            for part in (split.train, split.validation)
        )
        return CaptionRun(CaptionData(train, validation, options.bits, source.raw), **settings)
    train_pairs, validation_pairs = (
        _pairs(table, part, options) for part in (split.train, split.validation)
    )
    return Run(TrainingData(train_pairs, validation_pairs, options.bits, source.raw), **settings)


def _pairs(table: FeatureTable, part: Dataset, options: Options) -> StoredPairs:
    """Return a pair for each caption, read by rows; ``options.label_share`` of labels is kept."""
    image, text, item = table.pair_rows(part)
    labels, labelled = part.with_label_share(options.label_share, options.seed).labels(
        table.data.classes
    )
    return StoredPairs(
        RowTensor(table.rows["image"].take(image)),
        RowTensor(table.rows["text"].take(text)),
        RowTensor(FeatureRows(labels, item)),
        torch.from_numpy(labelled[item]),
    )


def _calibrate(towers: Towers, table: FeatureTable, split: Split, options: Options) -> Confidence:
    """Fit the confidence to the validation groups, with training groups as further documents.

    A method other than "contrastive" learns labels, so that a hit with a label of the query is
    right.
    """
    validation, train = (
        part.with_label_share(options.label_share, options.seed)
        for part in (split.validation, split.train)
    )
    by_labels = options.method != "contrastive" and bool(validation.classes)
    groups = collection_of(
        table,
        validation,
        train,
        lambda modality, features: towers.outputs(modality, as_rows(features)),
        by_labels=by_labels,
    )
    confidence = calibrate(groups, options.seed)
    if options.text_backbone != "words":
        return confidence
    captions = (
        str(text) for part in (train, validation) for item in part for text in item.captions
    )
    return replace(confidence, known_words=known_words(captions))


def _about(data: Dataset, split: Split, options: Options, config: Any, run: Run) -> dict[str, Any]:
    """Return the part of ``config.json`` that describes the training."""
    return {
        "options": asdict(options),
        "settings": asdict(config),
        "data": {
            "name": data.name,
            "situation": recognise(data).line,
            "label_column": data.label_column,
            **{role: len(getattr(split, role)) for role in ROLES},
            "labelled": int(run.data.train.labelled.sum()),
            **(_pair_counts(run) if isinstance(run, CaptionRun) else {}),
            "problems": data.problems.count_by_kind(),
        },
        "figures": _figures(run),
        "versions": {
            "xmodal": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _pair_counts(run: CaptionRun) -> dict[str, int]:
    """Return the numbers of pictures and texts without a pair, and of pairs that were judged."""
    counts = {}
    if (unpaired := run.data.unpaired) is not None:
        counts = {"unpaired pictures": len(unpaired.image), "unpaired texts": len(unpaired.text)}
    if run.sifted is not None:
        left_out = int((~run.sifted.kept).sum())
        counts |= {"judged pairs": len(run.sifted.belief), "left out pairs": left_out}
    return counts


def _figures(run: Run) -> dict[str, float]:
    """Return the validation figures of the best epoch, and its number.

    Figures of fewer than MIN_MEASURED validation units are left out.
    """
    if len(run.data.validation) < MIN_MEASURED:
        return {"epoch": run.best_epoch}
    best = next((row for row in run.history if row["epoch"] == run.best_epoch), {})
    named = {f"validation {name}": best[name] for name in SHOWN_FIGURES if name in best}
    return {name: round(value, 4) for name, value in named.items()} | {"epoch": run.best_epoch}
