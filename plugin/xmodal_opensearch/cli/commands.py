"""The group of all commands."""

from __future__ import annotations

import click

from xmodal import __version__
from xmodal_opensearch.cli.connect import connect, disconnect
from xmodal_opensearch.cli.create import create, delete
from xmodal_opensearch.cli.demo import demo
from xmodal_opensearch.cli.doctor import doctor
from xmodal_opensearch.cli.enrich import enrich
from xmodal_opensearch.cli.load import load
from xmodal_opensearch.cli.node import node
from xmodal_opensearch.cli.plugin import plugin
from xmodal_opensearch.cli.roles import roles


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="xmodal-opensearch")
def commands() -> None:
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


for command in (
    *(node, create, load, enrich, connect, disconnect, doctor, delete, roles, demo, plugin),
):
    commands.add_command(command)
