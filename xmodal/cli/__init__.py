"""Command line: parses arguments, calls the library, prints results.

Imports are inside of functions, so that their errors are printed in one line as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from click import Group


def main() -> None:
    """Entry point of ``xmodal``."""
    from xmodal.cli.start import start

    start(_commands)


def _commands() -> Group:
    from xmodal.cli.commands import commands

    return commands
