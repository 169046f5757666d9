"""The command xmodal check."""

from __future__ import annotations

import click

from xmodal.cli.options import json_option
from xmodal.cli.output import print_json, print_line, progress_bars
from xmodal.encoders.index_model import DEFAULT_INDEX, local_folder
from xmodal.errors import ConfigError, IndexFailure
from xmodal.index.local import open_folder


@click.command()
@click.argument("index", metavar="[INDEX]", default=DEFAULT_INDEX)
@json_option
def check(index: str, as_json: bool) -> None:
    """Compare all files of a local INDEX, by default .xmodal/index, with their checksums.

    Searches check what they read, and this command everything, for example a copy or a backup. It
    prints the damaged columns with their files. The exit status is 2 if there are any.

    \b
    Example:
      xmodal check my.index
    """
    folder = local_folder(index)
    if folder is None:
        raise ConfigError(f"{index} is not a folder: xmodal check reads the files of a local index")
    opened = open_folder(folder)
    with progress_bars() as bars:
        damaged = opened.check(bars)
    documents, files = len(opened), len(opened.segments)
    if as_json:
        found = [{"file": str(one.path), "column": one.column} for one in damaged]
        print_json({"index": index, "documents": documents, "damaged": found})
    for one in damaged if not as_json else ():
        print_line(f"{one.path}: column {one.column} {one.damage}")
    if damaged:
        raise IndexFailure(
            f"{index} is damaged in {len(damaged):,} columns: copy the folder from a backup, or "
            "remove it and index again"
        )
    if not as_json:
        print_line(f"{index}: {documents:,} documents in {files:,} segments, no damage")
