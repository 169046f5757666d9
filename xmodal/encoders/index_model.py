"""The model of a local index: its folder, recorded beside the documents.

``model.json`` in the folder of an index has the path of the encoder whose codes it holds, and its
fingerprint. An encoder that was fitted for the index lies in the subfolder ``model``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from xmodal.checksums import check_digest, with_digest
from xmodal.encoders.folder import CONFIG, read_json
from xmodal.errors import ConfigError
from xmodal.index.folder import MODEL_FOLDER, MODEL_RECORD, is_index, lock_index
from xmodal.operating_system import file_path
from xmodal.writing import write_json

DEFAULT_MODEL = Path(".xmodal", "model")
"""Folder of the encoder, in the working directory, that train writes unless --out is given."""
DEFAULT_INDEX = str(Path(".xmodal", "index"))
"""Folder of the index, in the working directory, that index and search use without --index."""


def local_folder(uri: str) -> Path | None:
    """Return the folder of a local index, None for an address of another backend."""
    path = file_path(uri)
    return None if "://" in path else Path(path)


@contextmanager
def lock_local(uri: str) -> Iterator[None]:
    """Hold the lock of a local index; no effect for other backends.

    Raises InUse if another process holds it, IndexFailure for a folder that is no index.
    """
    folder = local_folder(uri)
    with nullcontext() if folder is None else lock_index(folder):
        yield


def own_model(folder: Path) -> Path:
    """Return the folder of an encoder that is fitted for an index."""
    return folder / MODEL_FOLDER


def record_model(uri: str, model: Path, fingerprint: str) -> None:
    """Record the encoder of a local index; no effect for other backends."""
    folder = local_folder(uri)
    if folder is not None:
        own = own_model(folder)
        is_own = own.is_dir() and model.is_dir() and os.path.samefile(own, model)
        path = MODEL_FOLDER if is_own else str(model.resolve())
        record = with_digest({"model": path, "fingerprint": fingerprint})
        write_json(folder / MODEL_RECORD, record)


def recorded_model(uri: str) -> Path | None:
    """Return the folder of the encoder that the record of a local index names, None without one.

    Raises ConfigError if the record is damaged.
    """
    folder = local_folder(uri)
    if folder is None or not (record := folder / MODEL_RECORD).exists():
        return None
    try:
        content = read_json(record)
        check_digest(content, record.name)
        return folder / str(content["model"])
    except (ValueError, KeyError, TypeError, IsADirectoryError) as error:
        raise ConfigError(
            f"{record} is damaged ({error}): name the encoder's folder with --model"
        ) from None


def default_model() -> Path | None:
    """Return DEFAULT_MODEL if there is an encoder, else None."""
    return DEFAULT_MODEL if (DEFAULT_MODEL / CONFIG).is_file() else None


def find_model(uri: str) -> Path | None:
    """Return the folder of the encoder that a local index records.

    For an index of another backend, which records none, it is DEFAULT_MODEL. None if there is no
    index yet. Raises ConfigError if the index records none, if its record is damaged, and if
    another backend has no default model.
    """
    folder = local_folder(uri)
    if folder is None:
        if (default := default_model()) is not None:
            return default
        raise ConfigError(f"--model is missing: {uri} records no model, name its encoder's folder")
    recorded = recorded_model(uri)
    if recorded is not None:
        return recorded
    if (own_model(folder) / CONFIG).is_file():  # a first indexing was stopped
        return own_model(folder)
    if is_index(folder):
        raise ConfigError(
            f"--model is missing: the index {folder} has no {MODEL_RECORD}, which records its "
            "model: name its encoder's folder"
        )
    return None
