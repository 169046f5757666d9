"""The command xmodal delete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from xmodal.cli.options import json_option
from xmodal.cli.output import info, print_json, print_line, status
from xmodal.data.problems import Problems
from xmodal.errors import ConfigError
from xmodal.index.contract import Index, open_index
from xmodal.index.filter_text import parse_filters
from xmodal.index.origins import ListedIndex, source_of

UNKNOWN = "no document with this id"
SHOWN = 10
"""Ids that are printed without --json."""


@click.command()
@click.argument("index", metavar="INDEX")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option(
    "--where",
    "filters",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Delete the documents that pass the filters, which are those of xmodal search.",
)
@click.option("--source", help="Delete the documents of a source: a path, or a name of --source.")
@click.option("--dry-run", is_flag=True, help="Print what would be deleted, and delete nothing.")
@json_option
def delete(index: str, ids: Sequence[str], **options: Any) -> int:
    """Delete documents of INDEX: by ID, by filters, or those of a source.

    The exit status is 1 if there is no such document.

    \b
    Example:
      xmodal delete my.index holiday/a.jpg holiday/b.jpg
      xmodal delete my.index --where "year<2020" --dry-run
      xmodal delete my.index --source old-photos/
    """
    ways = {"ID": bool(ids), "--where": bool(options["filters"]), "--source": options["source"]}
    if sum(map(bool, ways.values())) != 1:
        raise ConfigError(
            "expected one of ID, --where and --source, for example: "
            f"xmodal delete {index} --where colour=red --dry-run"
        )
    opened = open_index(index)
    found = _find(opened, ids, options)
    unknown = Problems()
    for id_ in dict.fromkeys(ids):
        if id_ not in found:
            unknown.add(UNKNOWN, id_)
    dry = options["dry_run"]
    if found and not dry:
        opened.delete(list(found))
    documents = len(opened)
    with status(f"saving {index}"):
        opened.close()
    for line in unknown.summary_lines():
        info(f"  {line}")
    if options["as_json"]:
        result = {"index": index, "deleted": 0 if dry else len(found), "documents": documents}
        print_json(result | {"ids": list(found), "unknown": unknown.names(UNKNOWN), "dry_run": dry})
    elif found:
        verb = "would be deleted" if dry else "deleted"
        shown = ", ".join(list(found)[:SHOWN])
        more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
        print_line(f"{index}: {len(found):,} documents {verb} ({shown}{more}), {documents:,} left")
    else:
        print_line(f"{index}: no such document, {documents:,} documents")
    return 0 if found else 1


def _find(index: Index, ids: Sequence[str], options: dict[str, Any]) -> dict[str, None]:
    """Return the ids of the documents to delete, without unknown ones."""
    if ids:
        return dict.fromkeys(index.get(ids).ids)
    if not isinstance(index, ListedIndex):
        raise ConfigError("an index of this backend cannot list its documents: name their ids")
    if options["filters"]:
        entries = index.entries(where=parse_filters(options["filters"]))
        return dict.fromkeys(entry.id for entry in entries)
    names = dict.fromkeys([options["source"], source_of(options["source"])])
    return dict.fromkeys(entry.id for name in names for entry in index.entries(source=name))
