"""State of one call of ``read``: its options, the problems, and the sources that were found."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from xmodal.data.problems import Problems
from xmodal.data.readers.columns import Columns
from xmodal.data.remote import is_remote
from xmodal.errors import ConfigError

SEPARATOR_NAMES = {
    **{"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "colon": ":"},
    **{"bar": "|", "pipe": "|", "space": " "},
}
"""Names of separators of delimited text."""


@dataclass
class Expected:
    """Number of items that a reading yields, about; 0 is unknown."""

    number: int = 0


@dataclass
class Reading:
    """Options and records of one call of :func:`xmodal.data.readers.read.iterate`.

    ``pictures``: folder of relative picture paths. ``encoding``: of text files; None detects
    UTF-8, UTF-16 and UTF-32. ``need_pictures``: False for data whose features are given; then files
    of pictures may be missing, and a row may have an id alone. ``separator``: of delimited text;
    None detects it. ``header``: column names of a delimited table without a header line.

    ``in_order``: the items of a table are yielded in the order of their first rows; else an item
    of rows that do not follow each other is yielded at its last row. ``only``: columns that the
    rows need to have; None means all. ``row_prefix``: begins the ids that are places of rows.

    ``problems`` and ``sources`` are added to by the readers; a source is a short text, for example
    "columns image and caption". So is ``expected``, if the number of items is wanted.
    """

    columns: Columns = field(default_factory=Columns)
    pictures: Path | None = None
    encoding: str | None = None
    need_pictures: bool = True
    separator: str | None = None
    header: tuple[str, ...] | None = None
    in_order: bool = False
    only: frozenset[str] | None = None
    row_prefix: str = ""
    problems: Problems = field(default_factory=Problems)
    sources: list[str] = field(default_factory=list)
    expected: Expected | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for an unknown encoding or a folder that does not exist."""
        pictures = self.pictures
        if pictures is not None and not (is_remote(pictures) or pictures.is_dir()):
            raise ConfigError(f"--images {self.pictures}: there is no such folder")
        if self.encoding is not None:
            try:
                b"text".decode(self.encoding, "ignore")  # no look-up for empty bytes
            except (LookupError, ValueError):
                raise ConfigError(
                    f"--encoding {self.encoding}: there is no such encoding of text, expected a "
                    "name such as utf-8, cp1252, utf-16, shift_jis or gb18030"
                ) from None

        if self.separator is not None:
            self.separator = _one_character(self.separator)

    def without_records(self) -> Reading:
        """Return the same options with an empty record of problems and sources."""
        return replace(self, problems=Problems(), sources=[], expected=None)


def _one_character(separator: str) -> str:
    """Return the separator of a character or of its name. Raises ConfigError for others."""
    found = SEPARATOR_NAMES.get(separator.lower(), separator)
    if len(found) != 1 or found in '"\r\n':
        names = ", ".join(name for name in SEPARATOR_NAMES if name.isalpha())
        raise ConfigError(f"--separator {separator!r}: expected one character, or a name: {names}")
    return found
