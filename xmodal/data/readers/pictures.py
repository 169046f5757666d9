"""Search for the picture files that a table names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from xmodal.data.dataset import Problems
from xmodal.data.packed.names import PackedName
from xmodal.data.readers.reading import Reading

MAX_FOLDERS, MAX_SEARCHES = 100, 20
"""Maximum numbers of folders, and of missing names that are searched for in them."""


class PictureFolder:
    """Finds the pictures of a table.

    Names are relative to ``--pictures``, else to the folder of the table. If a picture is not
    there, the direct subfolders are searched (for a table in a folder "annotations": those beside
    it). A subfolder with the picture is used for the other names as well.
    """

    def __init__(self, table: Path, reading: Reading) -> None:
        self._folder = reading.pictures or table.parent
        self._found: list[Path] = [self._folder]
        self._searches = MAX_SEARCHES
        self.needed = reading.need_pictures
        self._reading = reading
        self._beside = table.parent.name == "annotations" and reading.pictures is None
        self._known: dict[str, Path | None] = {}

    def find(self, name: str, problems: Problems) -> Path | None:
        """Return the file of a name, or None; a name without a file is recorded once.

        Files that are not ``needed`` may be missing.
        """
        if isinstance(name, PackedName):
            return Path(name)
        if name not in self._known:
            self._known[name] = self._find(name)
            if not self.needed and self._known[name] is None:
                self._known[name] = self._folder / name
            if self._known[name] is None:
                kind = (
                    "picture is a URL (download it first)" if "://" in name else "picture missing"
                )
                problems.add(kind, name)
        return self._known[name]

    def _find(self, name: str) -> Path | None:
        if "://" in name:
            return None
        for folder in self._found:
            if os.path.isfile(folder / name):  # Path.is_file raises for some impossible names
                return folder / name
        if self._searches and not os.path.isabs(name):
            self._searches -= 1
            for folder in self._candidates():
                if os.path.isfile(folder / name):
                    self._found.append(folder)
                    self._reading.sources.append(f"pictures in {folder}")
                    return folder / name
        return None

    def _candidates(self) -> Iterator[Path]:
        roots = [self._folder, *([self._folder.parent] if self._beside else [])]
        for root in roots:
            folders = sorted(child for child in root.iterdir() if child.is_dir())
            yield from (one for one in folders[:MAX_FOLDERS] if not one.name.startswith("."))
