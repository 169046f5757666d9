"""State of one call of ``read``: its options, the problems, and the sources that were found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from xmodal.data.dataset import Problems
from xmodal.data.readers.columns import Columns
from xmodal.errors import ConfigError


@dataclass
class Reading:
    """Options and records of one call of :func:`xmodal.data.readers.read.read`.

    ``pictures``: folder of relative picture paths. ``encoding``: of text files; None detects
    UTF-8, UTF-16 and UTF-32. ``need_pictures``: False for data whose features are given; then files
    of pictures may be missing, and a row may have an id alone. ``problems`` and ``sources`` are
    added to by the readers; a source is a short text, for example "columns image and caption".
    """

    columns: Columns = field(default_factory=Columns)
    pictures: Path | None = None
    encoding: str | None = None
    need_pictures: bool = True
    problems: Problems = field(default_factory=Problems)
    sources: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raise ConfigError for an unknown encoding or a folder that does not exist."""
        if self.pictures is not None and not self.pictures.is_dir():
            raise ConfigError(f"--pictures {self.pictures}: there is no such folder")
        if self.encoding is not None:
            try:
                b"text".decode(self.encoding, "ignore")  # no look-up for empty bytes
            except (LookupError, ValueError):
                raise ConfigError(
                    f"--encoding {self.encoding}: there is no such encoding of text, expected a "
                    "name such as utf-8, cp1252, utf-16, shift_jis or gb18030"
                ) from None

    def without_records(self) -> Reading:
        """Return the same options with an empty record of problems and sources."""
        return Reading(self.columns, self.pictures, self.encoding, self.need_pictures)
