"""Listings of the folders of a tree, without junk, pipes, devices and folders that are read twice.

Everything that is left out is recorded as a problem. One folder is listed at a time.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from xmodal.data.dataset import Problems

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

    def list(self, path: Path) -> Listing:
        """Return a folder's files and folders; what is left out or unreadable is recorded."""
        files: list[str] = []
        folders: list[str] = []
        left_out: list[tuple[str, str]] = []
        outside = not self._outside.isdisjoint((path, *path.parents))
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    reason = self._sort_in(entry, files, folders, outside)
                    if reason is not None:
                        left_out.append((reason, entry.name))
        except OSError as error:
            self._problems.add(f"folder not readable ({error.strerror})", self.relative(path))
        for reason, name in sorted(left_out):
            self._problems.add(reason, self.relative(path, name))
        return Listing(path, sorted(files), sorted(folders))

    def _sort_in(
        self, entry: os.DirEntry[str], files: list[str], folders: list[str], outside: bool
    ) -> str | None:
        """Add a name to files or folders, or return why it is left out."""
        if entry.is_dir(follow_symlinks=False):
            if is_junk_folder(entry.name):
                return "folder of trash, thumbnails or a program, left out"
            if outside and not self._remember(Path(entry.path)):
                return "folder that is read already, left out"
            folders.append(entry.name)
        elif is_junk_file(entry.name):
            return "hidden file or file of a program, left out"
        elif entry.is_file(follow_symlinks=False):
            files.append(entry.name)
        elif entry.is_symlink():
            return self._sort_in_link(entry, files, folders)
        else:
            return "pipe, socket or device, not opened"
        return None

    def _sort_in_link(
        self, entry: os.DirEntry[str], files: list[str], folders: list[str]
    ) -> str | None:
        try:
            mode = os.stat(entry.path).st_mode
        except FileNotFoundError:
            return "link to a file that does not exist"
        except OSError as error:
            return f"link not readable ({error.strerror})"
        if stat.S_ISREG(mode):
            files.append(entry.name)
        elif not stat.S_ISDIR(mode):
            return "pipe, socket or device, not opened"
        elif is_junk_folder(entry.name):
            return "folder of trash, thumbnails or a program, left out"
        elif self._is_listed(os.path.realpath(entry.path)) or not self._remember(Path(entry.path)):
            return "link to a folder that is read already, left out"
        else:
            self._outside.add(Path(entry.path))
            folders.append(entry.name)
        return None

    def _is_listed(self, target: str) -> bool:
        """Whether a folder is below the root and not in junk, so that it is listed anyway."""
        if os.path.commonpath((target, self._real_root)) != self._real_root:
            return False
        return not any(map(is_junk_folder, Path(os.path.relpath(target, self._real_root)).parts))

    def _remember(self, path: Path) -> bool:
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
