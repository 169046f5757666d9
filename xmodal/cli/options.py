"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from xmodal.cli.output import info
from xmodal.data.dataset import Dataset
from xmodal.data.readers.tables import Columns, label_candidates, read
from xmodal.encoders.folder import encoder_format, read_config
from xmodal.errors import ConfigError

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
        ("label", "labels (several: a list, or text with | between) [default: no labels]"),
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


def read_labelled_as_trained(source: Path, columns: Columns, models: Sequence[Path]) -> Dataset:
    """Data with labels from the column that ``columns`` names, else that the models recorded.

    Raises ConfigError if the models recorded several columns. Data without the recorded column is
    read without labels.
    """
    if columns.label is None:
        recorded = {_recorded_label_column(model) for model in models}
        if len(recorded) > 1:
            names = ", ".join(sorted(map(str, recorded)))
            raise ConfigError(
                f"the models were trained with different label columns ({names}): name one with "
                "--label-column"
            )
        (label,) = recorded
        try:
            return read(source, columns, label_column=label)
        except ConfigError:
            if label is None:
                raise
        dataset = read(source, columns)
        info(
            f"{source} has no column {label}, the label column of the training: no labels are used"
        )
        return dataset
    return read(source, columns)


def _recorded_label_column(model: Path) -> str | None:
    data = read_config(model, encoder_format(model)).get("data")
    column = data.get("label_column") if isinstance(data, dict) else None
    return column if isinstance(column, str) else None


def print_label_candidates(data: Dataset, use: str) -> None:
    """One line for each column that probably holds labels, unless a label column is used."""
    if data.label_column is None:
        for name, count in label_candidates(data).items():
            values = "1 value" if count == 1 else f"{count:,} values"
            info(f"column {name} ({values}) is stored as a field; --label-column {name} {use}")


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
