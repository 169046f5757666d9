"""The group of all commands of ``xmodal``."""

from __future__ import annotations

import click

from xmodal import __version__
from xmodal.cli.check import check
from xmodal.cli.completion import completion
from xmodal.cli.compress import compress
from xmodal.cli.config import config
from xmodal.cli.delete import delete
from xmodal.cli.demo import demo
from xmodal.cli.encode import encode
from xmodal.cli.evaluate import evaluate
from xmodal.cli.export import export
from xmodal.cli.index import index
from xmodal.cli.info import info_command
from xmodal.cli.mcp import mcp
from xmodal.cli.option_sources import read_settings
from xmodal.cli.program import Program
from xmodal.cli.search import search
from xmodal.cli.serve import serve
from xmodal.cli.train import train
from xmodal.cli.verbosity import add_verbosity


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="xmodal")
@click.pass_context
def commands(context: click.Context) -> None:
    """Search pictures by text and texts by pictures, with learned binary codes.

    \b
    Example:
      xmodal train photos/ --out my.model
      xmodal index photos/ --model my.model --index my.index
      xmodal search "red shoes" --model my.model --index my.index -k 5
    """
    read_settings(context, PROGRAM)


COMMANDS = (
    *(train, encode, index, search, delete, info_command, check),
    *(serve, mcp, evaluate, compress, export, demo, config, completion),
)
for command in COMMANDS:
    add_verbosity(command)
    commands.add_command(command)
PROGRAM = Program(commands)
PROGRAM.add_environment()
