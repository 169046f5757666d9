r"""Search for the picture files that a table names.

Tables are written on other computers: with ``\`` for ``/``, as ``file://`` addresses, in another
case or Unicode form, without endings, below a folder that is not here. Such names are tried in the
order of :func:`name_forms`, and then without case; a form that was needed is recorded once for a
table. A name that fits several files is not guessed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from xmodal.data.packed import PackedName, is_picture_file
from xmodal.data.problems import Problems
from xmodal.data.readers.loose_names import Ambiguous, LooseNames
from xmodal.data.readers.reading import Reading
from xmodal.data.readers.seen_texts import SeenTexts
from xmodal.data.remote import is_remote

OTHER_FORM = "pictures are named in another form, and found"
"""Kind of problem, recorded once for each form in a table."""
MAX_FOLDERS, MAX_SEARCHES = 100, 20
"""Maximum numbers of folders, and of missing names that are searched for in them."""
MAX_KNOWN = 4096
"""Names whose files are remembered, because tables have several rows for a picture."""
MAX_PARENTS = 8
"""Leading folders of a name that may be missing here."""
FOLDERS_OF_TABLES = frozenset(
    "annotation annotations caption captions csv labels meta metadata splits text texts".split()
)
"""Names of folders of tables whose pictures are often in a folder beside them."""


class PictureFolder:
    """Finds the pictures of a table.

    Names are relative to ``--images``, else to the folder of the table. If a picture is not there,
    the direct subfolders are searched (for a table in a folder such as "annotations": those beside
    it). A subfolder with the picture is used for the other names as well.
    In a remote folder nothing is looked for: a missing picture is recorded when it is decoded.
    """

    def __init__(self, table: Path, reading: Reading) -> None:
        self._folder = reading.pictures or table.parent
        self._found: list[str] = [str(self._folder)]
        self._searches = MAX_SEARCHES
        self.needed = reading.need_pictures
        self._reading = reading
        in_own_folder = table.parent.name.lower() in FOLDERS_OF_TABLES
        self._beside = in_own_folder and reading.pictures is None
        self._known: dict[str, Path | None] = {}
        self._missing = SeenTexts()
        self._loose = LooseNames()
        self._notes: set[str] = set()
        self._dropped: str | None = None

    def find(self, name: str, problems: Problems) -> Path | None:
        """Return the file of a name, or None; a name without a file is recorded once.

        Files that are not ``needed`` may be missing.
        """
        if isinstance(name, PackedName):
            return Path(name)
        if is_remote(self._folder):
            return self._remote(name, problems)
        if name not in self._known:
            if len(self._known) == MAX_KNOWN:
                self._known.clear()
            self._known[name] = self._find_or_record(name, problems)
        return self._known[name]

    def _remote(self, name: str, problems: Problems) -> Path | None:
        """Return the path of a name in a remote folder; it is not looked for.

        A name on another file system, or in another bucket, is recorded.
        """
        path = Path(name) if is_remote(name) else self._folder / name.replace("\\", "/")
        plain = Path(os.path.normpath(path))
        if plain.parts[:2] == self._folder.parts[:2] and "\0" not in name:
            return plain
        if self._missing.add(name):
            problems.add("picture is not on the file system of its table", name)
        return None

    def _find_or_record(self, name: str, problems: Problems) -> Path | None:
        if "\0" in name:
            problems.add("name of a picture with a zero byte", ascii(name))
            return None
        if not self.needed:
            return self._exact([name]) or self._folder / name
        kind = None
        try:
            path = self._find(name)
        except Ambiguous:
            path, kind = None, "picture name fits several files, none is used"
        if path is None and self._missing.add(name):
            problems.add(kind or self._missing_kind(name), name)
        return path

    def _find(self, name: str) -> Path | None:
        """Return the file of a name. Raises Ambiguous."""
        if (path := self._exact([name])) is not None:
            return path
        if is_url(name):
            return None
        forms = list(name_forms(name))
        for text, note in forms:
            if (path := self._exact(self._without_dropped(text))) is not None:
                return self._noted(path, note)
        for text, note in forms:
            for one in self._without_dropped(text):
                for folder in self._found:
                    found = self._loose.find(folder, one)
                    if found is not None:
                        self._noted(found[0], note)
                        return self._noted(*found)
        if (path := self._in_subfolders([text for text, _ in forms])) is not None:
            return path
        if (path := self._below_missing_folder(forms)) is not None:
            return path
        whole = self._folder / name
        return whole if is_picture_file(whole) else None

    def _exact(self, names: list[str]) -> Path | None:
        """Return the first file with one of the names in a folder that had a picture before."""
        for name in names:
            for folder in self._found:
                path = os.path.join(folder, name)
                if os.path.isfile(path):
                    return Path(path)
        return None

    def _without_dropped(self, name: str) -> list[str]:
        """Return a name, and the name without the leading folder that other names were without."""
        if self._dropped and name.startswith(self._dropped):
            return [name, name[len(self._dropped) :]]
        return [name]

    def _below_missing_folder(self, forms: list[tuple[str, str | None]]) -> Path | None:
        """Return the file of a name without its leading folders, which are the same for a table.

        Different folders would make one picture of train/1.jpg and test/1.jpg.
        """
        if self._dropped is not None:
            return None
        text, note = forms[-1]
        parts = PurePosixPath(text).parts
        for count in range(1, min(len(parts), MAX_PARENTS + 1)):
            rest = "/".join(parts[count:])
            if (path := self._exact([rest])) is not None:
                self._dropped = text[: len(text) - len(rest)]
                self._noted(path, note)
                return self._noted(path, f"names without {self._dropped}")
        return None

    def _noted(self, path: Path, note: str | None) -> Path:
        """Return the path; record the form of the table's names once."""
        if note is not None and note not in self._notes:
            self._notes.add(note)
            self._reading.problems.add(OTHER_FORM, note)
        return path

    def _in_subfolders(self, names: list[str]) -> Path | None:
        names = [name for name in names if not os.path.isabs(name)]
        if not self._searches or not names:
            return None
        self._searches -= 1
        for folder in self._candidates():
            for name in names:
                if os.path.isfile(folder / name):
                    return self._use(folder, folder / name)
        for folder in self._candidates():
            for name in names:
                if (found := self._loose.find(str(folder), name)) is not None:
                    return self._use(folder, self._noted(*found))
        return None

    def _use(self, folder: Path, picture: Path) -> Path:
        self._found.append(str(folder))
        self._reading.sources.append(f"pictures in {folder}")
        return picture

    def _candidates(self) -> Iterator[Path]:
        for root in [self._folder, *([self._folder.parent] if self._beside else [])]:
            try:
                with os.scandir(root) as entries:
                    names = sorted(one.name for one in entries if one.is_dir())
            except OSError:
                continue
            yield from (root / name for name in names[:MAX_FOLDERS] if not name.startswith("."))

    def _missing_kind(self, name: str) -> str:
        if is_url(name):
            return "picture is a URL (download it first)"
        try:
            mode = os.stat(self._folder / name).st_mode
        except PermissionError:
            return "picture not readable (Permission denied)"
        except (OSError, ValueError):  # ValueError: a name with a zero byte
            return "picture missing"
        if stat.S_ISDIR(mode):
            return "picture is a folder"
        return "pipe, socket or device, not opened"


def is_url(name: str) -> bool:
    """Whether a name is an address of the network."""
    return "://" in name and not name.lower().startswith("file:")


def name_forms(name: str) -> Iterator[tuple[str, str | None]]:
    r"""Yield a name, and with what was changed in it the forms that programs write for it.

    Each form is made of the one before: ``/`` for ``\``, the path of a ``file:`` address, decoded
    percent signs, no outer spaces in folders, no slash at the beginning.
    """
    yield name, None
    note = None
    if "\\" in name:
        name, note = name.replace("\\", "/"), "names with \\ for /"
        yield name, note
    if name.lower().startswith("file:"):
        name, note = unquote(urlsplit(name).path), "file: addresses"
        yield name, note
    elif "%" in name and unquote(name) != name:
        name, note = unquote(name), "percent-encoded names"
        yield name, note
    stripped = "/".join(part.strip() for part in name.split("/"))
    if stripped != name:
        name, note = stripped, "names with spaces around them"
        yield name, note
    if name.startswith("/"):
        yield name.lstrip("/"), "names with / at the beginning"
