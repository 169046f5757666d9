"""Exit of a command: errors that the user can correct are one line, without a stack trace.

Exit status: 0, also if the reader of the output closes it; 1 for a search without a match, 2 for an
error, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click
from PIL import Image

from xmodal.cli.option_sources import source_of_value
from xmodal.cli.output import OutputClosed, print_error, print_log
from xmodal.cli.start import TOO_LITTLE_MEMORY
from xmodal.errors import XmodalError, causes, is_out_of_memory, missing_extra

ADVICE = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        "free space and run the same command again; files that were there are unchanged",
    ),
    errno.EMFILE: "raise the limit (ulimit -n)",
    errno.ENFILE: "end other programs",
}
"""What to do about an error of the system."""
STOPPED = "stopped; run the same command again to continue"


class _Terminated(BaseException):
    """The process got a signal that ends it; ``number`` of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(commands: Callable[[], click.Group]) -> NoReturn:
    """Run the command that ``sys.argv`` names and exit; ``commands`` imports the commands."""
    # Pictures with too many pixels are reported as problems of the data.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    print_log()
    try:
        with _ending_by_signals():
            status = _status_of(commands)
    except (KeyboardInterrupt, click.Abort):
        print_error(STOPPED)
        status = 130
    except _Terminated as error:
        print_error(STOPPED)
        status = 128 + error.number
    except OutputClosed:
        status = 0
    except Exception as error:
        message = error_line(error)
        if message is None:
            traceback.print_exc()
        else:
            print_error(message)
        status = 2
    _flush()
    sys.exit(status)


def _status_of(commands: Callable[[], click.Group]) -> int:
    """Run a command and return its exit status."""
    try:
        status = commands().main(standalone_mode=False)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except SystemExit as exit_:
        if exit_.code == 1:  # click, for help that its reader closed; no command exits so
            raise OutputClosed from None
        raise
    return status if isinstance(status, int) else 0


def error_line(error: Exception) -> str | None:
    """Return the line that is printed for an error, None for an error of the program."""
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "xmodal"
        message = error.format_message().replace(". (", " (").rstrip(".")
        return f"{message}{_origin(error)}: {command} --help"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, XmodalError):
        return str(error)
    if is_out_of_memory(error):
        return TOO_LITTLE_MEMORY
    if isinstance(error, ModuleNotFoundError):
        missing = missing_extra(error)
        return None if missing is None else str(missing)
    fault = next((one for one in causes(error) if isinstance(one, OSError)), None)
    return None if fault is None else _fault_line(fault)


def _origin(error: click.UsageError) -> str:
    """Return the variable or file of an invalid value of an option, in brackets."""
    if not isinstance(error, click.BadParameter) or error.ctx is None or error.param is None:
        return ""
    source = source_of_value(error.ctx, error.param)
    return "" if source is None else f" (from {source})"


def _fault_line(error: OSError) -> str:
    """Return the line of an error of the system: file, reason, advice."""
    if error.errno == errno.ENOENT and not _has_working_folder():
        return "the working folder was removed: change to another one"
    if error.errno is None:
        return " ".join(str(error).split())
    reason = os.strerror(error.errno) if error.errno in ADVICE else error.strerror
    name = error.filename or ("standard output" if error.errno == errno.EBADF else None)
    parts = (name, reason, ADVICE.get(error.errno))
    return ": ".join(str(part) for part in parts if part)


def _has_working_folder() -> bool:
    try:
        return bool(os.getcwd())
    except OSError:
        return False


@contextmanager
def _ending_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the command like Ctrl-C, so that temporary files are removed."""
    numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only the main thread may set them
    changed = [n for n in numbers if n is not None and signal.getsignal(n) == signal.SIG_DFL]
    for number in changed:
        signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


def _terminate(number: int, frame: Any) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
    raise _Terminated(number)


def _flush() -> None:
    """Flush the standard streams; Python flushes them again at exit, which must not fail."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
