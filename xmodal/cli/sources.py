"""The argument DATA: a folder, a table, a picture, or several of them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from xmodal.data.feature_file import is_feature_file
from xmodal.data.picture_formats import is_picture_name
from xmodal.errors import ConfigError
from xmodal.index.origins import source_of

LISTED = "-"
"""Standard input in place of a path, and the name of the source of single pictures."""


@dataclass(frozen=True)
class Sources:
    """Several folders, tables and pictures that are DATA together."""

    paths: tuple[Path, ...]

    def __str__(self) -> str:
        first, last = self.paths[0], self.paths[-1]
        if len(self.paths) == 2:
            return f"{first} and {last}"
        return f"{first} and {len(self.paths) - 1:,} more"


Data = Path | Sources
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def data_argument(name: str = "data", *, required: bool = True) -> Decorator:
    """Return the decorator of an argument for one source or several; "-" lists them.

    Its value is a path, :class:`Sources`, or None if it is not required and not given.
    """
    return click.argument(
        name,
        nargs=-1,
        required=required,
        metavar=f"{name.upper()}..." if required else f"[{name.upper()}]...",
        type=click.Path(path_type=Path, allow_dash=True),
        callback=_data,
    )


def _data(context: click.Context, parameter: click.Parameter, paths: tuple[Path, ...]) -> Any:
    found = [one for path in paths for one in (_listed() if str(path) == LISTED else [path])]
    if not found:
        if paths:
            raise ConfigError("standard input has no path, expected one on each line")
        return None
    return found[0] if len(found) == 1 else Sources(tuple(found))


def _listed() -> list[Path]:
    """Return the paths on standard input, one a line, or separated by zero bytes."""
    content = b"" if sys.stdin is None else sys.stdin.buffer.read()  # None: it is closed
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    return [Path(os.fsdecode(line)) for line in lines if line.strip()]


def paths_of(data: Data) -> tuple[Path, ...]:
    """Return the paths of DATA."""
    return data.paths if isinstance(data, Sources) else (data,)


def is_features(data: Data | None) -> bool:
    """Whether DATA is a file of features. Raises ConfigError for one among several sources."""
    if not isinstance(data, Sources):
        return data is not None and is_feature_file(data)
    for path in data.paths:
        if is_feature_file(path):
            raise ConfigError(
                f"{path} is a file of features, expected it alone or with --features: leave the "
                "other sources out"
            )
    return False


def by_source(data: Data) -> list[tuple[str, Data]]:
    """Return the sources of an index and what each one is read from.

    A folder or table is a source of its own. Single pictures are one source, called "-".
    """
    if not isinstance(data, Sources):
        return [(source_of(data), data)]
    pictures = tuple(path for path in data.paths if is_picture_name(path.name))
    others = [(source_of(path), path) for path in dict.fromkeys(data.paths) if path not in pictures]
    found: list[tuple[str, Data]] = list(others)
    if pictures:
        found.append((LISTED, pictures[0] if len(pictures) == 1 else Sources(pictures)))
    return found


def as_arguments(data: Data) -> str:
    """Return DATA as arguments of a command."""
    return shlex.join(map(str, paths_of(data)))
