"""Listings of the folders of a tree, without junk, pipes, devices and folders that are read twice.

Everything that is left out is recorded as a problem. One folder is listed at a time.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from xmodal.data.problems import Problems

JUNK_FOLDERS = frozenset(
    (
        *("@eadir", "#recycle", "@recycle", "#snapshot", "@recently-snapshot", "$recycle.bin"),
        *("recycler", "recycled", "system volume information", "lost+found", "found.000"),
        *("__macosx", "__pycache__"),
    )
)
"""Folders of file systems and programs (lower case); so are folders whose names begin with a dot:
.git, .Trash-1000, .thumbnails, .ipynb_checkpoints."""
JUNK_FILES = frozenset(
    ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "picasa.ini")
)
"""Files of file systems and programs (lower case); so are files whose names begin with a dot:
.DS_Store, ._a.jpg."""
JUNK = "folder of trash, thumbnails or a program, left out"
SPECIAL = "pipe, socket or device, not opened"


@dataclass(frozen=True)
class Listing:
    """A folder with the sorted names of its files, links to files included, and of its folders."""

    path: Path
    files: list[str]
    folders: list[str]


class Tree:
    """Lists the folders below a root. A linked folder outside of the root is listed once."""

    def __init__(self, root: Path, problems: Problems) -> None:
        self.root, self._problems = root, problems
        self._real_root = os.path.realpath(root)
        self._linked: set[tuple[int, int]] = set()
        self._outside: set[Path] = set()
        """Linked folders that are outside of the root."""
        self._remember(root)

    def relative(self, path: Path, name: str = "") -> str:
        """Return a path below the root as text, for messages and ids."""
        return (path / name).relative_to(self.root).as_posix()

    def listing(self, path: Path) -> Listing:
        """Return a folder's files and folders; what is left out or unreadable is recorded."""
        files: list[str] = []
        folders: list[str] = []
        links: list[str] = []
        left_out: list[tuple[str, str]] = []
        outside = bool(self._outside) and not self._outside.isdisjoint((path, *path.parents))
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    reason = self._sort_in(entry, files, folders, links, outside)
                    if reason is not None:
                        left_out.append((reason, entry.name))
        except OSError as error:
            self._problems.add(f"folder not readable ({error.strerror})", self.relative(path))
        for name in sorted(links):
            reason = self._sort_in_link(path, name, files, folders)
            if reason is not None:
                left_out.append((reason, name))
        for reason, name in sorted(left_out):
            self._problems.add(reason, self.relative(path, name))
        return Listing(path, sorted(files), sorted(folders))

    def _sort_in(
        self,
        entry: os.DirEntry[str],
        files: list[str],
        folders: list[str],
        links: list[str],
        outside: bool,
    ) -> str | None:
        """Add a name to files, folders or links, or return why it is left out."""
        if entry.is_dir(follow_symlinks=False):
            if is_junk_folder(entry.name):
                return JUNK
            if outside and not self._remember(entry.path):
                return "folder that is read already, left out"
            folders.append(entry.name)
        elif is_junk_file(entry.name):
            return "hidden file or file of a program, left out"
        elif entry.is_file(follow_symlinks=False):
            files.append(entry.name)
        elif entry.is_symlink():
            links.append(entry.name)
        else:
            return SPECIAL
        return None

    def _sort_in_link(
        self, folder: Path, name: str, files: list[str], folders: list[str]
    ) -> str | None:
        path = os.path.join(folder, name)
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            return "link to a file that does not exist"
        except OSError as error:
            return f"link not readable ({error.strerror})"
        if stat.S_ISREG(mode):
            files.append(name)
        elif not stat.S_ISDIR(mode):
            return SPECIAL
        elif is_junk_folder(name):
            return JUNK
        elif self._is_listed(os.path.realpath(path)) or not self._remember(path):
            return "link to a folder that is read already, left out"
        else:
            self._outside.add(Path(path))
            folders.append(name)
        return None

    def _is_listed(self, target: str) -> bool:
        """Whether a folder is below the root and not in junk, so that it is listed anyway."""
        if os.path.commonpath((target, self._real_root)) != self._real_root:
            return False
        return not any(map(is_junk_folder, Path(os.path.relpath(target, self._real_root)).parts))

    def _remember(self, path: str | Path) -> bool:
        """Return whether a folder is new, by device and inode."""
        try:
            found = os.stat(path)
        except OSError:
            return True  # it is recorded when it is listed
        key = (found.st_dev, found.st_ino)
        is_new = key not in self._linked
        self._linked.add(key)
        return is_new


def is_junk_folder(name: str) -> bool:
    """Whether a folder of this name holds no pictures of its owner."""
    return (name.startswith(".") and name not in (".", "..")) or name.casefold() in JUNK_FOLDERS


def is_junk_file(name: str) -> bool:
    """Whether a file of this name is hidden, or one of a file system or program."""
    return name.startswith(".") or name.casefold() in JUNK_FILES
