"""Pictures and texts of the user's documents: the values of their fields, checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodal.data.problems import Problems
from xmodal.errors import ConfigError, DataError
from xmodal.web.address import is_address, without_secrets
from xmodal_opensearch.loading.download import Download

NOT_AVAILABLE = "picture not available"
"""Kind of problem of a picture that has no file, or could not be downloaded."""
WRONG_PICTURE = "picture with a value of a wrong type"
WRONG_TEXT = "text with a value of a wrong type"
NO_UNICODE = "text not usable"


@dataclass(frozen=True)
class Source:
    """Fields of a document with its picture and its text: dotted names, at least one.

    A list has several pictures or texts, of which each gets a code. The value of ``image`` is a
    path inside ``folder`` (default: the current folder), or an http or https address if
    ``download`` is set.
    """

    image: str | None = None
    text: str | None = None
    folder: Path | None = None
    download: Download | None = None

    def __post_init__(self) -> None:
        if self.image is None and self.text is None:
            raise ConfigError(
                "no field given, expected the field of the picture, of the text, or both"
            )

    @property
    def fields(self) -> list[str]:
        """Names of the fields that are set."""
        return [name for name in (self.image, self.text) if name is not None]

    def pictures(self, id_: str, document: Mapping[str, Any], problems: Problems) -> list[str]:
        """Return paths and addresses of pictures; values that are no text are recorded."""
        names = []
        for value in () if self.image is None else values_at(document, self.image):
            if isinstance(value, str):
                names.append(value)
            else:
                problems.add(WRONG_PICTURE, f"{id_} ({_kind(value)}, expected a path or address)")
        return names

    def texts(self, id_: str, document: Mapping[str, Any], problems: Problems) -> list[str]:
        """Return texts, and numbers as text; unusable values are recorded."""
        texts = []
        for value in () if self.text is None else values_at(document, self.text):
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                problems.add(WRONG_TEXT, f"{id_} ({_kind(value)}, expected text)")
                continue
            try:
                str(value).encode()
                texts.append(str(value))
            except UnicodeEncodeError:
                problems.add(NO_UNICODE, f"{id_} (it is not valid Unicode)")
        return texts

    def file_of(self, name: str, folder: Path) -> Path:
        """Return the file of a picture, downloaded into ``folder`` if it is an address.

        Raises DataError if there is none.
        """
        if not is_address(name):
            return self._local_file(name)
        if self.download is None:
            raise DataError(
                f"{without_secrets(name)} is an address, expected a path: allow downloads with "
                "--download"
            )
        return self.download(name, folder)

    def missing(self, name: str) -> str:
        """Return why a path has no file, or ""."""
        try:
            self._local_file(name)
        except DataError as error:
            return str(error)
        return ""

    def _local_file(self, name: str) -> Path:
        try:
            root = (self.folder or Path()).resolve()
            path = (root / name).resolve()
            is_file = path.is_file()
        except (OSError, ValueError, RuntimeError) as error:  # zero bytes, loops of links
            raise DataError(f"{name}: {error}") from None
        if not path.is_relative_to(root):
            raise DataError(f"{name} is outside of {root}: set its folder with --images-from")
        if not is_file:
            raise DataError(f"{name}: there is no such picture in {root}")
        return path


def values_at(value: Any, path: str) -> Iterator[Any]:
    """Yield the values of a dotted field of a document; a list has any number of them."""
    if isinstance(value, list):
        for item in value:
            yield from values_at(item, path)
    elif not path:
        if value is not None:
            yield value
    elif isinstance(value, Mapping):
        names = path.split(".")
        for count in range(len(names), 0, -1):  # a name itself may have dots
            head = ".".join(names[:count])
            if head in value:
                yield from values_at(value[head], ".".join(names[count:]))


def _kind(value: Any) -> str:
    """Return the JSON type of a value, with an article."""
    if isinstance(value, bool):
        return "true or false"
    return "a number" if isinstance(value, int | float) else "an object"
