"""Binary codes of any embedding matrix, without labels: SiGAH on one modality.

The output folder has these files:

    codes.npy             packed codes (n, bits / 8) uint8, in the order of the rows
    weights.safetensors   weight (bits, dim) and offset (bits,): bit = weight x + offset > 0
    config.json           bits, dim, settings, seed, fingerprint, versions
    report.json           recall of exact cosine neighbours, beside ITQ and sign of PCA
    history.jsonl         losses and validation recall of each epoch

Rows are scaled to length 1, so Hamming distances of codes approximate cosine distances. The report
is measured on held-out queries: a tenth of the rows (at most 1,000), which neither SiGAH nor the
baselines are fitted on. A further twentieth (at most 500) selects the best epoch.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from xmodal import __version__, linear_models
from xmodal.codes import BinaryCodes, check_bits
from xmodal.config import configure, current_names
from xmodal.data.vectors import CHUNK, Matrix, check_features, unit_rows
from xmodal.encoders.compressor import Compressor, read_codes, read_report
from xmodal.encoders.folder import (
    COMPRESSOR,
    RunFolder,
    open_run,
)
from xmodal.encoders.towers import Towers
from xmodal.errors import ConfigError, DataError
from xmodal.evaluation.code_health import code_health
from xmodal.evaluation.metrics import mean, neighbour_recall
from xmodal.training.checkpoint import continue_or_clear
from xmodal.training.methods.sigah.config import Config
from xmodal.training.methods.sigah.train import train_unimodal
from xmodal.training.pairs import Pairs, even_choice
from xmodal.training.run import EpochShown, Run, TrainingData

MIN_ROWS = 8
"""Rows that training needs."""
NEIGHBOURS, RERANK_CUT = 10, 100
"""Exact neighbours that the report counts, and a larger cut of the ranking by Hamming distance."""
MAX_FIT_ROWS = 20_000
"""Rows that SiGAH and the baselines are fitted on."""
MAX_DATABASE = 100_000
"""Rows in the database of the report."""


@dataclass(frozen=True)
class Compressed:
    """The result of :func:`compress`: codes of all rows, the compressor, and its evaluation.

    ``report["recall"]["sigah"]["recall@10"]`` is in [0, 1]; ``itq`` and ``pca`` are baselines.
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
    """Train a compressor of vectors (n, dim), n >= 8, to ``bits`` bits and encode all of them.

    The loss makes Hamming neighbours of codes cosine neighbours of vectors. ``features`` are
    float16, float32 or float64 and finite; their lengths have no effect. At most 20,000 evenly
    spaced rows are used for training. ``settings`` change fields of the Config of SiGAH.

    With a folder ``out`` all results are saved: a stopped run is continued, a finished run with the
    same features and settings is loaded, another one is refused unless ``restart``, which keeps it
    until the new result is complete. ``show``: callback after each epoch.

    Raises DataError for features, ConfigError for settings and folders, CodeError for bits.

    >>> import numpy as np
    >>> vectors = np.random.default_rng(0).standard_normal((64, 16), dtype=np.float32)
    >>> xmodal.compress(vectors, bits=16, settings={"epochs": 1}).codes.bits
    16
    """
    check_bits(bits)
    if seed < 0:
        raise ConfigError(f"seed is {seed}, expected 0 or more")
    config = configure(Config, settings or {})
    check_features(features)
    if len(features) < MIN_ROWS:
        raise DataError(f"there are {len(features)} rows, expected at least {MIN_ROWS}")
    settings = asdict(config)
    identity = _identity(features, bits, seed, settings)
    folder = Path(out) if out is not None else None
    with open_run(folder, COMPRESSOR, restart) as place:
        if folder is not None and place.finished:
            return _load_finished(folder, features, bits, seed, settings)
        continue_or_clear(place, identity)
        return _compress(features, bits, place, config, seed, identity, show)


