"""The command line of the OpenSearch half: parsing of arguments and printing, nothing else."""

from __future__ import annotations

import click

from xmodal.cli.exit import run


def main() -> None:
    """Entry point."""
    run(_commands)


def _commands() -> click.Group:
    # Imported here so that a missing extra is one line, like every mistake that a person can mend.
    from xmodal_opensearch.cli.commands import commands

    return commands
