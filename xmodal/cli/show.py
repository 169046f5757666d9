"""How things are shown to a person: progress, tables, problems, one-line errors.

All output of the commands goes through this module. Data is printed as it is: nothing in it is
markup, control characters are escaped, and characters that the output's encoding lacks are
replaced.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from xmodal.data import Dataset, Problems
from xmodal.encoder import read_config
from xmodal.errors import ConfigError
from xmodal.readers import Columns, label_candidates, read

Show = Callable[[str, int, int], None]
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters: C0, DEL and C1; line separators and changes of the writing direction."""

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
        say(f"{source} has no column {label}, the label column of the training: no labels are used")
        return dataset
    return read(source, columns)


def _recorded_label_column(model: Path) -> str | None:
    data = read_config(model).get("data")
    column = data.get("label_column") if isinstance(data, dict) else None
    return column if isinstance(column, str) else None


def tell_label_candidates(data: Dataset, use: str) -> None:
    """One line for each column that probably holds labels, unless a label column is used."""
    if data.label_column is None:
        for name, count in label_candidates(data).items():
            values = "1 value" if count == 1 else f"{count:,} values"
            say(f"column {name} ({values}) is stored as a field; --label-column {name} {use}")


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


def complain(message: str) -> None:
    """One line on standard error."""
    _write(f"xmodal: {message}", sys.stderr)


def say(message: str = "") -> None:
    """One line on standard error: what is going on, not the answer."""
    _write(message, sys.stderr)


def print_line(text: object = "") -> None:
    """One line of the answer on standard output."""
    _write(str(text), sys.stdout)


def print_json(content: Any, indent: int | None = None) -> None:
    """The answer as JSON on standard output; pure ASCII if the output has no Unicode encoding."""
    unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(content, ensure_ascii=not unicode, indent=indent)
    text = CONTROL.sub(_json_escape, text)
    print(text, file=_lenient(sys.stdout), flush=True)


def visible(text: str, keep: str = "") -> str:
    """``text`` with control characters written as escapes (ESC as ``\\x1b``), except ``keep``.

    A terminal would obey them: move the cursor, change colours, or reverse the writing direction.
    """

    def escape(found: re.Match[str]) -> str:
        char = found[0]
        return char if char in keep else char.encode("unicode_escape").decode()

    return CONTROL.sub(escape, text)


def _write(text: str, stream: TextIO) -> None:
    # Line breaks stay: some errors and curl commands have several lines.
    print(visible(text, keep="\n\t"), file=_lenient(stream), flush=True)


def _json_escape(found: re.Match[str]) -> str:
    # json.dumps escapes C0 inside of strings; the line breaks that are left are indentation.
    return "\n" if found[0] == "\n" else rf"\u{ord(found[0]):04x}"


def _lenient(stream: TextIO) -> TextIO:
    """The same stream; it replaces characters that its encoding lacks, instead of raising."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors="replace")
    return stream


def tell_problems(problems: Problems) -> None:
    """What could not be used, counted and named."""
    for line in problems.lines():
        say(f"  {line}")


def tell_way(uri: str, index: object) -> None:
    """How a server's index is searched: it was chosen for the caller, so the caller is told."""
    if hasattr(index, "way"):
        say(f"{uri}: {index!r}")


@contextmanager
def progress_bars() -> Iterator[Show]:
    """A bar a job on standard error; none if that is not a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:>9}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    silent = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=silent) as bar:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield show


def epoch_line(epoch: int, epochs: int, figures: Mapping[str, float]) -> None:
    """One line an epoch: losses, validation, seconds."""
    shown = "  ".join(
        f"{name} {value:.3f}" for name, value in figures.items() if name not in ("epoch", "seconds")
    )
    say(f"epoch {epoch:>3}/{epochs}  {shown}  ({figures['seconds']:.1f} s)")


def print_table(rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on standard output; plain text if that is not a terminal.

    Cells are data: neither markup nor emoji codes in them are interpreted.
    """
    header, *body = ([Text(visible(cell)) for cell in row] for row in rows)
    heading = Text(visible(title)) if title else None
    table = Table(title=heading, title_justify="left", box=None, pad_edge=False)
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place == 0 else "right", no_wrap=place > 0)
    for row in body:
        table.add_row(*row)
    wide = None if sys.stdout.isatty() else 160
    Console(width=wide, file=_lenient(sys.stdout)).print(table)
