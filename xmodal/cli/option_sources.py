"""Options that are not on the command line: environment variables and the files xmodal.toml.

A value comes from the first of: the command line, ``XMODAL_COMMAND_OPTION``, ``XMODAL_OPTION``, the
table ``[command]`` of a file, the top of this file, the default. The file of the working directory,
or of the nearest folder above it, comes before that of the user.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from xmodal.cli.output import info
from xmodal.errors import ConfigError
from xmodal.operating_system import owned_by_this_user

FILE = "xmodal.toml"
PREFIX = "XMODAL"
MAX_BYTES = 1_000_000
"""Largest size of a file."""
COMMAND_LINE_ONLY = ("trust_remote_code",)
"""Options that neither a file nor the environment sets."""
USER_ONLY = ("host", "allow-host", "allow-pictures-from", "proxy-headers", "pictures")
"""Options of services that only the user's file sets: a folder may come from elsewhere. The address
of a server is another one, because it gets the user's password."""
OWN_VARIABLE_ONLY = ("cache", "host", "port")
"""Options without a variable for all commands: ``XMODAL_CACHE`` is the folder of all caches, and
Kubernetes sets ``XMODAL_PORT`` to an address in the containers beside a service called xmodal."""
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


def settable_options(command: click.Command) -> dict[str, click.Option]:
    """Return the options of a command that a file or the environment may set, by name.

    The name is the one of the command line without its dashes: "max-distance", "k".
    """
    return {
        option_name(option): option
        for option in command.params
        if isinstance(option, click.Option)
        and not option.hidden
        and option.name not in COMMAND_LINE_ONLY
    }


def option_name(option: click.Option) -> str:
    """Return the longest name of an option without dashes."""
    return max(option.opts, key=len).lstrip("-")


def add_environment(commands: click.Group) -> None:
    """Let the options of all commands be set by variables of the environment."""
    for name, command in commands.commands.items():
        for option, parameter in settable_options(command).items():
            words = option.upper().replace("-", "_")
            own, shared = f"{PREFIX}_{name.upper()}_{words}", f"{PREFIX}_{words}"
            parameter.envvar = [own] if option in OWN_VARIABLE_ONLY else [own, shared]


def read_settings(context: click.Context, commands: click.Group) -> None:
    """Make the values of the files the defaults of the context, and remember their files.

    Raises ConfigError for a file that cannot be used, an unknown name or an unusable value.
    """
    settings: Settings = {name: {} for name in commands.commands}
    for path in files(Path.cwd()):
        for name, values in _read(path, commands).items():
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


def _read(path: Path, commands: click.Group) -> Settings:
    """Return what a file sets. Raises ConfigError."""
    content = _parse(path)
    options = {name: settable_options(one) for name, one in commands.commands.items()}
    shared = {option for each in options.values() for option in each}
    found: Settings = {name: {} for name in options}
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    for key, value in content.items():
        if key in tables:
            continue
        option = _known(key, shared, path, [*shared, *options])
        for name, each in options.items():
            if option in each:
                found[name][str(each[option].name)] = _setting(each[option], value, path)
    for name, table in tables.items():
        each = options[_known(name, options, path, [*shared, *options])]
        for key, value in table.items():
            parameter = each[_known(key, each, path, each, f"[{name}] ")]
            found[name][str(parameter.name)] = _setting(parameter, value, path)
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


def _known(
    key: str, names: Iterable[str], path: Path, similar: Iterable[str], place: str = ""
) -> str:
    """Return the name of an option or command; raise ConfigError with the nearest one."""
    name = key.replace("_", "-")
    if name in set(names):
        return name
    if key.replace("-", "_") in COMMAND_LINE_ONLY:
        raise ConfigError(f"{path}: {place}{key} is only accepted on the command line: --{name}")
    near = difflib.get_close_matches(name, list(similar), 1, 0.5)
    hint = f", did you mean {near[0]}?" if near else ": xmodal config lists the names"
    raise ConfigError(f"{path}: {place}{key!r} is neither an option nor a command{hint}")


def _setting(option: click.Option, value: Any, path: Path) -> Setting:
    """Return the value of an option; paths begin at the folder of the file. Raises ConfigError."""
    if path != _user_file() and (option_name(option) in USER_ONLY or _is_server(option, value)):
        raise ConfigError(
            f"{path}: {option_name(option)} = {value!r} is not accepted from the file of a folder, "
            "which may come from elsewhere: use the command line, the environment or the user's "
            f"{FILE} (xmodal config --help)"
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
    """Whether the value of an option is the address of an index on a server."""
    is_address = any(name in ADDRESSES for name in option.opts)
    return is_address and "://" in str(value) and not str(value).startswith("file://")


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
