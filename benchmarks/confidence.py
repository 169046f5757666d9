"""Confidence of hits: reliability at two index sizes, pictures that are not there, nonsense.

    python benchmarks/confidence.py --data FOLDER [--work FOLDER] [--seeds N]

Writes results/confidence.md and confidence.png; takes about ten minutes on 2 cores. The layout of
``--data`` is that of benchmarks/harness/tasks.py. Two encoders are trained by each seed with the
default settings at 256 bits and calibrated by the training; nothing is fitted here:

- flickr8k, features of its file: 1,000 dev pictures, then 6,000 training pictures added. A query is
  one caption of a dev picture; all documents hold their other four captions.
- fashion, product names encoded by MiniLM: 1,000 and 9,000 of all products, by chance. A query is
  the name of a product of the query part, right is every other product of its type.
"""

from __future__ import annotations

import argparse
import random
import string
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from harness.command_line import exit_status, set_threads
from harness.plots import reliability
from harness.report import RESULTS, table, write
from harness.tasks import minilm, texts

from xmodal.config import FEATURES, Options
from xmodal.data.dataset import Dataset
from xmodal.data.feature_file import read_feature_file
from xmodal.data.groups import with_groups
from xmodal.data.readers.read import read
from xmodal.encoders.calibration import Confidence, Stage
from xmodal.encoders.torch_encoder import TrainedEncoder, as_rows, as_tensor
from xmodal.features.backbones import load_text_backbone
from xmodal.features.extract import text_features
from xmodal.features.from_file import FileSource, with_features
from xmodal.features.units import FeatureTable
from xmodal.training.calibrate import collection_of
from xmodal.training.simulated_search import (
    Collection,
    Searches,
    Subset,
    by_both,
    by_codes,
    by_words,
    similarities,
    subset_of,
    words_rounds,
)
from xmodal.training.train import train

