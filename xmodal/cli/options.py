"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from xmodal.data.readers.tables import Columns

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


data_argument = click.argument("data", type=click.Path(path_type=Path))


model_option = click.option(
    "--model", required=True, type=click.Path(path_type=Path), help="Folder of a trained encoder."
)


cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder for features, so that no picture is read twice [default: user's cache folder].",
)


json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


def column_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that name the columns of a table."""
    for name, what in (
        ("split", "a split: train, validation, test, gallery"),
        ("id", "an id"),
        ("label", "labels (several: a list, or text with | between)"),
        ("text", "a text"),
        ("image", "the path of a picture"),
    ):
        option = click.option(f"--{name}-column", default=None, help=f"Column with {what}.")
        command = option(command)
    return command


def columns_of(given: Mapping[str, Any]) -> Columns:
    """What the options of :func:`column_options` said."""
    names = ("image", "text", "label", "id", "split")
    return Columns(**{name: given[f"{name}_column"] for name in names})


def backbone_options(default: str | None) -> Decorator:
    """Options that name the backbones."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for side, built_in in (("text", "words"), ("image", "small-cnn")):
            help_ = f"A model's name or local path, or {built_in}."
            if default is None:
                help_ = f"Where the {side} backbone is now, if it has moved."
            command = click.option(
                f"--{side}-backbone",
                default=default,
                show_default=default is not None,
                metavar="NAME|PATH",
                help=help_,
            )(command)
        return command

    return add
