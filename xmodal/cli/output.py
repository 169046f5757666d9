"""How things are shown to a person: progress, tables, problems, one-line errors.

All output of the commands goes through this module. Data is printed as it is: nothing in it is
markup, control characters are escaped, and characters that the output's encoding lacks are
replaced.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from xmodal.data.dataset import Problems

Show = Callable[[str, int, int], None]
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters: C0, DEL and C1; line separators and changes of the writing direction."""


def print_error(message: str) -> None:
    """One line on standard error."""
    _write(f"xmodal: {message}", sys.stderr)


def info(message: str = "") -> None:
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


def print_problems(problems: Problems) -> None:
    """What could not be used, counted and named."""
    for line in problems.summary_lines():
        info(f"  {line}")


def print_strategy(uri: str, index: object) -> None:
    """Print how the index of a server is searched; a local index has one strategy only."""
    if "://" in uri:
        info(f"{uri}: {index!r}")


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
    info(f"epoch {epoch:>3}/{epochs}  {shown}  ({figures['seconds']:.1f} s)")


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
