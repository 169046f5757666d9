"""How a command ends: errors that a person can mend are one line, not a trace.

Exit status: 0, or 1 if nothing was found, 2 for a mistake in what was asked, 130 if stopped.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

import click
from PIL import Image

from xmodal.cli.output import print_error
from xmodal.errors import XmodalError, missing_extra


def run(commands: Callable[[], click.Group]) -> NoReturn:
    """Run the command that the arguments name, of those that ``commands`` imports, and exit."""
    # Pictures beyond our own limit are counted and named; Pillow's warning would say it again.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    try:
        status = commands().main(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
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
        print_error("stopped; run the same command again to go on")
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output has left
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:  # a full disk, a folder that may not be written
        print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(2)
