"""Output of the commands: results, progress, tables, errors.

Every command prints through this module. Results go to standard output, everything else to standard
error. Data is printed literally: markup is not interpreted, control characters are escaped, and
characters that the encoding of the stream lacks are replaced.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

from rich import progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.escapes import CONTROL, escape_controls

STATUS_DELAY = 2.0
"""Seconds after which an operation without a progress bar is shown."""
STATUS_PERIOD = 60.0
"""Seconds between the lines about a job where no bars are shown."""
LOADING = "loading"
"""Description of the time before the first job of progress bars."""
FILE_WIDTH = 160
"""Width of tables that are not printed to a terminal, in characters."""


def print_error(message: str) -> None:
    """Print an error on standard error."""
    _print(f"xmodal: {message}", sys.stderr)


def info(message: str = "") -> None:
    """Print a line about progress on standard error, unless the command is quiet."""
    if not _is_quiet():
        _print(message, sys.stderr)


def print_line(text: object = "") -> None:
    """Print a line of the result on standard output."""
    _print(str(text), sys.stdout)


def print_json(content: Any, indent: int | None = None) -> None:
    """Print the result as JSON on standard output, as ASCII if the output is not Unicode."""
    unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(content, ensure_ascii=not unicode, indent=indent)
    text = CONTROL.sub(_json_escape, text)
    _write(text, sys.stdout)


def print_table(
    rows: Sequence[Sequence[str]], title: str = "", wrapped: Sequence[str] = ()
) -> None:
    """Print a table on standard output; the first row is the header.

    ``wrapped``: columns that continue on the next line if they are too wide for the terminal.
    Neither markup nor emoji codes in cells are interpreted.
    """
    header, *body = ([Text(escape_controls(cell)) for cell in row] for row in rows)
    heading = Text(escape_controls(title)) if title else None
    table = Table(title=heading, title_justify="left", box=None, pad_edge=False)
    for column, name in enumerate(header):
        wraps = name.plain in wrapped
        left = column == 0 or wraps
        table.add_column(
            name,
            justify="left" if left else "right",
            no_wrap=not left,
            overflow="fold" if wraps else "ellipsis",
        )
    for row in body:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else FILE_WIDTH
    _Console(width=width, file=_replacing(sys.stdout)).print(table)


def print_picture(picture: str | Text) -> None:
    """Print a picture on standard output, a terminal: an escape sequence, or coloured characters.

    Nothing is printed if the encoding of the terminal lacks the characters.
    """
    if isinstance(picture, str):
        _write(picture, sys.stdout)
        return
    with suppress(UnicodeEncodeError, LookupError):
        picture.plain.encode(sys.stdout.encoding or "ascii")
        _Console(file=_replacing(sys.stdout)).print(picture, no_wrap=True, crop=True)


class OutputClosed(Exception):
    """The reader of standard output has closed it, as ``head`` does.

    Not an OSError: click exits with 1 at a BrokenPipeError, which here means "no match".
    """


class _Console(Console):
    """A console that raises OutputClosed."""

    def on_broken_pipe(self) -> None:
        """Raise OutputClosed instead of exiting; print no more on standard error."""
        if not self.stderr:
            raise OutputClosed from None
        self.quiet = True


def print_tables(
    tables: Sequence[tuple[str, Sequence[Sequence[str]]]], notes: Sequence[str]
) -> None:
    """Print titles with their tables, and lines of notes, on standard output."""
    for title, rows in tables:
        print_table(rows, title)
        print_line()
    for line in notes:
        print_line(line)


def print_problems(problems: Problems) -> None:
    """Print items that could not be used, with counts and names, on standard error."""
    for line in problems.summary_lines():
        info(f"  {line}")


def print_strategy(uri: str, index: object) -> None:
    """Print the search strategy of an index on a server, on standard error."""
    scheme, separator, _ = uri.partition("://")
    if separator and scheme != "file":
        info(f"{uri}: {index!r}")


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Show one progress bar per job on standard error, and before the first one that models load.

    If standard error is no terminal, a line is printed for each job of more than two seconds, and
    then every minute. A total of 0 is unknown.
    """
    console = _Console(stderr=True)
    columns = (
        progress.TextColumn("{task.description:>9}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        _Rate(),
        progress.TimeRemainingColumn(),
    )
    disabled = not console.is_terminal or _is_quiet()
    with (
        progress.Progress(*columns, console=console, transient=True, disable=disabled) as bars,
        _delayed(lambda: info(f"{LOADING} models"), disabled) as stop_waiting,
    ):
        tasks: dict[str, progress.TaskID] = {LOADING: bars.add_task(LOADING, total=None)}
        started: dict[str, float] = {}
        shown: dict[str, float] = {}

        def update(job: str, done: int, total: int) -> None:
            now = time.monotonic()
            if job not in tasks:
                stop_waiting()
                bars.update(tasks[LOADING], visible=False)
                tasks[job] = bars.add_task(job, total=total or None)
                started[job], shown[job] = now, now + STATUS_DELAY
            bars.update(tasks[job], completed=done, total=total or None)
            if now > shown[job]:
                shown[job] = now + STATUS_PERIOD
                if disabled and (done < total or not total):
                    info(f"{job}: {_state(done, total, now - started[job])}")

        yield update


class _Rate(progress.ProgressColumn):
    """Steps per second."""

    def render(self, task: progress.Task) -> Text:
        """Return the rate of a task."""
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


def _state(done: int, total: int, seconds: float) -> str:
    """Return the steps done, and after a while the rate and the time left; ``total`` may be 0."""
    text = f"{done:,} of {total:,}" if total else f"{done:,}"
    if seconds < STATUS_PERIOD or not done:
        return text
    rate = done / seconds
    left = f", {timedelta(seconds=round((total - done) / rate))} left" if total else ""
    return f"{text} ({rate:,.0f}/s{left})"


@contextmanager
def status(message: str) -> Iterator[None]:
    """Print ``message`` on standard error if the block takes more than two seconds.

    A terminal shows it with a spinner and removes it at the end of the block.
    """
    console = _Console(stderr=True)
    spinner = console.status(Text(escape_controls(message)))
    show = spinner.start if console.is_terminal else lambda: info(message)
    with _delayed(show, not _is_quiet()) as stop_waiting:
        try:
            yield
        finally:
            stop_waiting()
            spinner.stop()


@contextmanager
def _delayed(show: Callable[[], None], enabled: bool = True) -> Iterator[Callable[[], None]]:
    """Call ``show`` after two seconds, unless the block ends or the yielded function is called."""
    timer = threading.Timer(STATUS_DELAY, show)
    timer.daemon = True
    if enabled:
        timer.start()

    def stop() -> None:
        timer.cancel()
        if enabled:
            timer.join()

    try:
        yield stop
    finally:
        stop()


class _Printer(logging.Handler):
    """Prints messages of the library, such as downloads, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        _print(record.getMessage(), sys.stderr)


def print_log() -> None:
    """Print the messages that the library logs, from level INFO."""
    log = logging.getLogger("xmodal")
    if not any(isinstance(handler, _Printer) for handler in log.handlers):
        log.addHandler(_Printer())
    log.setLevel(logging.INFO)


def change_verbosity(step: int) -> None:
    """Print more of the log (1: also DEBUG) or less (-1: warnings, and no lines of ``info``)."""
    log = logging.getLogger("xmodal")
    log.setLevel(log.level - 10 * step)


def _is_quiet() -> bool:
    return logging.getLogger("xmodal").level > logging.INFO


def shown_path(path: str) -> str:
    """Return a path relative to the current folder if it is below it, else unchanged."""
    folder = os.path.join(os.getcwd(), "")
    return path.removeprefix(folder) or path


def runnable(name: str) -> str:
    """Return what the user must type to run the command ``name`` of this installation.

    This is the name alone if PATH finds this installation, else the path of the file beside the
    running command or its Python.
    """
    running = (Path(sys.argv[0]), Path(sys.executable))
    candidates = (shutil.which(name, path=str(program.parent)) for program in running)
    own = next((path for path in candidates if path is not None), None)
    on_path = shutil.which(name)
    if own is None or (on_path is not None and os.path.samefile(own, on_path)):
        return name
    return shlex.quote(own)


def _print(text: str, stream: TextIO) -> None:
    # Line breaks are kept: some errors and curl commands have several lines.
    _write(escape_controls(text, keep="\n\t"), stream)


def _write(text: str, stream: TextIO) -> None:
    """Print a line at once; raise OutputClosed if the reader of standard output has closed it.

    Messages on standard error that cannot be written are lost: the command goes on.
    """
    try:
        print(text, file=_replacing(stream), flush=True)
    except OSError as error:
        if stream is sys.stderr:
            return
        if isinstance(error, BrokenPipeError):
            raise OutputClosed from None
        raise OSError(error.errno, error.strerror, "standard output") from None


def _json_escape(match: re.Match[str]) -> str:
    # json.dumps escapes C0 inside of strings; the remaining line breaks are indentation.
    return "\n" if match[0] == "\n" else rf"\u{ord(match[0]):04x}"


def _replacing(stream: TextIO) -> TextIO:
    """Return the stream, configured to replace characters that its encoding lacks."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors="replace")
    return stream
