"""The command line ``xmodal-opensearch``: parses arguments and prints results.

Imports are inside of functions, so that their errors are printed in one line as well.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from click import Group


def main() -> None:
    """Run the command line; the entry point of the script."""
    from xmodal.cli.start import start

    start(_commands)


def _commands() -> Group:
    from xmodal.errors import require

    try:
        from xmodal_opensearch.cli.commands import commands
    except ModuleNotFoundError:
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        extras = {"node": ["node"], "demo": ["torch", "node"]}.get(command, ["opensearch"])
        require(f"xmodal-opensearch {command}".rstrip(), *extras)
        raise
    return commands
