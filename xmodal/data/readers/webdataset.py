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
from pathlib import Path
from typing import Any

from xmodal.data.packed.names import PackedName
from xmodal.data.packed.tar import Member, Tar, member_path, open_tar
from xmodal.data.picture_formats import is_picture_name, unread_kind
from xmodal.data.readers.reading import Reading
from xmodal.data.readers.seen_texts import SeenTexts
from xmodal.data.readers.text_lines import detect_encoding
from xmodal.errors import DataError

CAPTION_ENDINGS = (".txt", ".text", ".caption")
LABEL_ENDINGS = (".cls", ".label")
MAX_TEXT_BYTES = 4 * 2**20
"""Maximum size of a caption file or a JSON file."""
NOT_USED = "file of the shard that is not used"
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
            for sample in _samples(shard, reading):
                number += 1
                yield f"sample {number}", sample.row(reading.row_prefix)
    except (DataError, OSError) as error:
        if not number:
            raise DataError(str(error)) from None
        reading.problems.add("shard damaged or cut off, the samples before are used", error)


def _samples(shard: Tar, reading: Reading) -> Iterator[_Sample]:
    """Yield the samples of a shard, also the last one before damage."""
    sample: _Sample | None = None
    names = SeenTexts()
    damage = None
    members = shard.members(reading.problems)
    while True:
        try:
            member = next(members, None)
            if member is None:
                break
            key, endings = _key_and_endings(member.name)
            if not key:
                reading.problems.add(unread_kind(member.name) or NOT_USED, member.name)
                continue
            if not names.add(member.name):
                reading.problems.add(REPEATED, member.name)
                continue
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample
                sample = _Sample(key)
            _add(sample, member, endings, shard, reading)
        except DataError as error:
            damage = error
            break
    if sample is not None:
        yield sample
    if damage is not None:
        raise damage


def _key_and_endings(name: str) -> tuple[str, str]:
    """Return the key of a file and its endings, for example "a/000" and ".left.jpg".

    The key is "" for hidden files and for files without an ending.
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, endings = base.partition(".")
    return (folder + slash + stem, dot + endings) if stem and endings else ("", "")


def _add(sample: _Sample, member: Member, endings: str, shard: Tar, reading: Reading) -> None:
    """Add a file to a sample, or record why it is not used."""
    ending = "." + endings.lower().rpartition(".")[2]
    if is_picture_name(member.name):
        sample.pictures.append(member_path(shard.path, member.name))
        return
    if ending not in (*CAPTION_ENDINGS, *LABEL_ENDINGS, ".json"):
        reading.problems.add(unread_kind(member.name) or NOT_USED, member.name)
        return
    if member.size > MAX_TEXT_BYTES:
        reading.problems.add(UNREADABLE, f"{member.name} ({member.size:,} bytes)")
        return
    content = shard.read(member)
    try:
        text = content.decode(reading.encoding or detect_encoding(content)).removeprefix("\ufeff")
        value = json.loads(text) if ending == ".json" else text
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        reading.problems.add(UNREADABLE, f"{member.name} ({reason})")
        return
    if ending in CAPTION_ENDINGS:
        sample.captions.append(text)
    elif ending in LABEL_ENDINGS:
        sample.labels.append(text.strip())
    elif isinstance(value, dict):
        sample.fields.update(value)
    elif isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        sample.captions += value
    else:
        reading.problems.add(UNREADABLE, f"{member.name} (not an object or a list of texts)")
