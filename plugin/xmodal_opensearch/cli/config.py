"""xmodal-opensearch config"""

from __future__ import annotations

import click

from xmodal.cli.config import print_options
from xmodal.cli.options import json_option


@click.command()
@click.argument("command", required=False)
@json_option
@click.pass_context
def config(context: click.Context, command: str | None, as_json: bool) -> None:
    """Show the options of COMMAND, and where their values come from.

    Without COMMAND, the options of all commands that the environment or a file sets. A value comes
    from the command line, else from $XMODAL_OPENSEARCH_COMMAND_OPTION, else from
    $XMODAL_OPENSEARCH_OPTION, else from xmodal.toml, in which options of one command are in a table
    such as [opensearch.load], and those of all in [opensearch]. Options that mean the same in
    xmodal, such as --model, may also come from its variables, and from the top of xmodal.toml.

    \b
    Example:
      xmodal-opensearch config load
      xmodal-opensearch config
    """
    print_options(context, command, as_json=as_json)
