"""Output of the changes of an index by xmodal index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xmodal.cli.output import info, print_json, print_line
from xmodal.cli.sources import Data
from xmodal.retrieval.indexing import Changes


def show_changes(
    changes: Changes,
    data: Data,
    uri: str,
    documents: int,
    options: Mapping[str, Any],
    more: Mapping[str, Any],
) -> None:
    """Print the changes; ``documents``: number of the index, ``more``: further keys of JSON."""
    if options["as_json"]:
        result: dict[str, Any] = {"index": uri, "documents": documents, **changes.codes}
        print_json(result | {"changes": changes.numbers, "renamed": changes.renamed, **more})
        return
    _print_notes(changes, data, uri)
    print_line(
        f"{uri}: {documents:,} documents; from {data}: {changes.codes['image']:,} pictures, "
        f"{changes.codes['text']:,} texts ({changes.summary()})"
    )


def _print_notes(changes: Changes, data: Data, uri: str) -> None:
    """Print renamed and missing documents on standard error."""
    if changes.renamed:
        item, id_ = next(iter(changes.renamed.items()))
        info(
            f"  {len(changes.renamed):,} x id of another source's document, stored under another "
            f"id: {item} as {id_}"
        )
    if changes.numbers["missing"]:
        info(
            f"  {changes.numbers['missing']:,} documents are no longer in {data} and stay in "
            f"{uri}: --prune removes them"
        )
