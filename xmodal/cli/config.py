"""The command xmodal config."""

from __future__ import annotations

from pathlib import Path

import click

from xmodal.cli.option_sources import FILE, files, option_values
from xmodal.cli.options import json_option
from xmodal.cli.output import info, print_json, print_table
from xmodal.errors import ConfigError


@click.command()
@click.argument("command", required=False)
@json_option
@click.pass_context
def config(context: click.Context, command: str | None, as_json: bool) -> None:
    """Show the options of COMMAND, and where their values come from.

    Without COMMAND, the options of all commands that the environment or a file sets. A value comes
    from the command line, else from $XMODAL_COMMAND_OPTION, else from $XMODAL_OPTION, else from
    xmodal.toml in the working directory or the nearest folder above it, else from the user's
    xmodal.toml. In a file, options of one command are in a table: [search]. The options of
    xmodal-opensearch are in the table [opensearch]: xmodal-opensearch config.

    \b
    Example:
      xmodal config search
      xmodal config
    """
    print_options(context, command, as_json=as_json)


def print_options(context: click.Context, command: str | None, *, as_json: bool) -> None:
    """Print options and where their values come from.

    ``context``: of a command in the group of all commands. ``command``: None for those options of
    all commands that are set. Raises ConfigError for an unknown command.
    """
    group = context.parent
    assert group is not None and isinstance(group.command, click.Group)
    commands = group.command.commands
    if command is not None and command not in commands:
        raise ConfigError(f"there is no command {command!r}, expected one of {', '.join(commands)}")
    names = sorted(commands) if command is None else [command]
    values = {
        name: [
            one
            for one in option_values(group, commands[name])
            if command is not None or one["source"] != "default"
        ]
        for name in names
    }
    paths = [str(path) for path in files(Path.cwd())]
    if as_json:
        print_json({"files": paths, "commands": {k: v for k, v in values.items() if v}})
        return
    info(f"files: {', '.join(paths)}" if paths else f"there is no {FILE}")
    rows = [
        [name, one["option"], _shown(one["value"]), one["source"]]
        for name, each in values.items()
        for one in each
    ]
    if rows:
        print_table([["command", "option", "value", "source"], *rows], wrapped=("value", "source"))


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
