"""How things are shown to a person: progress, tables, problems, one-line errors."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from xmodal.data import Problems
from xmodal.readers import Columns

Show = Callable[[str, int, int], None]
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


def complain(message: str) -> None:
    """One line on standard error."""
    click.echo(f"xmodal: {message}", err=True)


def say(message: str = "") -> None:
    """One line on standard error: what is going on, not the answer."""
    click.echo(message, err=True)


def runnable(name: str) -> str:
    """The word by which the caller's shell starts the command ``name`` of this installation.

    That is the name alone if PATH leads to this installation, else the file beside the command that
    runs now, or beside its Python.
    """
    running = (Path(sys.argv[0]), Path(sys.executable))
    beside = (shutil.which(name, path=str(one.parent)) for one in running)
    own = next((found for found in beside if found is not None), None)
    on_path = shutil.which(name)
    if own is None or (on_path is not None and os.path.samefile(own, on_path)):
        return name
    return shlex.quote(own)


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
        TextColumn("{task.description:>9}"),
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
    """A table on standard output; plain text if that is not a terminal."""
    header, *body = rows
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place == 0 else "right", no_wrap=place > 0)
    for row in body:
        table.add_row(*row)
    wide = None if sys.stdout.isatty() else 160
    Console(width=wide).print(table)
