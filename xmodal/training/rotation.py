"""Codes without training: a rotation of the features of an aligned pair of backbones.

Backbones of one model, such as CLIP, map pictures and texts into one space, so their features need
no training to be compared. They are turned into balanced codes in four steps:

1. The mean of each modality is subtracted: features of pictures and of texts lie in two separate
   cones (Liang et al., "Mind the gap", NeurIPS 2022), whose distance would decide most bits.
2. Principal components of both modalities together reduce the features to the number of bits; with
   more bits than dimensions they are expanded by a random orthogonal matrix.
3. ITQ rotates the result (Gong, Lazebnik, CVPR 2011), so that signs lose little of the cosine.
4. The threshold of each bit is the median of its modality, so that half of the codes have the bit.

The result is one affine map per modality, a :class:`~xmodal.encoders.towers.LinearTower`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from xmodal import __version__, linear_models
from xmodal.codes import check_bits
from xmodal.config import Options
from xmodal.data.dataset import Dataset
from xmodal.data.names import sample_by_hash
from xmodal.data.problems import Problems
from xmodal.encoders.folder import TORCH_ENCODER, RunFolder, open_run
from xmodal.encoders.torch_encoder import BackboneRef, TrainedEncoder, as_rows, as_tensor
from xmodal.encoders.towers import Towers
from xmodal.errors import ConfigError, DataError
from xmodal.evaluation.code_health import code_health
from xmodal.evaluation.metrics import mean, neighbour_recall
from xmodal.features.backbones import (
    ImageBackbone,
    TextBackbone,
    load_image_backbone,
    load_text_backbone,
)
from xmodal.features.extract import Array, text_features
from xmodal.features.rows import FeatureRows
from xmodal.features.units import BackboneSource, FeatureTable
from xmodal.modality import MODALITIES, Modality
from xmodal.training.calibrate import calibrate, collection_of
from xmodal.training.simulated_search import Collection

METHOD = "rotation"
"""Name of the method in the options of an encoder."""
NEIGHBOURS = 10
HELD_OUT, MAX_QUERIES = 0.1, 1000
"""Share and maximum number of the pictures that are held out as queries."""
MIN_PICTURES = 50
"""Pictures below which none is held out, and nothing is measured."""
MAX_FIT_ROWS, ITQ_ROUNDS = 5_000, 20
"""Features of each modality that the rotation is fitted to, and rounds of ITQ."""
MIN_MEDIAN_ROWS = 100
"""Features of a modality below which the threshold of a bit is its mean, not its median."""

SUBJECTS = (
    *("dog", "cat", "horse", "bird", "cow", "fish", "tree", "flower", "forest", "mountain"),
    *("beach", "river", "city", "street", "house", "church", "bridge", "room", "kitchen", "garden"),
    *("car", "bus", "train", "boat", "bicycle", "aeroplane", "man", "woman", "child", "crowd"),
    *("face", "hand", "shirt", "dress", "shoe", "hat", "bag", "watch", "chair", "table"),
    *("bed", "lamp", "cup", "plate", "cake", "pizza", "fruit", "bottle", "book", "phone"),
    *("computer", "machine", "tool", "toy", "ball", "guitar", "painting", "poster", "map", "logo"),
)
TEMPLATES = ("{}", "a photo of a {}", "a red {} on a white background", "two people and a {}")
"""Texts from which the mean of text features is estimated where the data has no captions."""


@dataclass(frozen=True)
class Rotated:
    """The encoder of :func:`fit_rotation_encoder`, and what was measured.

    ``report``: "situation" in words; "recall" of the float cosine's nearest neighbours by
    direction, "queries" and "searched" pictures, "health" of the picture codes. "recall" is empty
    if there are too few pictures.
    """

    encoder: TrainedEncoder
    report: dict[str, Any]


def load_aligned_backbones(options: Options) -> tuple[ImageBackbone, TextBackbone]:
    """Load both backbones; raise ConfigError unless their features can be compared."""
    precision, trust = options.precision, options.trust_remote_code
    image = load_image_backbone(
        options.image_backbone, precision=precision, trust_remote_code=trust
    )
    text = load_text_backbone(options.text_backbone, precision=precision, trust_remote_code=trust)
    if image.space is None or image.space != text.space:
        raise ConfigError(
            f"backbones {options.image_backbone} and {options.text_backbone} do not belong to one "
            "model, and without training both must: name one model such as "
            "openai/clip-vit-base-patch32 with --image-backbone and --text-backbone, or train: "
            "xmodal train DATA --out MODEL"
        )
    return image, text


def fit_rotation_encoder(
    data: Dataset,
    out: Path | None,
    options: Options,
    *,
    cache: Path | None = None,
    restart: bool = False,
    progress: Any = None,
) -> Rotated:
    """Fit a rotation to the pictures and captions of ``data``, and save it in the folder ``out``.

    Features come from the two backbones of ``options``, which must be aligned; pictures without
    captions are enough. A tenth of the pictures is held out and measured. An equal encoder in
    ``out`` is loaded, another one is only replaced with ``restart``.

    Raises DataError for data without pictures, ConfigError for backbones of two models and for a
    folder with another encoder, CodeError for bits, ModelError for backbones.
    """
    check_bits(options.bits)
    backbones = load_aligned_backbones(options)
    with open_run(out, TORCH_ENCODER, restart) as place:
        return _fit(data, place, options, backbones, cache, progress)


def _fit(
    data: Dataset,
    place: RunFolder,
    options: Options,
    backbones: tuple[ImageBackbone, TextBackbone],
    cache: Path | None,
    progress: Any,
) -> Rotated:
    """Fit and measure the encoder, and save it in the folder of the run."""
    features = _Features.of(data, BackboneSource(*backbones, cache, progress))
    if not len(features.image):
        raise DataError(
            f"{data.name} has no usable picture among {len(data)} items, expected pictures"
            + "".join(f"; {line}" for line in data.problems.summary_lines())
        )
    queries = features.held_out(options.split_seed)
    fitted = features.without(queries)
    texts, origin = fitted.text, f"{len(fitted.text):,} captions"
    if not len(texts):
        prompts = [form.format(subject) for form in TEMPLATES for subject in SUBJECTS]
        texts, _ = text_features(backbones[1], prompts, cache=cache, problems=Problems())
        origin = f"no captions: the mean of texts is that of {len(prompts)} general phrases"
    maps = fit_rotation(fitted.image, texts, options.bits, captions=bool(len(fitted.text)))
    towers = _towers(maps, options.bits)
    report = {
        "situation": (
            f"an aligned pair of backbones, no training: rotation fitted to "
            f"{len(fitted.image):,} pictures and {origin}"
        ),
        **_measure(towers, features, queries),
    }
    encoder = TrainedEncoder(
        towers,
        {
            "image": BackboneRef(options.image_backbone, backbones[0].fingerprint),
            "text": BackboneRef(options.text_backbone, backbones[1].fingerprint),
        },
        calibrate(_collection(towers, features, queries), options.seed),
        _about(data, options, report),
        features.split(queries),
        options.precision,
        options.trust_remote_code,
    )
    if place.work is not None and place.finished:
        if TrainedEncoder.load(place.work).fingerprint != encoder.fingerprint:
            raise ConfigError(
                f"{place.folder} holds another encoder: name another --out, or replace it with "
                "--restart"
            )
    elif place.work is not None:
        place.clear()
        encoder.save(place.work)
        place.complete()
    return Rotated(encoder, report)


def fit_rotation(
    image: Array, text: Array, bits: int, *, captions: bool = True, seed: int = 0
) -> dict[Modality, tuple[Array, Array]]:
    """Return the weight (bits, d) and bias (bits,) of each modality; bit = weight x + bias > 0.

    ``image`` (n, d), ``text`` (m, d): features in one space. ``captions``: the texts describe the
    kind of data that is searched, so that they take part in the rotation; otherwise only their
    mean is used.
    """
    rows: dict[Modality, Array] = {"image": _even(image), "text": _even(text)}
    centred = {
        m: linear_models.as_float32(x) - x.mean(axis=0, dtype=np.float32) for m, x in rows.items()
    }
    joint = centred["image"]
    if captions:  # each modality weighs half
        each = min(map(len, centred.values()))
        joint = np.concatenate([_even(centred[m], max(each, 1)) for m in MODALITIES])
    project = linear_models.pca(joint, bits)
    both = linear_models.Projections(project, project)
    rng = np.random.default_rng(seed)
    rotated = linear_models.itq(joint, joint[:0], both, rng=rng, rounds=ITQ_ROUNDS).image
    matrix, _ = linear_models.affine(rotated, joint.shape[1])
    maps: dict[Modality, tuple[Array, Array]] = {}
    for modality, values in rows.items():
        relaxed = linear_models.as_float32(values) @ matrix
        enough = len(relaxed) >= MIN_MEDIAN_ROWS and (modality == "image" or captions)
        threshold = np.median(relaxed, axis=0) if enough else relaxed.mean(axis=0)
        maps[modality] = np.ascontiguousarray(matrix.T), -threshold.astype(np.float32)
    return maps


def _even(rows: Array, limit: int = MAX_FIT_ROWS) -> Array:
    """Return at most ``limit`` rows, evenly spaced."""
    if len(rows) <= limit:
        return rows
    return rows[np.linspace(0, len(rows) - 1, limit).astype(np.int64)]


def _towers(maps: Mapping[Modality, tuple[Array, Array]], bits: int) -> Towers:
    dims = {modality: weight.shape[1] for modality, (weight, _) in maps.items()}
    towers = Towers(dims["image"], dims["text"], bits, kind="linear")
    state = {}
    for modality, (weight, bias) in maps.items():
        state[f"{modality}.head.0.weight"] = torch.from_numpy(weight)
        state[f"{modality}.head.0.bias"] = torch.from_numpy(bias)
    towers.load_state_dict(state)
    return towers


@dataclass(frozen=True)
class _Features:
    """Usable features of items. ``image_item`` (p,), ``text_item`` (c,): item of each row."""

    data: Dataset
    image: Array
    text: Array
    image_item: npt.NDArray[np.int64]
    text_item: npt.NDArray[np.int64]

    @classmethod
    def of(cls, data: Dataset, source: BackboneSource) -> _Features:
        rows, item_of = {}, {}
        for modality in MODALITIES:
            features, usable = source.features(modality, data.items, data.problems)
            counts = [len(item.sources(modality)) for item in data]
            rows[modality] = FeatureRows.of(features)[usable]
            item_of[modality] = np.repeat(np.arange(len(data)), counts)[usable]
        return cls(data, rows["image"], rows["text"], item_of["image"], item_of["text"])

    def held_out(self, seed: int) -> npt.NDArray[np.int64]:
        """Return the items with pictures that are held out, whole groups; empty if too few."""
        pictures = np.unique(self.image_item)
        if len(pictures) < MIN_PICTURES:
            return pictures[:0]
        groups = [self.data.items[row].group or self.data.items[row].id for row in pictures]
        share = min(HELD_OUT, MAX_QUERIES / len(pictures))
        chosen = set(sample_by_hash(sorted(set(groups)), share, f"rotation {seed}"))
        return pictures[[group in chosen for group in groups]]

    def without(self, items: npt.NDArray[np.int64]) -> _Features:
        """Return the features of all other items."""
        image, text = (~np.isin(rows, items) for rows in (self.image_item, self.text_item))
        return _Features(
            self.data,
            self.image[image],
            self.text[text],
            self.image_item[image],
            self.text_item[text],
        )

    def table(self) -> FeatureTable:
        """Return the items that have pictures and captions, all of them usable."""
        rows: dict[Modality, Array] = {"image": self.image, "text": self.text}
        item_of = {"image": self.image_item, "text": self.text_item}
        counts = {m: np.bincount(x, minlength=len(self.data)) for m, x in item_of.items()}
        whole = [
            all(0 < counts[m][row] == len(item.sources(m)) for m in MODALITIES)
            for row, item in enumerate(self.data)
        ]
        kept = np.flatnonzero(whole)
        return FeatureTable(
            self.data.take(kept),
            {m: FeatureRows(x).take(np.isin(item_of[m], kept)) for m, x in rows.items()},
            {m: np.concatenate([[0], np.cumsum(counts[m][kept])]) for m in MODALITIES},
        )

    def split(self, queries: npt.NDArray[np.int64]) -> dict[str, list[str]]:
        """Return the ids of the parts."""
        held = set(queries.tolist())
        ids = self.data.ids
        return {
            "train": [id_ for row, id_ in enumerate(ids) if row not in held],
            "validation": [],
            "query": [ids[row] for row in queries],
            "gallery": [],
        }


def _measure(towers: Towers, features: _Features, queries: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Recall of the nearest pictures by float cosine, for held-out pictures and their captions."""
    image, text = (np.isin(rows, queries) for rows in (features.image_item, features.text_item))
    database = features.image[~image]
    codes = towers.codes("image", as_tensor(database))
    recall = {}
    held_out: dict[Modality, Array] = {"image": features.image[image], "text": features.text[text]}
    for modality in MODALITIES:
        rows = _even(held_out[modality], MAX_QUERIES)
        if len(rows):
            nearest = linear_models.nearest(rows, database, NEIGHBOURS)
            found = neighbour_recall(
                towers.codes(modality, as_tensor(rows)),
                codes,
                nearest,
                nearest.shape[1],
            )
            recall[f"{modality}->image"] = round(mean(found), 4)
    health = {name: round(value, 4) for name, value in code_health(codes).items()}
    return {
        "recall": recall,
        "queries": int(image.sum()),
        "searched": len(database),
        "neighbours": min(NEIGHBOURS, len(database)),
        "health": health,
    }


def _collection(towers: Towers, features: _Features, queries: npt.NDArray[np.int64]) -> Collection:
    """Return the held-out and the other items with captions, for the fit of the confidence."""
    table = features.table()
    held = {features.data.items[row].id for row in queries}
    return collection_of(
        table,
        table.data.keep(lambda item: item.id in held),
        table.data.keep(lambda item: item.id not in held),
        lambda modality, rows: towers.outputs(modality, as_rows(rows)),
        by_labels=False,
    )


def _about(data: Dataset, options: Options, report: dict[str, Any]) -> dict[str, Any]:
    """Return the part of ``config.json`` that describes the fit."""
    figures = {
        f"recall@{report['neighbours']} of the float cosine, {direction}": value
        for direction, value in report["recall"].items()
    }
    return {
        "options": asdict(options),
        "settings": {},
        "situation": report["situation"],
        "data": {
            "name": data.name,
            "label_column": None,
            "problems": data.problems.count_by_kind(),
        },
        "figures": figures,
        "versions": {
            "xmodal": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
