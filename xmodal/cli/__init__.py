"""The command line: parsing of arguments and printing, nothing else.

Exit status: 0, or 1 if nothing was found, 2 for a mistake in what was asked, 130 if stopped.
"""

from __future__ import annotations

import sys
import warnings

import click
from PIL import Image

from xmodal import __version__
from xmodal.cli.encode import encode
from xmodal.cli.evaluate import evaluate
from xmodal.cli.index import index
from xmodal.cli.search import search
from xmodal.cli.show import complain
from xmodal.cli.train import train
from xmodal.cli.world import demo
from xmodal.errors import XmodalError, missing_extra


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="xmodal")
def commands() -> None:
    """Search pictures by words and words by pictures, with learned binary codes.

    \b
    Example:
      xmodal train photos/ --out my.model
      xmodal index photos/ --model my.model --index my.index
      xmodal search "red shoes" --model my.model --index my.index -k 5
    """


for command in (train, encode, index, search, evaluate, demo):
    commands.add_command(command)


def main() -> None:
    """Entry point: errors that a person can mend are one line, not a trace."""
    # Pictures beyond our own limit are counted and named; Pillow's warning would say it again.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    try:
        status = commands.main(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except XmodalError as error:
        complain(str(error))
        sys.exit(2)
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        complain(str(missing))
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        complain("stopped; run the same command again to go on")
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output has left
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:  # a full disk, a folder that may not be written
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(2)
