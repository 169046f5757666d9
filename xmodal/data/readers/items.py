"""Items from the rows of a table, and items with unique ids."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xmodal.data.dataset import Item, Problems
from xmodal.data.readers.columns import Columns
from xmodal.data.readers.values import (
    clean_field,
    clean_labels,
    clean_scalar,
    clean_text,
    valid_unicode,
)


def item_from_row(
    row: Mapping[str, Any], place: str, columns: Columns, folder: Path, problems: Problems
) -> Item | None:
    """Return the item of a row, or None if the row has neither a picture nor a text.

    ``columns`` are resolved columns, ``folder`` is that of relative picture paths, ``place`` names
    the row, for example "line 7". The id is that of the id column, else the picture's path, else
    ``place``. What is missing is recorded in ``problems``.
    """
    file = clean_scalar(row.get(columns.image)) if columns.image else None
    text = clean_text(row.get(columns.text)) if columns.text else None
    own_id = clean_scalar(row.get(columns.id)) if columns.id else None
    image = _existing_picture(file, folder, problems) if file else None
    id_ = own_id or file or place
    if columns.image and not file:
        problems.add("row without a picture", id_)
    if columns.text and text is None:
        problems.add("caption empty", id_)
    if image is None and text is None:
        problems.add("row left out, it has neither picture nor text", id_)
        return None
    return Item(
        id_,
        images=() if image is None else (image,),
        captions=() if text is None else (text,),
        labels=clean_labels(row.get(columns.label)) if columns.label else None,
        fields=_fields(row, columns),
        split=clean_scalar(row.get(columns.split)) if columns.split else None,
    )


def _existing_picture(file: str, folder: Path, problems: Problems) -> Path | None:
    if "://" in file:
        problems.add("picture is a URL (download it first)", file)
    elif not os.path.isfile(folder / file):  # Path.is_file raises for some impossible names
        problems.add("picture missing", file)
    else:
        return folder / file
    return None


def _fields(row: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """Return the values of the columns without a role that an index can store."""
    used = {columns.image, columns.text, columns.label, columns.id, columns.split}
    return {
        valid_unicode(name): value
        for name, raw in row.items()
        if name not in used and (value := clean_field(raw)) is not None
    }


def unique_items(items: Iterable[Item], problems: Problems) -> Iterator[Item]:
    """Yield the first item of each id; leave out ids and file names that are not valid Unicode."""
    seen: set[str] = set()
    for item in items:
        names = f"{item.id}{''.join(map(str, item.images))}"
        if valid_unicode(names) != names:
            problems.add("id or file name is not valid Unicode, left out", ascii(item.id))
        elif item.id in seen:
            problems.add("id repeated, the first one stays", item.id)
        else:
            seen.add(item.id)
            yield item
