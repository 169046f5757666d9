"""Fields of documents that a search returns, parsed at their first use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xmodal.index.moved_pictures import find_pictures


class StoredFields(Mapping[str, Any]):
    """Fields of one document of a local index, read-only.

    A search ranks hundreds of documents and shows ten, so most fields are never parsed. ``text``: a
    JSON object. ``origin``: origin of the document, and ``folder`` of the index: the present paths
    of moved pictures are looked up with them, unless one is None.
    """

    __slots__ = ("_folder", "_origin", "_text", "_values")

    def __init__(self, text: str, origin: str | None = None, folder: Path | None = None) -> None:
        self._text, self._origin, self._folder = text, origin, folder
        self._values: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        return self._parsed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())

    def __repr__(self) -> str:
        return repr(self._parsed())

    def _parsed(self) -> dict[str, Any]:
        if self._values is None:
            values = json.loads(self._text)
            if self._origin is not None and self._folder is not None:
                values = find_pictures(values, self._origin, self._folder)
            self._values = values
        return self._values
