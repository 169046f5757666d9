"""Options that several commands share."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from xmodal.cli.output import info
from xmodal.cli.sources import Data, paths_of
from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.data.problems import Problems
from xmodal.data.readers.columns import Columns, label_candidates
from xmodal.data.readers.read import FOLDER_LABELS, LabelsFrom, Options, read, stream
from xmodal.data.readers.reading import Expected
from xmodal.encoders.folder import HUB_SCHEME, encoder_format, read_config
from xmodal.encoders.index_model import DEFAULT_INDEX
from xmodal.errors import ConfigError

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class ModelFolder(click.Path):
    """Folder of an encoder, or its name on the model hub, hf://OWNER/NAME, which is downloaded."""

    name = "model"

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        """Return the folder. Raises ConfigError and ModelError for a name of the hub."""
        if isinstance(value, str) and value.startswith(HUB_SCHEME):
            from xmodal.encoders.hub import HubName, download

            return download(HubName.parse(value))
        return Path(os.fsdecode(super().convert(value, param, ctx)))


model_option = click.option(
    "--model",
    required=True,
    type=ModelFolder(),
    metavar="FOLDER|hf://NAME",
    help="Encoder: its folder, or its name on the model hub.",
)


model_of_index_option = click.option(
    "--model",
    type=ModelFolder(),
    metavar="FOLDER|hf://NAME",
    help="Encoder: its folder, or its name on the model hub [default: the one that a local index "
    "records, or .xmodal/model].",
)


index_option = click.option(
    "--index",
    "uri",
    default=DEFAULT_INDEX,
    show_default=True,
    help="Folder of a local index, or address of an index.",
)


cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder of the feature cache [default: the user's cache folder].",
)


source_option = click.option(
    "--source",
    metavar="NAME",
    help="Source whose documents are added, replaced and removed [default: the path of DATA].",
)


no_vectors_option = click.option(
    "--no-vectors",
    is_flag=True,
    help="For a new index: codes alone, smaller on disk and less exact in order.",
)


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def column_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of reading data: --image-column, --images, --encoding, ..."""
    for decorate in (
        click.option(
            "--labels-from",
            type=click.Choice(["folders"]),
            help="Use the names of the folders that hold the pictures as labels.",
        ),
        click.option("--encoding", help="Encoding of text files [default: UTF-8, or UTF-16]."),
        click.option(
            "--separator",
            metavar="CHARACTER",
            help="Between the values of delimited text, also by name: tab [default: found].",
        ),
        click.option(
            "--columns",
            "header",
            metavar="NAMES",
            callback=_header,
            help="Columns of delimited text without a header line: image,text,- (- is unused).",
        ),
        click.option(
            "--images",
            "pictures",
            type=click.Path(path_type=Path),
            help="Folder of the pictures that a table names [default: the table's folder].",
        ),
        click.option("--pictures", "former_pictures", type=click.Path(path_type=Path), hidden=True),
    ):
        command = decorate(command)
    for name, content in (
        ("split", "split names: train, validation, test, gallery"),
        ("id", "ids"),
        ("label", "labels (several: a list, or text with | between) [default: no labels]"),
        ("text", "texts"),
        ("image", "paths of pictures"),
    ):
        option = click.option(f"--{name}-column", default=None, help=f"Column with {content}.")
        command = option(command)
    return command


def _header(
    context: click.Context, parameter: click.Parameter, names: str | None
) -> tuple[str, ...] | None:
    """Return the names of --columns, "" for those that are unused."""
    if names is None:
        return None
    found = [name.strip() for name in names.split(",")]
    used = [name for name in found if name not in ("", "-")]
    if not used or len(set(used)) < len(used):
        raise ConfigError(
            f"--columns {names}: expected different names between commas, for example image,text,-"
        )
    return tuple("" if name == "-" else name for name in found)


def columns_of(options: Mapping[str, Any]) -> Columns:
    """Return the columns that the options of :func:`column_options` name."""
    roles = (field.name for field in dataclasses.fields(Columns))
    return Columns(**{role: options[f"{role}_column"] for role in roles})


def read_items(
    source: Data,
    options: Mapping[str, Any],
    *,
    label_column: str | None = None,
    labels_from: LabelsFrom | None = None,
    need_pictures: bool = True,
) -> Dataset:
    """Read data with the options of :func:`column_options`; see :func:`read` for errors."""
    given = reading_options(options)
    given["label_column"], given["need_pictures"] = label_column, need_pictures
    given["labels_from"] = labels_from or given["labels_from"]
    return read(paths_of(source), columns_of(options), **given)


def stream_items(
    source: Data, options: Mapping[str, Any], problems: Problems, expected: Expected
) -> Iterator[Item]:
    """Yield items with the options of :func:`column_options`; see :func:`stream` for errors."""
    return stream(
        paths_of(source),
        columns_of(options),
        problems=problems,
        expected=expected,
        **reading_options(options),
    )


def reading_options(options: Mapping[str, Any]) -> Options:
    """Return the options of :func:`column_options` that :func:`read` takes."""
    return {
        "pictures": options["pictures"] or options["former_pictures"],
        "encoding": options["encoding"],
        "separator": options["separator"],
        "header": options["header"],
        "labels_from": options["labels_from"],
    }


def read_with_training_labels(
    source: Data,
    options: Mapping[str, Any],
    models: Sequence[Path],
    *,
    need_pictures: bool = True,
) -> Dataset:
    """Read data; by default, labels are read from where the training of ``models`` read them.

    Data without that column is read without labels, with a message. Raises ConfigError if the
    models were trained with different label columns, and like :func:`read`.
    """
    if options["label_column"] is not None or options["labels_from"] is not None:
        return read_items(source, options, need_pictures=need_pictures)
    label_columns = {_training_label_column(model) for model in models}
    if len(label_columns) > 1:
        names = ", ".join(sorted(map(str, label_columns)))
        raise ConfigError(
            f"the models were trained with different label columns ({names}): name one with "
            "--label-column"
        )
    (label,) = label_columns
    if label == FOLDER_LABELS:
        return read_items(source, options, labels_from="folders", need_pictures=need_pictures)
    try:
        return read_items(source, options, label_column=label, need_pictures=need_pictures)
    except ConfigError:
        if label is None:
            raise
    dataset = read_items(source, options, need_pictures=need_pictures)
    info(f"{source} has no column {label}, the label column of the training: no labels are used")
    return dataset


def _training_label_column(model: Path) -> str | None:
    """Return the label column in the configuration of an encoder, or None."""
    data = read_config(model, encoder_format(model)).get("data")
    column = data.get("label_column") if isinstance(data, dict) else None
    return column if isinstance(column, str) else None


def split_map_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option --split-map, which may be repeated."""
    return click.option(
        "--split-map",
        "split_map",
        multiple=True,
        metavar="NAME=PART",
        help="Part that a split of the data is: train, validation, query or gallery.",
    )(command)


