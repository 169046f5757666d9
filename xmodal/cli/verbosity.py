"""Options -v and -q of every command."""

from __future__ import annotations

from typing import Any

import click

from xmodal.cli.output import change_verbosity


def add_verbosity(command: click.Command) -> None:
    """Add -v and -q to a command."""
    for names, step, help_ in (
        (("-v", "--verbose"), 1, "Print what is loaded and how long it takes."),
        (("-q", "--quiet"), -1, "Print results and errors alone."),
    ):
        command.params.append(
            click.Option(
                names, is_flag=True, expose_value=False, callback=_changing(step), help=help_
            )
        )


def _changing(step: int) -> Any:
    def change(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value and not context.resilient_parsing:
            change_verbosity(step)

    return change