def _compress(
    features: Matrix,
    bits: int,
    place: RunFolder,
    config: Config,
    seed: int,
    identity: str,
    show: EpochShown | None,
) -> Compressed:
    """Train a compressor, encode all vectors, and save both in the folder of the run."""
    parts = split_rows(len(features))
    train, validation = (unit_rows(features, parts[role]) for role in ("train", "validation"))
    run = _NeighboursRun(
        TrainingData(_self_pairs(train), _self_pairs(validation), bits),
        seed=seed,
        folder=place.work,
        identity=identity,
        show=show,
    )
    towers = train_unimodal(run.data, config, run)
    weights = {name: tensor.cpu().numpy() for name, tensor in towers.image.state_dict().items()}
    about = {
        "identity": identity,
        "seed": seed,
        "settings": asdict(config),
        "rows": {"all": len(features)} | {role: len(rows) for role, rows in parts.items()},
        "epoch": run.best_epoch,
        "versions": {
            "xmodal": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    compressor = Compressor(weights["head.0.weight"], weights["head.0.bias"], about)
    codes = compressor.encode(features)
    report = _report(features, codes, parts, seed)
    if place.work is not None:
        run.write_history(place.work)
        compressor.save(place.work, codes, report)
        place.complete()
    return Compressed(codes, compressor, report)


@dataclass
class _NeighboursRun(Run):
    """A run whose best epoch has the largest recall of cosine neighbours of validation rows."""

    _nearest: npt.NDArray[np.int64] | None = None

    def validate(self, towers: Towers) -> dict[str, float]:
        """Expected recall of the exact neighbours among the training rows."""
        queries, database = self.data.validation.image, self.data.train.image
        if self._nearest is None:
            rows = [torch.cat(list(part.split(1024))).numpy() for part in (queries, database)]
            self._nearest = linear_models.nearest(rows[0], rows[1], NEIGHBOURS)
        codes = towers.codes("image", queries), towers.codes("image", database)
        k = self._nearest.shape[1]
        return {f"recall@{k}": mean(neighbour_recall(*codes, self._nearest, k))}


def split_rows(n: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return the rows of queries, validation and training; they depend on ``n`` alone."""
    order = np.random.default_rng(0).permutation(n)
    queries = min(1000, max(1, n // 10))
    validation = min(500, max(1, n // 20))
    rest = order[queries + validation :]
    return {
        "query": np.sort(order[:queries]),
        "validation": np.sort(order[queries : queries + validation]),
        "train": np.sort(rest[even_choice(len(rest), MAX_FIT_ROWS).numpy()]),
    }


def _report(
    features: Matrix, codes: BinaryCodes, parts: Mapping[str, npt.NDArray[np.int64]], seed: int
) -> dict[str, Any]:
    """Recall of SiGAH and of the baselines, which are fitted on the validation rows as well."""
    query_rows = parts["query"]
    others = np.setdiff1d(np.arange(len(features)), query_rows)
    others = others[even_choice(len(others), MAX_DATABASE).numpy()]
    queries, database = unit_rows(features, query_rows), unit_rows(features, others)
    nearest = linear_models.nearest(queries, database, NEIGHBOURS)
    fit = unit_rows(features, np.union1d(parts["train"], parts["validation"]))
    project = linear_models.pca(fit, codes.bits)
    both = linear_models.Projections(project, project)
    rotated = linear_models.itq(fit, fit[:0], both, rng=np.random.default_rng(seed)).image
    found = {"sigah": (codes[query_rows], codes[others])}
    for name, one in (("itq", rotated), ("pca", project)):
        relaxed = (one(queries), one(database))
        found[name] = (BinaryCodes.from_relaxed(relaxed[0]), BinaryCodes.from_relaxed(relaxed[1]))
    k = nearest.shape[1]

    def figures(queries: BinaryCodes, database: BinaryCodes) -> dict[str, float]:
        cuts = {f"recall@{k}": k} | (
            {f"in first {RERANK_CUT}": RERANK_CUT} if len(database) > RERANK_CUT else {}
        )
        kept = {
            name: mean(neighbour_recall(queries, database, nearest, cut))
            for name, cut in cuts.items()
        }
        return {name: round(value, 4) for name, value in kept.items()}

    return {
        "bits": codes.bits,
        "measured": {"queries": len(query_rows), "searched": len(others), "neighbours": k},
        "recall": {name: figures(*pair) for name, pair in found.items()},
        "health": {name: round(value, 4) for name, value in code_health(codes).items()},
    }


def _self_pairs(rows: linear_models.Matrix) -> Pairs:
    """Return unlabelled pairs of each row with itself, without a copy."""
    tensor = torch.from_numpy(rows)
    unlabelled = torch.zeros(len(rows), dtype=torch.bool)
    return Pairs(tensor, tensor, torch.zeros(len(rows), 0), unlabelled)


def _identity(features: Matrix, bits: int, seed: int, settings: Mapping[str, Any]) -> str:
    """Return a hash of the features, the options and all settings, in their stored order."""
    options = json.dumps([COMPRESSOR.version, bits, seed, settings])
    hashed = hashlib.blake2b(options.encode(), digest_size=8)
    hashed.update(f"{features.shape} {features.dtype.str}".encode())
    for start in range(0, len(features), CHUNK):
        hashed.update(np.ascontiguousarray(features[start : start + CHUNK]).tobytes())
    return hashed.hexdigest()


def _load_finished(
    folder: Path, features: Matrix, bits: int, seed: int, settings: Mapping[str, Any]
) -> Compressed:
    """Load the result of the same run; raise ConfigError if the folder has another one.

    Stored settings of an earlier version are compared under their current names.
    """
    compressor = Compressor.load(folder)
    stored = compressor.about.get("settings")
    same = (
        isinstance(stored, dict)
        and current_names(Config, stored) == settings
        and compressor.about.get("identity") == _identity(features, bits, seed, stored)
    )
    report = read_report(folder)
    if not same or report is None:
        raise ConfigError(
            f"{folder} holds codes of other features or settings: name another --out, or "
            "replace them with --restart"
        )
    return Compressed(read_codes(folder), compressor, report)
