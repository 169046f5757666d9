"""Any embedding matrix to binary codes, without labels: SiGAH on one modality, kept in a folder.

    codes.npy             packed codes (n, bits / 8) uint8, in the order of the rows
    weights.safetensors   weight (bits, dim) and offset (bits,): bit = weight x + offset > 0
    config.json           bits, dim, settings, seed, fingerprint, versions
    report.json           recall of exact cosine neighbours, beside ITQ and sign of PCA
    history.jsonl         losses and validation recall of each epoch

Rows are scaled to length 1 first, so codes keep what cosine keeps. What is measured was held out:
a tenth of the rows (at most 1,000) asks, and neither SiGAH nor the baselines learned from it; a
twentieth (at most 500) more chose the epoch.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from xmodal import linear_models
from xmodal.codes import BinaryCodes, check_bits
from xmodal.compression.compressor import (
    FORMAT,
    REPORT,
    Compressor,
    prepare_folder,
    read_codes,
    read_json,
)
from xmodal.compression.vectors import (
    CHUNK,
    Matrix,
    check_features,
    read_features,
    unit_rows,
)
from xmodal.config import configure
from xmodal.encoder import CHECKPOINT, write_json
from xmodal.errors import ConfigError, DataError
from xmodal.metrics import code_health, mean, neighbours_kept
from xmodal.towers import Towers
from xmodal.training.methods.sigah import train as sigah
from xmodal.training.pairs import Pairs, even_choice
from xmodal.training.run import EpochShown, Run, TrainingData

__all__ = ["Compressed", "Compressor", "compress", "prepare_folder", "read_codes", "read_features"]

FEWEST = 8  # rows that can be learned from
NEIGHBOURS, WIDER = 10, 100  # how many are looked for; where a second look would find them
ENOUGH = 20_000  # rows that are enough to learn from
SEARCHED = 100_000  # rows that the measurement searches in


@dataclass(frozen=True)
class Compressed:
    """What :func:`compress` returns: codes of all rows, what made them, and how good they are.

    ``report["recall"]["sigah"]["recall@10"]`` is in [0, 1]; beside it ``itq`` and ``pca``.
    """

    codes: BinaryCodes
    compressor: Compressor
    report: dict[str, Any]


def compress(
    features: Matrix,
    bits: int = 128,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    restart: bool = False,
    show: EpochShown | None = None,
) -> Compressed:
    """Learn codes of ``bits`` bits for vectors (n, dim), n >= 8, and code all of them.

    ``features`` are float16, float32 or float64 and finite; their lengths do not matter. At most
    20,000 evenly chosen rows are learned from. ``settings`` change fields of ``sigah.Config``.
    Hamming neighbours among the codes are to be cosine neighbours among the vectors.

    With a folder ``out`` everything is kept there: a run that was stopped goes on, a finished one
    with the same features and settings is only loaded, another is refused unless ``restart``.
    Raises DataError for features that cannot be used, ConfigError for settings, CodeError for bits.
    """
    check_bits(bits)
    if seed < 0:
        raise ConfigError(f"seed is {seed}, expected 0 or more")
    config = configure(sigah.Config, settings or {})
    check_features(features)
    if len(features) < FEWEST:
        raise DataError(f"there are {len(features)} rows, expected at least {FEWEST} to learn from")
    identity = _identity(features, [FORMAT, bits, seed, asdict(config)])
    folder = Path(out) if out is not None else None
    if folder is not None and prepare_folder(folder, restart):
        return _finished(folder, identity)
    parts = _divide(len(features))
    train, chosen_by = (unit_rows(features, parts[role]) for role in ("train", "validation"))
    run = _NeighboursRun(
        TrainingData(_one_sided(train), _one_sided(chosen_by), bits),
        seed=seed,
        folder=folder,
        identity=identity,
        show=show,
    )
    towers = sigah.train_one(run.data, config, run)
    weights = {name: tensor.cpu().numpy() for name, tensor in towers.image.state_dict().items()}
    about = {
        "identity": identity,
        "seed": seed,
        "settings": asdict(config),
        "rows": {"all": len(features)} | {role: len(rows) for role, rows in parts.items()},
        "epoch": run.best_epoch,
        "versions": {
            "xmodal": version("xmodal"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    compressor = Compressor(weights["head.0.weight"], weights["head.0.bias"], about)
    codes = compressor.encode(features)
    report = _report(features, codes, parts, seed)
    if folder is not None:
        run.write_history(folder)
        write_json(folder / REPORT, report)
        compressor.save(folder, codes)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return Compressed(codes, compressor, report)


@dataclass
class _NeighboursRun(Run):
    """Chooses the epoch in which codes of validation rows find most of their cosine neighbours."""

    _nearest: npt.NDArray[np.int64] | None = None

    def validate(self, towers: Towers) -> dict[str, float]:
        """Expected recall of the exact neighbours among the rows that are learned from."""
        queries, database = self.data.validation.image, self.data.train.image
        if self._nearest is None:
            self._nearest = linear_models.nearest(queries.numpy(), database.numpy(), NEIGHBOURS)
        codes = towers.codes("image", queries), towers.codes("image", database)
        k = self._nearest.shape[1]
        return {f"recall@{k}": mean(neighbours_kept(*codes, self._nearest, k))}


def _divide(n: int) -> dict[str, npt.NDArray[np.int64]]:
    """Which rows ask, choose the epoch, and are learned from: always the same for one n."""
    order = np.random.default_rng(0).permutation(n)
    queries = min(1000, max(1, n // 10))
    validation = min(500, max(1, n // 20))
    rest = order[queries + validation :]
    return {
        "query": np.sort(order[:queries]),
        "validation": np.sort(order[queries : queries + validation]),
        "train": np.sort(rest[even_choice(len(rest), ENOUGH).numpy()]),
    }


def _report(
    features: Matrix, codes: BinaryCodes, parts: Mapping[str, npt.NDArray[np.int64]], seed: int
) -> dict[str, Any]:
    """Recall of SiGAH and of the baselines, which learn from the validation rows as well."""
    asking = parts["query"]
    others = np.setdiff1d(np.arange(len(features)), asking)
    others = others[even_choice(len(others), SEARCHED).numpy()]
    queries, database = unit_rows(features, asking), unit_rows(features, others)
    nearest = linear_models.nearest(queries, database, NEIGHBOURS)
    fit = unit_rows(features, np.union1d(parts["train"], parts["validation"]))
    project = linear_models.pca(fit, codes.bits)
    both = linear_models.Projections(project, project)
    turned = linear_models.itq(fit, fit[:0], both, rng=np.random.default_rng(seed)).image
    found = {"sigah": (codes[asking], codes[others])}
    for name, one in (("itq", turned), ("pca", project)):
        relaxed = (one(queries), one(database))
        found[name] = (BinaryCodes.from_relaxed(relaxed[0]), BinaryCodes.from_relaxed(relaxed[1]))
    k = nearest.shape[1]

    def figures(ask: BinaryCodes, to: BinaryCodes) -> dict[str, float]:
        cuts = {f"recall@{k}": k} | ({f"in first {WIDER}": WIDER} if len(to) > WIDER else {})
        kept = {name: mean(neighbours_kept(ask, to, nearest, cut)) for name, cut in cuts.items()}
        return {name: round(value, 4) for name, value in kept.items()}

    return {
        "bits": codes.bits,
        "measured": {"queries": len(asking), "searched": len(others), "neighbours": k},
        "recall": {name: figures(*pair) for name, pair in found.items()},
        "health": {name: round(value, 4) for name, value in code_health(codes).items()},
    }


def _one_sided(rows: linear_models.Matrix) -> Pairs:
    """Pairs of each row with itself: what a run takes; nothing is copied."""
    tensor = torch.from_numpy(rows)
    nobody = torch.zeros(len(rows), dtype=torch.bool)
    return Pairs(tensor, tensor, torch.zeros(len(rows), 0), nobody)


def _identity(features: Matrix, settings: object) -> str:
    """A hash of all that decides the outcome of a run."""
    hashed = hashlib.blake2b(json.dumps(settings).encode(), digest_size=8)
    hashed.update(f"{features.shape} {features.dtype.str}".encode())
    for start in range(0, len(features), CHUNK):
        hashed.update(np.ascontiguousarray(features[start : start + CHUNK]).tobytes())
    return hashed.hexdigest()


def _finished(folder: Path, identity: str) -> Compressed:
    """The content of a folder, which this very run must have left."""
    compressor = Compressor.load(folder)
    if compressor.about.get("identity") != identity or not (folder / REPORT).is_file():
        raise ConfigError(
            f"{folder} holds codes of other features or settings: name another --out, or "
            "replace them with --restart"
        )
    return Compressed(read_codes(folder), compressor, read_json(folder / REPORT))