OPTIONS = Options(image_backbone=FEATURES, text_backbone=FEATURES, bits=256)
BINS, RANKS = 15, 10
NONSENSE = 100
EVIDENCE = ("codes", "words", "both")
STAGES: tuple[Stage, ...] = ("vectors", "weighted", "hamming")
SCRIPTS = "\u05d0\u05ea", "\u10d0\u10ea", "\u1200\u1248", "\u13a0\u13f4", "\u0e01\u0e2e"
"""First and last letter of scripts: Hebrew, Georgian, Ethiopic, Cherokee, Thai."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """A trained encoder, its held-out groups, and two sizes of the collection they search."""

    name: str
    encoder: TrainedEncoder
    groups: Collection
    sizes: tuple[int, int]


@dataclass(frozen=True)
class Answers:
    """Confidence and truth of the first hits, (q, 10), and of the best hits without right ones.

    ``size``: number of documents. ``best`` and ``removed`` (q,): confidence of the best hit, with
    the right documents in the index and without them.
    """

    size: int
    confidence: Floats
    right: npt.NDArray[np.bool_]
    best: Floats
    removed: Floats


def nonsense(count: int, seed: int) -> list[str]:
    """Return texts of 1 to 4 words of random letters; every fourth is in another script."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        letters = string.ascii_lowercase
        if number % 4 == 3:
            first, last = SCRIPTS[number // 4 % len(SCRIPTS)]
            letters = "".join(map(chr, range(ord(first), ord(last) + 1)))
        words = (
            "".join(rng.choices(letters, k=rng.choice((4, 6, 8, 12, 20))))
            for _ in range(rng.choice((1, 2, 4)))
        )
        found.append(" ".join(words))
    return found


def main() -> int:
    """Train, measure, write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("confidence-work"))
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    set_threads(1)
    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    args.work.mkdir(parents=True, exist_ok=True)
    rows: list[list[object]] = [
        ["data", "seed", "documents", "evidence", "ECE, first 10", "ECE, first", "mean, first",
         "right, first", "AUROC not there"]
    ]  # fmt: skip
    empty: list[list[object]] = [
        ["data", "seed", "documents", "threshold", "nonsense below", "queries below",
         "AUROC nonsense, codes", "both"]
    ]  # fmt: skip
    panels: dict[str, dict[str, tuple[Sequence[float], Sequence[float]]]] = {}
    for seed in range(args.seeds):
        for task in (flickr(args.data, args.work, seed), fashion(args.data, args.work, seed)):
            for size in task.sizes:
                found = answers(task, size)
                rows += [[task.name, seed, f"{size:,}", *_figures(n, a)] for n, a in found.items()]
                empty.append([task.name, seed, f"{size:,}", *_nonsense(task, size, found)])
                if seed == 0:
                    panels[f"{task.name}, {size:,} documents"] = {
                        name: bins(one.confidence.ravel(), one.right.ravel())[:2]
                        for name, one in found.items()
                        if name in EVIDENCE
                    }
    reliability(panels, RESULTS / "confidence.png")
    command = f"python benchmarks/confidence.py --data FOLDER --seeds {args.seeds}"
    write(
        "confidence",
        "Confidence of hits, text to picture, 256 bits",
        command,
        [
            ("Reliability", f"{NOTES}\n\n{table(rows)}\n\n![reliability](confidence.png)"),
            ("Nonsense", f"{NONSENSE_NOTES}\n\n{table(empty)}"),
        ],
    )
    return 0


NOTES = """Confidence is fitted to validation and training groups by `xmodal train`. ECE: \
expected calibration error in 15 bins of equal mass, over the first 10 hits of each query and over \
the first alone. Evidence: codes with vectors, BM25 words, both by reciprocal rank fusion; other \
stages of codes below them. AUROC not there: the largest confidence among the first hits tells an \
index with the right documents from the same without them."""
NONSENSE_NOTES = f"""{NONSENSE} texts of random letters, a quarter in scripts that MiniLM cannot \
read, searched by codes with vectors. The threshold is the encoder's default minimum confidence; \
below: share of the texts, and of the held-out queries, whose best hit is below it."""


# ---- data ----------------------------------------------------------------------------------------


def flickr(data: Path, work: Path, seed: int) -> Task:
    """Train on the split train of flickr8k; the dev pictures are held out."""
    pairs, source = with_features(
        read(data / "flickr8k" / "captions.jsonl", need_pictures=False),
        read_feature_file(data / "flickr8k" / "features.npz"),
    )
    options = replace(OPTIONS, seed=seed, split_map={"dev": "query"})
    return _task("flickr8k", pairs, source, options, work, (1000, 7000))


def fashion(data: Path, work: Path, seed: int) -> Task:
    """Train on the split database of fashion; the query products are held out."""
    stored = np.load(data / "fashion" / "image_features_mobilenet_v2.npz")
    file = work / "fashion.npz"
    items = read(data / "fashion" / "items.jsonl", label_column="labels", need_pictures=False)
    # Not every picture has a file, all have features.
    pairs = replace(items, items=tuple(replace(item, images=()) for item in items))
    if not file.exists():
        row = {str(id_): place for place, id_ in enumerate(stored["ids"])}
        np.savez(
            file,
            ids=np.array(pairs.ids),
            image=stored["features"][[row[id_] for id_ in pairs.ids]],
            text=texts("minilm", "text", data, work).astype(np.float16),
        )
    pairs, source = with_features(pairs, read_feature_file(file))
    return _task("fashion", pairs, source, replace(OPTIONS, seed=seed), work, (1000, 9000))


def _task(
    name: str,
    pairs: Dataset,
    source: FileSource,
    options: Options,
    work: Path,
    sizes: tuple[int, int],
) -> Task:
    encoder = train(pairs, work / f"{name}-{options.seed}", options, features=source)
    ids = {role: set(of_role) for role, of_role in encoder.split.items()}
    ready = FeatureTable.of(with_groups(pairs.pairs()), source)
    groups = collection_of(
        ready,
        ready.data.keep(lambda item: item.id in ids["query"]),
        ready.data.keep(lambda item: item.id not in ids["query"]),
        lambda modality, rows: encoder.towers.outputs(modality, as_rows(rows)),
        by_labels=encoder.about["options"]["method"] != "contrastive",
        max_others=max(sizes),
    )
    return Task(name, encoder, groups, sizes)


# ---- searches ------------------------------------------------------------------------------------


def answers(task: Task, size: int) -> dict[str, Answers]:
    """Search with all held-out captions; answers by the name of the evidence."""
    confidence = task.encoder.confidence
    collected: dict[str, list[Answers]] = {}
    for subset in _chunks(task.groups, size):
        # "Not there": no document is right, so that those that are right are left out.
        values = {stage: similarities(task.groups, subset, stage) for stage in STAGES}
        for stage, of_stage in values.items():
            name = "codes" if stage == "vectors" else f"codes, {stage}"
            absent = np.where(subset.right, -np.inf, of_stage)
            with_, without = (
                _ask(confidence, by_codes(subset, x), stage) for x in (of_stage, absent)
            )
            collected.setdefault(name, []).append(_answers(size, with_, without))
        for queries, scores in words_rounds(task.groups, subset):
            part = subset.of(queries)
            absent = np.where(part.right, 0.0, scores)
            with_, without = (
                _ask(confidence, by_words(part, x), "vectors") for x in (scores, absent)
            )
            collected.setdefault("words", []).append(_answers(size, with_, without))
            by_vectors = values["vectors"][queries]
            with_ = _ask(confidence, by_both(part, by_vectors, scores), "vectors")
            hidden = np.where(part.right, -np.inf, by_vectors)
            without = _ask(confidence, by_both(part, hidden, absent), "vectors")
            collected.setdefault("both", []).append(_answers(size, with_, without))
    ordered = [name for name in (*EVIDENCE, *collected) if name in collected]
    return {name: _joined(collected[name]) for name in dict.fromkeys(ordered)}


def _chunks(groups: Collection, size: int) -> Iterator[Subset]:
    """Yield a collection with 1,000 of its queries at a time.

    The documents are a random choice by labels; otherwise the queries' own groups come first.
    """
    rng = np.random.default_rng(0)
    units = rng.permutation(len(groups.units))
    if not groups.by_labels:
        units = np.concatenate([units[groups.held_out[units]], units[~groups.held_out[units]]])
    whole = subset_of(groups, "text", units, rng, max_queries=10**9)
    kept = np.sort(units[:size])  # the columns of ``whole`` are all units in order
    right, own = whole.right[:, kept], whole.own[:, kept]
    whole = replace(whole, units=kept, right=right, own=own)
    for start in range(0, len(whole.rows), 1000):
        yield whole.of(np.arange(start, min(start + 1000, len(whole.rows))))


def _ask(
    confidence: Confidence,
    searches: Searches,
    stage: Stage,
    known: Sequence[bool] | None = None,
) -> list[tuple[Floats, npt.NDArray[np.bool_]]]:
    """Return confidence and truth of the first hits of each query.

    ``known``: whether the text backbone knows a token of each query; default: yes.
    """
    found = []
    for row, right in enumerate(searches.right):
        codes, words = (
            None if values is None else values[row]
            for values in (searches.similarities, searches.words)
        )
        hits = np.isfinite(words if codes is None else codes)  # type: ignore[arg-type]
        given = confidence.hits_confidence(
            stage,
            None if codes is None else codes[hits].tolist(),
            searches.n_documents,
            word_scores=None if words is None else words[hits].tolist(),
            has_known_token=known is None or known[row],
        )
        values = np.array(given[:RANKS], np.float64)
        found.append((values, right[hits][:RANKS]))
    return found


def _answers(
    size: int,
    with_: list[tuple[Floats, npt.NDArray[np.bool_]]],
    without: list[tuple[Floats, npt.NDArray[np.bool_]]],
) -> Answers:
    values = np.full((len(with_), RANKS), np.nan)
    right = np.zeros((len(with_), RANKS), np.bool_)
    for row, (confidence, truth) in enumerate(with_):
        values[row, : len(confidence)], right[row, : len(truth)] = confidence, truth
    best, removed = (
        np.array([one.max(initial=0.0) for one, _ in found]) for found in (with_, without)
    )
    return Answers(size, values, right, best, removed)


def _joined(parts: Sequence[Answers]) -> Answers:
    names = ("confidence", "right", "best", "removed")
    joined = {name: np.concatenate([getattr(one, name) for one in parts]) for name in names}
    return replace(parts[0], **joined)


# ---- figures -------------------------------------------------------------------------------------


def bins(
    confidence: Floats, right: npt.NDArray[np.bool_]
) -> tuple[list[float], list[float], list[int]]:
    """Return mean confidence, share of right hits and number of hits of bins of equal mass."""
    known = np.isfinite(confidence)
    order = np.argsort(confidence[known], kind="stable")
    parts = [
        np.array_split(values[known][order].astype(np.float64), BINS)
        for values in (confidence, right)
    ]
    means = [[float(part.mean()) for part in of_one] for of_one in parts]
    return means[0], means[1], [len(part) for part in parts[0]]


def calibration_error(confidence: Floats, right: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error: mean distance of confidence and share of right hits in a bin."""
    means, shares, counts = (np.array(x) for x in bins(confidence, right))
    return float((counts * np.abs(means - shares)).sum() / counts.sum())


def auroc(higher: Floats, lower: Floats) -> float:
    """Probability that a value of ``higher`` exceeds one of ``lower``; ties count half."""
    ordered = np.sort(lower)
    below = np.searchsorted(ordered, higher, "left") + np.searchsorted(ordered, higher, "right")
    return float(below.mean() / (2 * len(lower)))


def _figures(name: str, found: Answers) -> list[object]:
    first = found.confidence[:, 0]
    return [
        name,
        f"{calibration_error(found.confidence.ravel(), found.right.ravel()):.3f}",
        f"{calibration_error(first, found.right[:, 0]):.3f}",
        f"{np.nanmean(first):.3f}",
        f"{found.right[:, 0].mean():.3f}",
        f"{auroc(found.best, found.removed):.3f}",
    ]


def _nonsense(task: Task, size: int, found: Mapping[str, Answers]) -> list[object]:
    """Figures of nonsense, which searches the same documents."""
    backbone = load_text_backbone(minilm())
    asked = nonsense(NONSENSE, seed=19)
    rows, _ = text_features(backbone, asked)
    outputs = task.encoder.towers.outputs("text", as_tensor(rows))
    subset = next(_chunks(task.groups, size))
    replaced = replace(task.groups, outputs={**task.groups.outputs, "text": outputs})
    q = len(asked)
    none = np.zeros((q, size), np.bool_)
    queries = replace(subset, rows=np.arange(q), right=none, own=none)
    hits = by_codes(queries, similarities(replaced, queries, "vectors"))
    least = task.encoder.confidence.min_confidence
    known = [backbone.has_known_token(text) for text in asked]
    best = _answers(size, _ask(task.encoder.confidence, hits, "vectors", known), []).best
    return [
        f"{least:.4f}",
        f"{np.mean(best < least):.2f}",
        f"{np.mean(found['codes'].best < least):.3f}",
        f"{auroc(found['codes'].best, best):.3f}",
        f"{auroc(found['both'].best, best):.3f}" if "both" in found else "-",
    ]


if __name__ == "__main__":
    sys.exit(main())
