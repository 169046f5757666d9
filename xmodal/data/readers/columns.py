"""Columns of a table: their roles, their usual names, and columns that probably hold labels."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xmodal.data.dataset import Dataset
from xmodal.data.picture_formats import is_picture_name
from xmodal.data.readers.values import clean_labels
from xmodal.errors import ConfigError, DataError

COLUMN_NAMES = {
    "image": tuple(
        "file_name image image_path filename filepath path img img_path image_name images "
        "image_file image_filename picture photo jpg jpeg png webp".split()
    ),
    "text": tuple(
        "text caption captions sentence sentences title description comment name txt alt_text "
        "conversations messages".split()
    ),
    "id": ("id", "item_id"),
    "split": ("split",),
}
"""Usual column names of each role, in order of preference; labels have none. Names of a table are
compared with them in any case, and with spaces or hyphens for underscores."""
MAX_LISTED = 60
"""Maximum number of names of columns in a message, and of characters of a name."""
PHRASE_WORDS = 3
"""Words of a value of a column that looks like captions."""
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


def resolve_columns(
    columns: Columns, available: Collection[str], path: Path, rows: Sequence[Mapping[str, Any]] = ()
) -> Columns:
    """Return the column of each role, or None for a role without a column.

    ``available`` are the columns of the table at ``path``, ``rows`` some of its rows, for messages.
    A name such as "meta.caption" is that of a member of an object. Raises ConfigError if a named
    column is missing, DataError if there is neither an image nor a text column.
    """
    resolved = _resolved(columns, available)
    for role, name in dataclasses.asdict(columns).items():
        if name is not None and getattr(resolved, role) is None:
            raise ConfigError(
                f"{path} has no column {name!r}; its columns are {_listed(available, rows)}"
            )
    if resolved.image is None and resolved.text is None:
        image, text = (", ".join(COLUMN_NAMES[role][:3]) for role in ("image", "text"))
        raise DataError(
            f"{path} has the columns {_listed(available, rows)}; expected one with pictures "
            f"({image}, ...) or texts ({text}, ...): name them with --image-column and "
            "--text-column"
        )
    return resolved


def _listed(available: Collection[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return names of columns, and of members of their objects, for a message."""
    members = (
        f"{name}.{member}"
        for row in rows
        for name, value in row.items()
        for one in (value if isinstance(value, list) else [value])
        if isinstance(one, dict)
        for member in one
    )
    names = [*available, *dict.fromkeys(members)]
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(str(name)[:MAX_LISTED] for name in names[:MAX_LISTED]) + more


def likely_columns(
    role: Literal["image", "text"], columns: Columns, rows: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return unused columns that look like those of pictures or captions, by the values of rows."""
    looks = is_picture_name if role == "image" else _is_phrase
    used = dataclasses.astuple(columns)
    texts: dict[str, list[str]] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, str) and value.strip() and name not in used:
                texts.setdefault(name, []).append(value)
    return [name for name, found in texts.items() if 2 * sum(map(looks, found)) > len(found)]


def _is_phrase(text: str) -> bool:
    return len(text.split()) >= PHRASE_WORDS


def key_columns(columns: Columns, available: Collection[str]) -> Columns:
    """Return the columns by which rows are of one item: those of ids and of pictures."""
    resolved = _resolved(columns, available)
    return Columns(image=resolved.image, id=resolved.id)


def _resolved(columns: Columns, available: Collection[str]) -> Columns:
    """Return the column of each role, None for a role without one."""
    resolved: dict[str, str | None] = {}
    by_plain_name = {_plain(name): name for name in reversed(list(available))}
    by_plain_name |= {name: name for name in available}
    for role, name in dataclasses.asdict(columns).items():
        usual = COLUMN_NAMES.get(role, ()) if name is None else (name, _plain(name))
        found = (by_plain_name.get(usual_name) for usual_name in usual)
        resolved[role] = next((one for one in found if one is not None), None)
        if resolved[role] is None and name is not None and _is_nested(name, available):
            resolved[role] = name
    return Columns(**resolved)


def _is_nested(name: str, available: Collection[str]) -> bool:
    """Whether a name begins with a column and a dot."""
    return any(name.startswith(f"{column}.") for column in available)


def getter(columns: Columns) -> Callable[[Any, str], Any]:
    """Return :func:`value_at`, or the faster ``dict.get`` if no column is a member of an object."""
    names = filter(None, dataclasses.astuple(columns))
    return value_at if any("." in name for name in names) else dict.get


def value_at(row: Mapping[str, Any], name: str) -> Any:
    """Return the value of a column, or of a member of an object: "meta.caption".

    A member of a list of objects is the list of the objects' members. None if it is missing.
    """
    if name in row or "." not in name:
        return row.get(name)
    head, _, rest = name.partition(".")
    while rest:
        if head in row:
            return _member(row[head], rest)
        part, _, rest = rest.partition(".")
        head = f"{head}.{part}"
    return None


def _member(value: Any, name: str) -> Any:
    if isinstance(value, list):
        return [_member(one, name) for one in value]
    return value_at(value, name) if isinstance(value, dict) else None


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