def training_split_map(models: Sequence[Path]) -> dict[str, str]:
    """Return the parts of splits that the trainings of encoders were given, joined."""
    joined: dict[str, str] = {}
    for model in models:
        options = read_config(model, encoder_format(model)).get("options")
        stored = options.get("split_map") if isinstance(options, dict) else None
        joined |= {str(name): str(part) for name, part in (stored or {}).items()}
    return joined


def parse_split_map(texts: Sequence[str]) -> dict[str, str]:
    """Parse the values of --split-map; raise ConfigError for a text that is not NAME=PART."""
    parsed: dict[str, str] = {}
    for text in texts:
        name, _, part = (word.strip() for word in text.rpartition("="))
        if not name or not part:
            raise ConfigError(f"--split-map {text!r} is invalid, expected NAME=PART")
        parsed[name] = part
    return parsed


def print_label_candidates(data: Dataset, use: str) -> None:
    """Print one line for each probable label column, unless labels were read.

    ``use`` says what --label-column changes, for example "trains on it".
    """
    if data.label_column is None:
        for name, count in label_candidates(data).items():
            values = "1 value" if count == 1 else f"{count:,} values"
            info(f"column {name} ({values}) is stored as a field; --label-column {name} {use}")


def backbone_options(default: str | None) -> Decorator:
    """Return a decorator that adds --image-backbone, --text-backbone and --trust-remote-code.

    With ``default`` None the options replace the paths in an encoder's configuration.
    """

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option(
            "--trust-remote-code",
            is_flag=True,
            help="Run Python code that belongs to the backbones; without it, none is run.",
        )(command)
        for modality, built_in in (("text", "words"), ("image", "small-cnn")):
            help_ = f"Name or local path of a model, or {built_in}."
            if default is None:
                help_ = f"Name or path of the {modality} backbone, if it was moved."
            command = click.option(
                f"--{modality}-backbone",
                default=default,
                show_default=default is not None,
                metavar="NAME|PATH",
                help=help_,
            )(command)
        return command

    return add
