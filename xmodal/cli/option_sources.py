"""Options that are not on the command line: environment variables and the files xmodal.toml.

A value comes from the first of: the command line, ``XMODAL_COMMAND_OPTION``, ``XMODAL_OPTION``, the
table ``[command]`` of a file, the top of this file, the default. The file of the working directory,
or of the nearest folder above it, comes before that of the user.

For ``xmodal-opensearch`` these are ``XMODAL_OPENSEARCH_COMMAND_OPTION``,
``XMODAL_OPENSEARCH_OPTION``, ``[opensearch.command]`` and ``[opensearch]``; some options also take
``XMODAL_OPTION`` and the top of the file, see :class:`xmodal.cli.program.Program`.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from xmodal.cli.output import info
from xmodal.cli.program import TABLES, Program, option_name, settable_options
from xmodal.data.remote import is_remote
from xmodal.errors import ConfigError
from xmodal.operating_system import owned_by_this_user

FILE = "xmodal.toml"
MAX_BYTES = 1_000_000
"""Largest size of a file."""
ADDRESSES = ("--index",)
"""Options whose value is a path unless it has a scheme: ``opensearch://``."""
_SOURCES = "xmodal.option_sources"


@dataclass(frozen=True)
class Setting:
    """Value of an option in a file, in the form that click converts."""

    value: Any
    path: Path


Settings = dict[str, dict[str, Setting]]
"""By command and parameter name of click."""


def read_settings(context: click.Context, program: Program, top: Program | None = None) -> None:
    """Make the values of the files the defaults of the context, and remember their files.

    ``top``: the program of the top of files, if it is another one. Raises ConfigError for a file
    that cannot be used, an unknown name or an unusable value.
    """
    settings: Settings = {name: {} for name in program.commands}
    for path in files(Path.cwd()):
        for name, values in _read(path, program, top or program).items():
            settings[name] |= values
    context.default_map = {
        name: {key: one.value for key, one in values.items()} for name, values in settings.items()
    }
    context.meta[_SOURCES] = settings
    own = settings.get(context.invoked_subcommand or "", {})
    for path in sorted({one.path for one in own.values()} - {_user_file()}):
        info(f"options from {path}")


def files(folder: Path) -> list[Path]:
    """Return the files that apply in a folder: that of the user, then that of the folder.

    A file of a folder that belongs to another user is left out, with a message.
    """
    found = [path for path in (_user_file(),) if path is not None and path.is_file()]
    local = next((one / FILE for one in (folder, *folder.parents) if (one / FILE).is_file()), None)
    if local is not None and local not in found:
        if _is_own(local):
            found.append(local)
        else:
            info(f"{local} belongs to another user and is not used")
    return found


def _user_file() -> Path | None:
    """Return the path of the user's file; None for a user without a home folder."""
    from platformdirs import user_config_path

    try:
        return user_config_path("xmodal", appauthor=False) / FILE
    except RuntimeError:
        return None


def _is_own(path: Path) -> bool:
    """Whether a file belongs to the user of this process or to the administrator."""
    return owned_by_this_user(path.stat())


def _read(path: Path, program: Program, top: Program) -> Settings:
    """Return what a file sets for a program. Raises ConfigError."""
    content = _parse(path)
    tables = {name: content.pop(name) for name in TABLES if isinstance(content.get(name), dict)}
    found = _values(content, top, path)
    if program is top:
        return found
    shared = {key: value for key, value in content.items() if _name(key) in program.shared}
    return _values(shared | tables.get(program.table, {}), program, path)


def _values(content: Mapping[str, Any], program: Program, path: Path) -> Settings:
    """Return what a table, or the top of a file, sets for a program. Raises ConfigError."""
    options = program.options
    every = {option for each in options.values() for option in each}
    similar = [*every, *options, *(() if program.table else TABLES)]
    found: Settings = {name: {} for name in options}
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    for key, value in content.items():
        if key in tables:
            continue
        option = _known(key, every, path, similar, program)
        for name, each in options.items():
            if option in each:
                found[name][str(each[option].name)] = _setting(each[option], value, path, program)
    for name, table in tables.items():
        command = _known(name, options, path, similar, program)
        each = options[command]
        for key, value in table.items():
            parameter = each[_known(key, each, path, each, program, command)]
            found[command][str(parameter.name)] = _setting(parameter, value, path, program)
    return found


def _parse(path: Path) -> dict[str, Any]:
    """Return the content of a file. Raises ConfigError."""
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path} has more than {MAX_BYTES:,} bytes, expected a file of settings")
    try:
        return tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read ({reason}): expected TOML in UTF-8") from None


