"""Columns of a table: their roles, their usual names, and columns that probably hold labels."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xmodal.data.dataset import Dataset
from xmodal.data.readers.values import clean_labels
from xmodal.errors import ConfigError, DataError

COLUMN_NAMES = {
    "image": tuple(
        "file_name image image_path filename filepath path img img_path image_name".split()
    ),
    "text": tuple(
        "text caption captions sentence sentences title description comment name".split()
    ),
    "id": ("id", "item_id"),
    "split": ("split",),
}
"""Usual column names of each role, in order of preference; labels have none. Names of a table are
compared with them in any case, and with spaces or hyphens for underscores."""
LABEL_COLUMN_NAMES = ("labels", "label", "class", "category")
"""Usual names of label columns, for :func:`label_candidates`; they are never used by default."""


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns by role; None means the first of ``COLUMN_NAMES`` that exists.

    ``label`` has no default column: None means that the items have no labels.
    """

    image: str | None = None
    text: str | None = None
    label: str | None = None
    id: str | None = None
    split: str | None = None


def resolve_columns(columns: Columns, available: Sequence[str], path: Path) -> Columns:
    """Return the column of each role, or None for a role without a column.

    ``available`` are the columns of the table at ``path``. Raises ConfigError if a named column is
    missing, DataError if there is neither an image nor a text column.
    """
    resolved: dict[str, str | None] = {}
    by_plain_name = {_plain(name): name for name in reversed(available)}
    by_plain_name |= {name: name for name in available}
    for role in (field.name for field in dataclasses.fields(Columns)):
        name = getattr(columns, role)
        if name is None:
            usual = (by_plain_name.get(usual) for usual in COLUMN_NAMES.get(role, ()))
            resolved[role] = next((found for found in usual if found is not None), None)
        else:
            resolved[role] = by_plain_name.get(name, by_plain_name.get(_plain(name)))
            if resolved[role] is None:
                raise ConfigError(
                    f"{path} has no column {name!r}; its columns are {', '.join(available)}"
                )
    if resolved["image"] is None and resolved["text"] is None:
        image, text = (", ".join(COLUMN_NAMES[role][:3]) for role in ("image", "text"))
        raise DataError(
            f"{path} has the columns {', '.join(available)}; expected one with pictures "
            f"({image}, ...) or texts ({text}, ...): name them with --image-column and "
            "--text-column"
        )
    return Columns(**resolved)


def _plain(name: str) -> str:
    """Return a column name in lower case, with underscores, without a byte order mark."""
    return re.sub(r"[\s-]+", "_", name.strip("\ufeff \t\r\n").casefold())


def label_candidates(data: Dataset) -> dict[str, int]:
    """Map fields with a usual label name (in any case) to their numbers of different labels."""
    labels: dict[str, set[str]] = {}
    for item in data:
        for name, value in item.fields.items():
            if _plain(name) in LABEL_COLUMN_NAMES:
                labels.setdefault(name, set()).update(clean_labels(value) or ())
    return {name: len(found) for name, found in labels.items() if found}
