"""Webdataset shards: tar archives (.tar, .tar.gz, .tgz, .tar.zst) of samples.

The files of a sample follow each other and have the same *key*: their name up to the first dot of
its last part. Their endings tell what they are: pictures, ``.txt`` or ``.caption`` (a caption),
``.json`` (fields, also captions), ``.cls`` (a label). The layout of img2dataset is one of these.
Format: https://github.com/webdataset/webdataset, "The WebDataset Format".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from xmodal.data.packed.names import PackedName
from xmodal.data.packed.tar import Member, Tar, open_tar
from xmodal.data.picture_formats import is_picture_name, unread_kind
from xmodal.data.readers.reading import Reading
from xmodal.data.readers.seen_texts import SeenTexts
from xmodal.data.readers.text_lines import detect_encoding
from xmodal.errors import DataError

CAPTION_ENDINGS = (".txt", ".text", ".caption")
LABEL_ENDINGS = (".cls", ".label")
MAX_TEXT_BYTES = 4 * 2**20
"""Maximum size of a caption file or a JSON file."""
REPEATED = "file of the shard repeated, the first one stays"
NOT_USED = "file of a shard that is not used, by its ending"
UNREADABLE = "file of the shard that cannot be read"


@dataclass
class _Sample:
    """The files of one key."""

    key: str
    pictures: list[PackedName] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)

    def row(self, prefix: str) -> dict[str, Any]:
        """Return the sample as a row; ``prefix``: beginning of its id."""
        several = len(self.pictures) > 1
        own: dict[str, Any] = {
            "id": prefix + self.key,
            "image": self.pictures if several else next(iter(self.pictures), None),
        }
        if self.captions:
            own["text"] = self.captions
        if self.labels:
            own["cls"] = self.labels
        # Fields of the JSON file that have the names of these columns are kept under others.
        others = (
            (f"json.{name}" if name in own else name, value)
            for name, value in self.fields.items()
            if not (name == "text" and [value] == self.captions)
        )
        return own | dict(others)


def read_rows(path: Path, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("sample N", row) for each sample, with the columns id, image, text and cls.

    What is not used is recorded, also the damage of a shard after its first samples. Raises
    DataError if no sample can be read.
    """
    number = 0
    try:
        with open_tar(path) as shard:
            for sample in _Reader(shard, reading).samples():
                number += 1
                yield f"sample {number}", sample.row(reading.row_prefix)
    except (DataError, OSError) as error:
        if not number:
            raise DataError(str(error)) from None
        reading.problems.add("shard damaged or cut off, the samples before are used", error)


class _Reader:
    """Reads the samples of one shard."""

    def __init__(self, shard: Tar, reading: Reading) -> None:
        self._shard, self._reading, self._problems = shard, reading, reading.problems
        self._names = SeenTexts()
        self._role = lru_cache(1024)(_role)

    def samples(self) -> Iterator[_Sample]:
        """Yield the samples, also the last one before damage, and then raise its DataError."""
        sample: _Sample | None = None
        damage = None
        members = self._shard.members(self._problems)
        while True:
            try:
                member = next(members, None)
                if member is None:
                    break
                key, ending = _key_and_ending(member.name)
                role = self._role(ending) if key else None
                if role is None:
                    self._problems.add(unread_kind(member.name) or NOT_USED, member.name)
                elif not self._names.add(member.name):
                    self._problems.add(REPEATED, member.name)
                else:
                    if sample is None or sample.key != key:
                        if sample is not None:
                            yield sample
                        sample = _Sample(key)
                    self._add(sample, member, role)
            except DataError as error:
                damage = error
                break
        if sample is not None:
            yield sample
        if damage is not None:
            raise damage

    def _add(self, sample: _Sample, member: Member, role: str) -> None:
        """Add a file to a sample, or record why it cannot be read."""
        if role == "picture":
            sample.pictures.append(PackedName(f"{self._shard.path}/{member.name}"))
            return
        try:
            if member.size > MAX_TEXT_BYTES:
                raise ValueError(f"{member.size:,} bytes")
            text = self._text(self._shard.read(member))
            if role == "caption":
                sample.captions.append(text)
            elif role == "label":
                sample.labels.append(text.strip())
            else:
                _add_json(sample, json.loads(text))
        except (ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())[:100]
            self._problems.add(UNREADABLE, f"{member.name} ({reason})")

    def _text(self, content: bytes) -> str:
        if self._reading.encoding is None and content.isascii() and b"\0" not in content:
            return content.decode("ascii")  # the usual case
        encoding = self._reading.encoding or detect_encoding(content)
        return content.decode(encoding).removeprefix("\ufeff")


def _add_json(sample: _Sample, value: Any) -> None:
    if isinstance(value, dict):
        sample.fields.update(value)
    elif isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        sample.captions += value
    else:
        raise ValueError("neither an object nor a list of texts")


def _key_and_ending(name: str) -> tuple[str, str]:
    """Return the key of a file and its last ending: "a/000" and ".jpg" of "a/000.left.JPG".

    The key is "" for hidden files and for files without an ending.
    """
    folder, slash, base = name.rpartition("/")
    stem, _, endings = base.partition(".")
    if not stem or not endings:
        return "", ""
    return folder + slash + stem, "." + endings.rpartition(".")[2].lower()


def _role(ending: str) -> str | None:
    """Return what files of an ending are, None for unknown ones."""
    if is_picture_name(f"name{ending}"):
        return "picture"
    if ending in CAPTION_ENDINGS:
        return "caption"
    if ending in LABEL_ENDINGS:
        return "label"
    return "fields" if ending == ".json" else None