def _name(key: str) -> str:
    return key.replace("_", "-")


def _known(
    key: str,
    names: Collection[str],
    path: Path,
    similar: Iterable[str],
    program: Program,
    command: str | None = None,
) -> str:
    """Return the name of an option or command; raise ConfigError with the nearest one.

    ``command``: whose table has the key; None for the table of the program.
    """
    name, place = _name(key), program.place(command)
    if name in names:
        return name
    if name in program.of_command_line(command):
        raise ConfigError(f"{path}: {place}{key} is only accepted on the command line: --{name}")
    near = difflib.get_close_matches(name, list(similar), 1, 0.5)
    hint = f", did you mean {near[0]}?" if near else f": {program.name} config lists the names"
    raise ConfigError(f"{path}: {place}{key!r} is neither an option nor a command{hint}")


def _setting(option: click.Option, value: Any, path: Path, program: Program) -> Setting:
    """Return the value of an option; paths begin at the folder of the file. Raises ConfigError."""
    accepted = program.accepts_from_folders(option_name(option)) and not _is_server(option, value)
    if path != _user_file() and not accepted:
        raise ConfigError(
            f"{path}: {option_name(option)} = {value!r} is not accepted from the file of a folder, "
            "which may come from elsewhere: use the command line, the environment or the user's "
            f"{FILE} ({program.name} config --help)"
        )
    is_list = isinstance(value, list)
    values = value if is_list else [value]
    if (
        any(isinstance(one, list | dict) for one in values)
        or any(isinstance(one, bool) != option.is_flag for one in values)
        or (is_list and not option.multiple)
    ):
        expected = "true or false" if option.is_flag else "one value"
        more = ", or a list of values" if option.multiple else ""
        raise ConfigError(f"{path}: {option_name(option)} is {value!r}, expected {expected}{more}")
    texts = [one if isinstance(one, bool) else _located(option, str(one), path) for one in values]
    return Setting(texts if option.multiple else texts[0], path)


def _is_server(option: click.Option, value: Any) -> bool:
    """Whether a value is the address of an index on a server, or of data on other machines."""
    texts = list(map(str, value)) if isinstance(value, list) else [str(value)]
    if any(name in ADDRESSES for name in option.opts):
        return any("://" in text and not text.startswith("file://") for text in texts)
    return any(map(is_remote, texts))


def _located(option: click.Option, value: str, path: Path) -> str:
    """Return a value; a relative path begins at the folder of the file."""
    is_path = isinstance(option.type, click.Path) or any(name in ADDRESSES for name in option.opts)
    relative = is_path or value.startswith(("./", "../"))
    return str(path.parent / value) if relative and "://" not in value else value


def source_of_value(context: click.Context, parameter: click.Parameter) -> str | None:
    """Return the variable or the file that an option has its value from; None for others."""
    source = context.get_parameter_source(str(parameter.name))
    if source is ParameterSource.ENVIRONMENT:
        names = parameter.envvar
        listed = [names] if isinstance(names, str) else list(names or ())
        return next((f"${name}" for name in listed if os.environ.get(name)), None)
    if source is ParameterSource.DEFAULT_MAP:
        settings: Settings = context.meta.get(_SOURCES, {})
        setting = settings.get(str(context.info_name), {}).get(str(parameter.name))
        return None if setting is None else str(setting.path)
    return None


def on_command_line(name: str) -> bool:
    """Whether the running command has an option, by parameter name, from the command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source is ParameterSource.COMMANDLINE


def alternatives(**values: Any) -> dict[str, Any]:
    """Return options of which one is expected, by parameter name.

    If one is on the command line, those of files and variables are None.
    """
    given = [name for name in values if on_command_line(name)]
    return {name: value if name in (given or values) else None for name, value in values.items()}


def option_values(context: click.Context, command: click.Command) -> Iterator[Mapping[str, Any]]:
    """Yield option, value and source of the options of a command that is called without any.

    ``context``: of the group. The source is a variable, a file, or "default".
    """
    own = click.Context(command, parent=context, info_name=command.name)
    for name, option in sorted(settable_options(command).items()):
        value, source = option.consume_value(own, {})
        own.set_parameter_source(str(option.name), source)
        found = source_of_value(own, option)
        if found is None:
            value = option.get_default(own)
            value = value if isinstance(value, str | int | float | tuple | list | Path) else None
        if isinstance(value, tuple | list):
            value = [str(one) for one in value]
        elif isinstance(value, Path):
            value = str(value)
        yield {"option": name, "value": value, "source": found or "default"}
