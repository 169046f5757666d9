"""Programs whose options may also come from variables and files, and the options that may not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import click

PREFIX = "XMODAL"
TABLES = ("opensearch",)
"""Tables of other programs in a file: ``xmodal`` does not check their content."""
COMMAND_LINE_ONLY = ("trust-remote-code", "undo", "yes")
"""Options that neither a file nor the environment sets."""
DELETING = "delete"
"""A command for which they set only OUTPUT: the command line alone says what is deleted."""
OUTPUT = ("json", "verbose", "quiet")
USER_ONLY = (
    *("host", "allow-host", "allow-pictures-from", "proxy-headers", "pictures"),
    *("token-file", "tls-cert", "tls-key", "address", "hub", "prune", "restart"),
)
"""Options of ``xmodal`` that only the user's file sets, because a folder may come from elsewhere:
who reaches a service, what is published, what is deleted or replaced. An address of a server is
another one, because it gets the user's password."""
OWN_VARIABLE_ONLY = ("cache", "host", "port")
"""Options without a variable for all commands: ``XMODAL_CACHE`` is the folder of all caches, and
Kubernetes sets ``XMODAL_PORT`` to an address in the containers beside a service called xmodal."""


def option_name(option: click.Option) -> str:
    """Return the longest name of an option without dashes: "max-distance", "k"."""
    return max(option.opts, key=len).lstrip("-")


def all_options(command: click.Command) -> dict[str, click.Option]:
    """Return the options of a command that its help shows, by name."""
    found = (one for one in command.params if isinstance(one, click.Option) and not one.hidden)
    return {option_name(one): one for one in found}


def settable_options(command: click.Command) -> dict[str, click.Option]:
    """Return the options of a command that a file or the environment may set, by name."""
    return {
        name: option
        for name, option in all_options(command).items()
        if name not in COMMAND_LINE_ONLY and (command.name != DELETING or name in OUTPUT)
    }


@dataclass(frozen=True)
class Program:
    """A program, with the place of its options in files and in variables.

    ``table``: the table of a file that has its options, "" for the top of the file. ``shared``:
    options of a program with a table that also take the values of ``xmodal``: ``XMODAL_OPTION`` and
    the top of the file. ``folder_options``: options that the file of a folder may set; None: all
    but USER_ONLY. Groups of commands in ``group`` have no settable options.
    """

    group: click.Group
    table: str = ""
    shared: Collection[str] = ()
    folder_options: Collection[str] | None = None

    @property
    def name(self) -> str:
        """The name of the program on the command line."""
        return f"xmodal-{self.table}" if self.table else "xmodal"

    @cached_property
    def commands(self) -> dict[str, click.Command]:
        """The commands, by name."""
        commands = self.group.commands.items()
        return {name: one for name, one in commands if not isinstance(one, click.Group)}

    @cached_property
    def options(self) -> dict[str, dict[str, click.Option]]:
        """The options that a file or the environment may set, by command and name."""
        return {name: settable_options(command) for name, command in self.commands.items()}

    def of_command_line(self, command: str | None = None) -> set[str]:
        """Return the options that only the command line sets, of one command or of all."""
        names = self.commands if command is None else [command]
        return {
            option
            for name in names
            for option in all_options(self.commands[name]).keys() - self.options[name].keys()
        }

    def place(self, command: str | None = None) -> str:
        """Return the table of a command, or of all commands, as messages name it: "[search] "."""
        words = ".".join(word for word in (self.table, command) if word)
        return f"[{words}] " if words else ""

    def accepts_from_folders(self, option: str) -> bool:
        """Whether the file of a folder may set an option."""
        if self.folder_options is None:
            return option not in USER_ONLY
        return option in self.folder_options

    def variables(self, command: str, option: str) -> list[str]:
        """Return the variables of an option of a command, the first one that is set counts."""
        prefixes = [PREFIX, self.table] if self.table else [PREFIX]
        names = [(*prefixes, command, option)]
        if option not in OWN_VARIABLE_ONLY:
            names.append((*prefixes, option))
            if option in self.shared:
                names.append((PREFIX, option))
        return ["_".join(words).upper().replace("-", "_") for words in names]

    def add_environment(self) -> None:
        """Let the options of all commands be set by variables of the environment."""
        for command, options in self.options.items():
            for name, option in options.items():
                option.envvar = self.variables(command, name)
