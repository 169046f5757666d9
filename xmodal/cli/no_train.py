"""An encoder without training: the rotation of an aligned pair of backbones, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.cli.output import info, print_line, progress_bars
from xmodal.config import DEFAULT_BACKBONE, Options
from xmodal.data.dataset import Dataset
from xmodal.data.groups import with_groups
from xmodal.errors import require

if TYPE_CHECKING:
    from xmodal.training.rotation import Rotated

DEFAULT_BITS = 256


def fit_without_training(
    dataset: Dataset, out: Path, params: Mapping[str, Any], *, restart: bool = False
) -> Rotated:
    """Fit an encoder to ``dataset`` and save it in the folder ``out``.

    ``params``: options of the command. Of two backbones the one that is not named is the other one.
    """
    require("an encoder without training", "torch")

    from xmodal.features.cache import default_cache
    from xmodal.training.rotation import METHOD, fit_rotation_encoder

    image, text = params["image_backbone"], params["text_backbone"]
    options = Options(
        method=METHOD,
        bits=params["bits"] or DEFAULT_BITS,
        image_backbone=image or text or DEFAULT_BACKBONE,
        text_backbone=text or image or DEFAULT_BACKBONE,
        precision=params.get("precision", "float32"),
        seed=params.get("seed", 0),
        split_seed=params.get("split_seed", 0),
        trust_remote_code=params["trust_remote_code"],
    )
    with progress_bars() as bars:
        fitted = fit_rotation_encoder(
            with_groups(dataset),
            out,
            options,
            cache=params["cache"] or default_cache(),
            restart=restart,
            progress=bars,
        )
    info(f"{dataset.name}: {fitted.report['situation']}")
    return fitted


def print_fitted(report: Mapping[str, Any]) -> None:
    """Print what was measured on held-out pictures."""
    for direction, value in report["recall"].items():
        print_line(
            f"  recall@{report['neighbours']} of the float cosine, {direction}: {value:.3f} "
            f"({report['queries']:,} held-out pictures, {report['searched']:,} searched)"
        )
    if not report["recall"]:
        print_line(f"  not measured: {report['searched']:,} pictures are too few to hold some out")
    health = report["health"]
    print_line(
        f"  codes of pictures: {health['distinct']:.0%} distinct, entropy of a bit "
        f"{health['entropy']:.2f}, correlation of two bits {health['correlation']:.2f}"
    )
