"""How things are shown to a person: progress, tables, problems, one-line errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from xmodal.data.dataset import Problems

Show = Callable[[str, int, int], None]


def print_error(message: str) -> None:
    """One line on standard error."""
    click.echo(f"xmodal: {message}", err=True)


def info(message: str = "") -> None:
    """One line on standard error: what is going on, not the answer."""
    click.echo(message, err=True)


def print_problems(problems: Problems) -> None:
    """What could not be used, counted and named."""
    for line in problems.lines():
        info(f"  {line}")


def print_strategy(uri: str, index: object) -> None:
    """How a server's index is searched: it was chosen for the caller, so the caller is told."""
    if hasattr(index, "way"):
        info(f"{uri}: {index!r}")


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
    info(f"epoch {epoch:>3}/{epochs}  {shown}  ({figures['seconds']:.1f} s)")


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
