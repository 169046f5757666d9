"""Search for files by names in another case or Unicode form, and by names without an ending."""

from __future__ import annotations

import os
import unicodedata
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path, PurePath

from xmodal.data.picture_formats import is_picture_name

MAX_NAMES = 200_000
"""Names of all listed folders that are held; a folder with more is not searched."""


class Ambiguous(Exception):
    """A name fits several files."""


class LooseNames:
    """Finds files in folders whose names were listed once."""

    def __init__(self) -> None:
        self._folders: OrderedDict[str, _Folder] = OrderedDict()

    def find(self, folder: str, name: str) -> tuple[Path, str] | None:
        """Return the file of a relative name and what differs, None without one.

        Each part of the name may differ. Raises Ambiguous.
        """
        if os.path.isabs(name):
            return None
        *parents, last = PurePath(name).parts or ("",)
        for part in parents:
            if not os.path.isdir(os.path.join(folder, part)):
                found = self._listed(folder).by_name(part)
                if found is None:
                    return None
                part = found
            folder = os.path.join(folder, part)
        listed = self._listed(folder)
        if (found := listed.by_name(last)) is not None:
            path, note = os.path.join(folder, found), "names in another case or Unicode form"
        elif not is_picture_name(last) and (found := listed.by_stem(last)) is not None:
            path, note = os.path.join(folder, found), "names without the ending"
        else:
            return None
        return (Path(path), note) if os.path.isfile(path) else None

    def _listed(self, folder: str) -> _Folder:
        listed = self._folders.get(folder)
        if listed is None:
            listed = self._folders[folder] = _Folder(folder)
            while sum(map(len, self._folders.values())) > MAX_NAMES and len(self._folders) > 1:
                self._folders.popitem(last=False)
        self._folders.move_to_end(folder)
        return listed


class _Folder:
    """The names in a folder by their plain form; None for several that have the same."""

    def __init__(self, folder: str) -> None:
        try:
            names = os.listdir(folder)
        except OSError:
            names = []
        self._by_name = _by_key([] if len(names) > MAX_NAMES else names)
        self._by_stem: dict[str, str | None] | None = None

    def __len__(self) -> int:
        return len(self._by_name)

    def by_name(self, name: str) -> str | None:
        """Return the name that is equal in plain form. Raises Ambiguous."""
        return _only(self._by_name, _plain(name))

    def by_stem(self, stem: str) -> str | None:
        """Return the picture whose name without ending is equal in plain form."""
        if self._by_stem is None:
            pictures = (name for name in self._by_name.values() if name and is_picture_name(name))
            self._by_stem = _by_key(pictures, stems=True)
        return _only(self._by_stem, _plain(stem))


def _only(names: dict[str, str | None], key: str) -> str | None:
    if key in names and names[key] is None:
        raise Ambiguous
    return names.get(key)


def _by_key(names: Iterable[str], stems: bool = False) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in names:
        key = _plain(PurePath(name).stem if stems else name)
        found[key] = None if key in found else name
    return found


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip()).casefold()
