"""Exit of a command: errors that the user can correct are one line, without a stack trace.

Exit status: 0, also if the reader of the output closes it; 1 for a search without a match, 2 for an
error, 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

import click
from PIL import Image

from xmodal.cli.output import OutputClosed, print_error, print_log
from xmodal.errors import XmodalError, missing_extra


def run(commands: Callable[[], click.Group]) -> NoReturn:
    """Run the command that ``sys.argv`` names and exit; ``commands`` imports the commands."""
    # Pictures with too many pixels are reported as problems of the data.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    print_log()
    try:
        status = commands().main(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "xmodal"
        print_error(f"{error.format_message().replace('. (', ' (').rstrip('.')}: {command} --help")
        sys.exit(2)
    except click.ClickException as error:
        print_error(error.format_message())
        sys.exit(2)
    except XmodalError as error:
        print_error(str(error))
        sys.exit(2)
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        print_error(str(missing))
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        print_error("stopped; run the same command again to continue")
        sys.exit(130)
    except OutputClosed:
        # Python flushes the output again at exit, which would fail with another status.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # full disk, missing permission
        print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(2)
