"""Identity of a training run: whether a model in a folder is the result of the same run.

The identity covers items, captions, labels, options, settings and features of a file. The bytes of
the pictures are recorded beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from xmodal.config import ADDED_OPTIONS, Options, added_settings, current_names, used_settings
from xmodal.data.dataset import Dataset
from xmodal.data.items import ImageSource
from xmodal.data.picture_files import joint_hash, picture_hashes, picture_stamp
from xmodal.errors import ConfigError
from xmodal.features.from_file import FileSource


def run_identity(
    data: Dataset,
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
    features: FileSource | None = None,
) -> str:
    """Return a hash of pairs, options, settings in their stored order, and features of a file."""
    hashed = hashlib.blake2b(digest_size=8)
    # Options that runs of earlier versions lacked are left out at their defaults.
    chosen = {k: v for k, v in options.items() if k not in ADDED_OPTIONS or v != ADDED_OPTIONS[k]}
    hashed.update(json.dumps([chosen, settings]).encode())
    if features is not None:
        hashed.update(features.file.digest.encode())
    for item in data:
        image, text = _name_of(item.images), _name_of(item.captions)
        hashed.update(f"{item.id}\0{image}\0{text}\0{item.labels}\0".encode())
    return hashed.hexdigest()


def pictures_record(pairs: Dataset, hashes: Mapping[ImageSource, str | None]) -> dict[str, str]:
    """Return what a model stores of the pictures; ``hashes``: of the bytes of each picture."""
    return {"sha256": _bytes_hash(pairs, hashes), "stamp": _stamp_hash(pairs)}


def find_difference(
    about: Mapping[str, Any],
    pairs: Dataset,
    options: Options,
    config: Any,
    features: FileSource | None,
) -> str | None:
    """Return how the run of a stored encoder differs from this one, None for the same run.

    ``about``: what the encoder has stored of its training. Settings of an earlier version are
    compared under their current names, settings without effect are not compared. Pictures are
    compared by their bytes, unless the features are those of a file; pictures whose stamps have not
    changed are not read.
    """
    stored, settings = about.get("options"), about.get("settings")
    if not isinstance(stored, dict) or not isinstance(settings, dict):
        return "settings that it does not record"
    try:
        renamed = added_settings(config) | current_names(type(config), settings)
    except ConfigError:
        return "settings of an earlier version"
    used = used_settings(renamed), used_settings(asdict(config))
    for before, now in ((ADDED_OPTIONS | stored, asdict(options)), used):
        names = sorted(
            name for name in before.keys() | now.keys() if before.get(name) != now.get(name)
        )
        if names:
            name = names[0]
            return f"another setting ({name} {before.get(name)!r}, not {now.get(name)!r})"
    if about.get("identity") != run_identity(pairs, stored, settings, features):
        return "other items, captions, labels or features"
    if features is None and not _same_pictures(about, pairs):
        return "other pictures under the same names"
    return None


def _name_of(sources: Sequence[object]) -> object:
    """Return one source, or the list of several ones, for the identity."""
    return sources[0] if len(sources) == 1 else [str(source) for source in sources]


def _bytes_hash(pairs: Dataset, hashes: Mapping[ImageSource, str | None]) -> str:
    """Return one hash of the bytes of all pictures; ``hashes``: of each picture."""
    if pairs.lazy:
        return _no_bytes(pairs)
    return joint_hash([hashes[image] or "" for image in pairs.pictures()])


def _stamp_hash(pairs: Dataset) -> str:
    """Return one hash of the stamps of all pictures."""
    if pairs.lazy:
        return _no_bytes(pairs)
    return joint_hash([picture_stamp(image) or "" for image in pairs.pictures()])


def _no_bytes(pairs: Dataset) -> str:
    """Return the hash for pictures that are names of features."""
    return joint_hash([""] * int(pairs.sizes("image").sum()))


def _same_pictures(about: Mapping[str, Any], pairs: Dataset) -> bool:
    """Whether a stored encoder was trained on these pictures, if it has a record of them."""
    stored = about.get("pictures")
    if not isinstance(stored, dict):  # of an earlier version
        return True
    if stored.get("stamp") == _stamp_hash(pairs):
        return True
    hashes = picture_hashes(pairs.pictures())
    return stored.get("sha256") == _bytes_hash(pairs, hashes)
