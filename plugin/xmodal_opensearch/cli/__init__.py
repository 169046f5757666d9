"""The command line ``xmodal-opensearch``: parses arguments and prints results."""

from __future__ import annotations

import sys

import click

from xmodal.cli.exit import run
from xmodal.errors import require


def main() -> None:
    """Run the command line; the entry point of the script."""
    run(_commands)


def _commands() -> click.Group:
    try:
        from xmodal_opensearch.cli.commands import commands
    except ModuleNotFoundError:
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        extras = {"node": ["node"], "demo": ["torch", "node"]}.get(command, ["opensearch"])
        require(f"xmodal-opensearch {command}".rstrip(), *extras)
        raise
    return commands
