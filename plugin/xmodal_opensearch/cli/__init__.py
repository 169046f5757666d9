"""The command line of the OpenSearch half: parsing of arguments and printing, nothing else."""

from __future__ import annotations

import sys

import click

from xmodal.cli.exit import run
from xmodal.errors import require


def main() -> None:
    """Entry point."""
    run(_commands)


def _commands() -> click.Group:
    try:
        from xmodal_opensearch.cli.commands import commands
    except ModuleNotFoundError:
        named = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        extras = {"node": ["node"], "demo": ["torch", "node"]}.get(named, ["opensearch"])
        require(f"xmodal-opensearch {named}".rstrip(), *extras)
        raise
    return commands
