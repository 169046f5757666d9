"""Pictures and texts without a pair, and wrong pairs: options and lines of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from xmodal.cli.data import CommandData
from xmodal.data.dataset import Dataset
from xmodal.data.unpaired import unpaired_items, with_pictures, with_texts
from xmodal.encoders.folder import LEFT_OUT
from xmodal.errors import ConfigError


def unpaired_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options --unpaired-images and --unpaired-texts."""
    for decorate in (
        click.option(
            "--unpaired-texts",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="Texts without pictures that are also used: a text on each line.",
        ),
        click.option(
            "--unpaired-images",
            metavar="FOLDER",
            type=click.Path(path_type=Path),
            help="Pictures without captions that are also used; so are rows of DATA with one side.",
        ),
    ):
        command = decorate(command)
    return command


def with_unpaired(given: CommandData, options: Mapping[str, Any]) -> CommandData:
    """Return the data with the pictures and texts of the options.

    Raises ConfigError if features come from a file, and the errors of the readers.
    """
    folder, file = options["unpaired_images"], options["unpaired_texts"]
    if given.features is not None and (folder or file):
        raise ConfigError(
            "--unpaired-images and --unpaired-texts need backbones, found features of a file: add "
            "the pictures and texts to the file and to DATA as rows with one side"
        )
    data = given.dataset
    if folder:
        data = with_pictures(data, folder)
    if file:
        data = with_texts(data, file, options["encoding"])
    return replace(given, dataset=data)


def unpaired_line(data: Dataset, setting: str, split_map: Mapping[str, str]) -> str | None:
    """Return the line that counts pictures and texts without a pair, None without any, or any pair.

    ``setting``: the setting ``unpaired`` of the training, "none" if the method cannot use them.
    """
    found, pairs = unpaired_items(data, None, split_map), len(data.pairs())
    if not pairs or not (found.pictures or found.texts):
        return None
    if setting == "none":
        return f"{found.line} are left out by this method and these settings"
    if not found:
        return f"{found.line} are left out: pairs are chosen of both, and one side is missing"
    if setting == "auto" and not found.enough(pairs):
        return (
            f"{found.line} are left out, fewer than the {pairs:,} pairs; --set unpaired=mutual "
            "uses them"
        )
    return f"{found.line} are used beside the pairs; --set unpaired=none leaves them out"


def left_out_line(about: Mapping[str, Any], out: Path) -> str | None:
    """Return the line that counts pairs that a training left out, None if it judged none.

    ``about``: what the encoder in ``out`` has stored of its training.
    """
    counts = about["data"]
    if "judged pairs" not in counts:
        return None
    return (
        f"{counts['left out pairs']:,} of {counts['judged pairs']:,} training pairs are probably "
        f"wrong and were left out, see {out / LEFT_OUT}; --set noise=none keeps them"
    )
