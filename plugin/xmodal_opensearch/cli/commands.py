"""The group of all commands."""

from __future__ import annotations

import click

from xmodal import __version__
from xmodal.cli.commands import PROGRAM as XMODAL
from xmodal.cli.option_sources import read_settings
from xmodal.cli.program import Program
from xmodal.cli.verbosity import add_verbosity
from xmodal_opensearch.cli.config import config
from xmodal_opensearch.cli.connect import connect, disconnect
from xmodal_opensearch.cli.create import create, delete
from xmodal_opensearch.cli.demo import demo
from xmodal_opensearch.cli.doctor import doctor
from xmodal_opensearch.cli.enrich import enrich
from xmodal_opensearch.cli.load import load
from xmodal_opensearch.cli.node import node
from xmodal_opensearch.cli.plugin import plugin
from xmodal_opensearch.cli.roles import roles

SHARED = (
    *("model", "image-backbone", "text-backbone", "json", "verbose", "quiet"),
    *("image-column", "text-column", "label-column", "id-column", "split-column"),
    *("images", "columns", "separator", "encoding", "labels-from"),
)
"""Options that mean the same in xmodal. --index is left out: here it is the address of a server,
there often a folder, and a load copies from one to the other."""
FOLDER_OPTIONS = (
    *SHARED,
    *("bits", "field", "image-field", "text-field", "cache", "no-cache"),
    *("workers", "processes", "docs-per-second"),
)
"""Options that the file of a folder, which may come from elsewhere, sets: how data are read and
encoded, and how fast. Others name servers, programs or files of secrets, change a cluster, or
delete."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="xmodal-opensearch")
@click.pass_context
def commands(context: click.Context) -> None:
    """Create, fill, connect and check indexes of binary codes in OpenSearch.

    The address of an index is opensearch://host:9200/name, with TLS except on localhost.
    Credentials are read from XMODAL_OPENSEARCH_USER and XMODAL_OPENSEARCH_PASSWORD, or
    XMODAL_OPENSEARCH_PASSWORD_FILE.

    \b
    Example:
      xmodal-opensearch node
      xmodal-opensearch load my.index --index opensearch://localhost:9200/photos
      xmodal search "red shoes" --model my.model --index opensearch://localhost:9200/photos
    """
    read_settings(context, PROGRAM, XMODAL)


COMMANDS = (
    *(node, create, load, enrich, connect, disconnect, doctor, delete, roles, demo, plugin),
    config,
)
for command in COMMANDS:
    for one in command.commands.values() if isinstance(command, click.Group) else (command,):
        add_verbosity(one)
    commands.add_command(command)
PROGRAM = Program(commands, "opensearch", SHARED, FOLDER_OPTIONS)
PROGRAM.add_environment()
