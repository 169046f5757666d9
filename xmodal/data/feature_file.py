"""Files of features that another program computed: .npz, .mat, or a pair of .npy files.

Arrays of a .npz or .mat file, by name; ``image`` or ``text`` may be absent:

    ids      (n,) ids of the items; default: the numbers of the rows
    image    (n, d), or (n, pictures, d)
    text     (n, captions, d), or (n, d), or (rows, d) with ``rows``
    rows     (rows,) item of each caption: its position in ``ids``, or its id
    split    (n,) names of a split
    labels   (n,) labels, or (n, classes) multi-hot, then ``classes`` may name them; used on request

Two .npy files are ``image`` and ``text``. Features are float16, float32 or float64. Positions in a
.mat file count from 1, as in MATLAB, unless one of them is 0.
"""

from __future__ import annotations

import hashlib
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.checksums import is_damage
from xmodal.data.dataset import Dataset, Item
from xmodal.data.mat_elements import check_elements
from xmodal.data.vectors import CHUNK, NPY_MAGIC
from xmodal.errors import ConfigError, DataError, require
from xmodal.modality import MODALITIES, Modality

Array = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]

ENDINGS = (".npz", ".mat")
"""Endings (lower case) of files that hold the features of both modalities."""
ARRAYS = ("ids", *MODALITIES, "rows", "split", "labels", "classes")


@dataclass(frozen=True, eq=False)
class FeatureFile:
    """Features of ``n`` items, as they are stored.

    ``rows[modality]``: (m, d); those of item i are ``offsets[modality][i]`` to
    ``offsets[modality][i + 1]``. ``ids`` is None if the file has none. ``split``: (n,) names;
    ``labels``: (n,) labels of each item. Both are None if the file has none.
    """

    name: str
    count: int
    rows: Mapping[Modality, Array]
    offsets: Mapping[Modality, Int64]
    ids: list[str] | None = None
    split: list[str] | None = None
    labels: list[tuple[str, ...]] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.count

    def dim(self, modality: Modality) -> int | None:
        """Return the length of a feature vector, or None if the file has no such features."""
        return self.rows[modality].shape[1] if modality in self.rows else None

    def positions(self, modality: Modality, item: int) -> Int64:
        """Return the positions in ``rows[modality]`` of the features of an item."""
        if modality not in self.rows:
            return np.zeros(0, np.int64)
        start, end = self.offsets[modality][item : item + 2]
        return np.arange(start, end)

    def slice(self, start: int, end: int) -> FeatureFile:
        """Return the features of the items from ``start`` to ``end``; arrays are not copied."""
        end = min(end, self.count)
        rows, offsets = {}, {}
        for modality, stored in self.offsets.items():
            part = stored[start : end + 1]
            rows[modality] = self.rows[modality][part[0] : part[-1]]
            offsets[modality] = part - part[0]
        names = self.ids[start:end] if self.ids else [str(row) for row in range(start, end)]
        split = self.split[start:end] if self.split is not None else None
        labels = self.labels[start:end] if self.labels is not None else None
        return FeatureFile(self.name, end - start, rows, offsets, names, split, labels)

    @cached_property
    def digest(self) -> str:
        """Hash of the features and of the items that they belong to."""
        hashed = hashlib.blake2b("\0".join(self.names).encode(), digest_size=16)
        for modality, rows in self.rows.items():
            hashed.update(f"\0{modality} {rows.shape} {rows.dtype.str}".encode())
            hashed.update(self.offsets[modality].tobytes())
            for start in range(0, len(rows), CHUNK):
                hashed.update(np.ascontiguousarray(rows[start : start + CHUNK]).tobytes())
        return hashed.hexdigest()

    @cached_property
    def names(self) -> list[str]:
        """The ids, or the numbers of the rows from 0."""
        return self.ids if self.ids is not None else [str(row) for row in range(self.count)]

    def dataset(self, label_column: str | None = None) -> Dataset:
        """Return the items of the file, without pictures and captions.

        ``label_column``: "labels" to use the array ``labels``. Raises ConfigError for other names,
        or if there is no such array.
        """
        if label_column is not None and (label_column != "labels" or self.labels is None):
            found = "has an array labels" if self.labels is not None else "has no array labels"
            raise ConfigError(
                f"{self.name} {found}, expected labels in an array {label_column!r}: "
                + ("name it with --label-column labels" if self.labels else "leave the option out")
            )
        items = tuple(
            Item(
                id_,
                labels=self.labels[row] if label_column and self.labels is not None else None,
                split=self.split[row] if self.split is not None else None,
            )
            for row, id_ in enumerate(self.names)
        )
        return Dataset(items, name=self.name, label_column=label_column, source=self.name)


def is_feature_file(path: Path) -> bool:
    """Whether the ending of a path is that of a file of features of both modalities."""
    return path.suffix.lower() in ENDINGS


def read_feature_file(paths: Path | Sequence[Path]) -> FeatureFile:
    """Read one .npz or .mat file, or two .npy files: features of pictures, features of texts.

    Raises DataError in one line for a file that is missing, damaged or pickled, and for arrays
    whose shapes or types do not fit together; ConfigError for other endings; ExtraMissing for a
    .mat file without scipy.
    """
    files = [paths] if isinstance(paths, Path) else list(paths)
    for file in files:
        if not file.is_file():
            found = "is a folder" if file.is_dir() else "does not exist"
            raise DataError(f"{file} {found}, expected a file of features (.npz, .mat, .npy)")
    endings = [file.suffix.lower() for file in files]
    name = ", ".join(file.name for file in files)
    if endings == [".npz"]:
        arrays = _read_npz(files[0])
    elif endings == [".mat"]:
        arrays = _read_mat(files[0])
    elif endings == [".npy", ".npy"]:
        arrays = {m: _read_npy(file) for m, file in zip(MODALITIES, files, strict=True)}
    else:
        raise ConfigError(
            f"--features has the file{'s' * (len(files) != 1)} {name or 'none'}, expected one .npz "
            "or .mat file, or two .npy files: --features image.npy --features text.npy"
        )
    return _FileBuilder(name, arrays, first=1 if endings == [".mat"] else 0).build()


class _FileBuilder:
    """Checks the arrays of a file against each other. ``first``: smallest position in ``rows``."""

    def __init__(self, name: str, arrays: Mapping[str, Array], first: int) -> None:
        self.name, self.arrays, self.first = name, arrays, first

    def build(self) -> FeatureFile:
        """Return the features; raise DataError if arrays do not fit together."""
        present = [modality for modality in MODALITIES if modality in self.arrays]
        if not present:
            raise DataError(
                f"{self.name} has the arrays {', '.join(self.arrays) or 'none'}; expected image, "
                "(n, d), text, (n, captions, d), and ids, (n,): rename them"
            )
        ids = self._texts("ids") if "ids" in self.arrays else None
        count = len(ids) if ids is not None else self._count(present)
        if ids is not None and len(set(ids)) < count:
            repeated = next(id_ for row, id_ in enumerate(ids) if id_ in ids[:row])
            raise DataError(f"{self.name} has the id {repeated!r} twice, expected different ids")
        rows: dict[Modality, Array] = {}
        offsets: dict[Modality, Int64] = {}
        for modality in present:
            rows[modality], offsets[modality] = self._matrix(modality, count, ids)
        split = self._texts("split") if "split" in self.arrays else None
        if split is not None and len(split) != count:
            raise self._mismatch("split", (len(split),), f"({count},)")
        return FeatureFile(self.name, count, rows, offsets, ids, split, self._labels(count))

    def _count(self, present: Sequence[Modality]) -> int:
        """Return the number of items of a file without ids: that of the pictures, if any."""
        if "image" not in present and "rows" in self.arrays:
            raise DataError(f"{self.name} has rows, expected ids as well: add the array ids, (n,)")
        return len(self.arrays[present[0]])

    def _matrix(self, modality: Modality, count: int, ids: list[str] | None) -> tuple[Array, Int64]:
        """Return the rows of a modality, (m, d), and the offsets of the items, (n + 1,)."""
        array = self.arrays[modality]
        if array.dtype.kind != "f" or array.dtype.itemsize > 8:
            raise DataError(
                f"{modality} of {self.name} is {array.dtype}, expected float16, float32 or float64"
            )
        by_rows = modality == "text" and "rows" in self.arrays
        if array.ndim == 3 and not by_rows and len(array) == count and array.size:
            each = array.shape[1]
            return array.reshape(-1, array.shape[2]), np.arange(count + 1, dtype=np.int64) * each
        if array.ndim != 2 or not array.size or (not by_rows and len(array) != count):
            several = "captions" if modality == "text" else "pictures"
            more = ", or (rows, d) with the array rows" if modality == "text" else ""
            raise self._mismatch(
                modality, array.shape, f"({count}, d) or ({count}, {several}, d){more}"
            )
        if not by_rows:
            return array, np.arange(count + 1, dtype=np.int64)
        item = self._items_of_rows(len(array), count, ids)
        if (np.diff(item) < 0).any():
            order = np.argsort(item, kind="stable")
            array, item = array[order], item[order]
        counts = np.bincount(item, minlength=count)
        return array, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def _items_of_rows(self, length: int, count: int, ids: list[str] | None) -> Int64:
        """Return the item of each caption row, (rows,), from the array ``rows``."""
        array = _flat(self.arrays["rows"])
        if array.shape != (length,):
            raise self._mismatch("rows", array.shape, f"({length},), one item a row of text")
        if array.dtype.kind in "fiu" and (array == np.floor(array)).all():
            position = array.astype(np.int64)
            first = min(self.first, int(position.min()))
            if first < 0 or int(position.max()) >= count + first:
                raise DataError(
                    f"rows of {self.name} has positions {position.min()} to {position.max()}, "
                    f"expected positions of {count:,} items"
                )
            return position - first
        names = self._texts("rows")
        place = {id_: row for row, id_ in enumerate(ids or ())}
        unknown = [name for name in names if name not in place]
        if unknown:
            raise DataError(
                f"rows of {self.name} names {unknown[0]!r}, expected positions or ids of the items"
            )
        return np.array([place[name] for name in names], np.int64)

    def _labels(self, count: int) -> list[tuple[str, ...]] | None:
        if "labels" not in self.arrays:
            return None
        array = self.arrays["labels"]
        if array.ndim == 2 and min(array.shape) > 1 and array.dtype.kind in "biuf":
            if len(array) != count:
                raise self._mismatch("labels", array.shape, f"({count},) or ({count}, classes)")
            classes = self._texts("classes") if "classes" in self.arrays else None
            names = classes or [str(column) for column in range(array.shape[1])]
            if len(names) != array.shape[1]:
                raise self._mismatch("classes", (len(names),), f"({array.shape[1]},)")
            return [tuple(names[column] for column in np.flatnonzero(row)) for row in array]
        labels = self._texts("labels")
        if len(labels) != count:
            raise self._mismatch("labels", array.shape, f"({count},) or ({count}, classes)")
        return [(label,) if label else () for label in labels]

    def _texts(self, name: str) -> list[str]:
        """Return an array of texts or whole numbers as texts."""
        array = _flat(self.arrays[name])
        if array.dtype.kind == "f" and (array == np.floor(array)).all():
            array = array.astype(np.int64)
        if array.dtype.kind not in "UiuS" or array.ndim != 1:
            raise DataError(
                f"{name} of {self.name} is {array.dtype} of shape {array.shape}, expected texts or "
                "whole numbers, one an item"
            )
        if array.dtype.kind == "S":
            return [value.decode(errors="replace") for value in array.tolist()]
        try:
            texts = [str(value) for value in array.tolist()]
            "".join(texts).encode()
        except (ValueError, SystemError):  # SystemError: characters beyond those of Unicode
            raise DataError(f"{name} of {self.name} has texts that are not valid Unicode") from None
        return texts

    def _mismatch(self, name: str, found: tuple[int, ...], expected: str) -> DataError:
        shape = f"({', '.join(map(str, found))}{',' * (len(found) == 1)})"
        return DataError(
            f"{name} of {self.name} has shape {shape}, expected {expected}: one feature vector for "
            "each picture and caption of an item"
        )


def _flat(array: Array) -> Array:
    """Return a vector that a .mat file stores as a matrix with one row or column, as (n,)."""
    return array.reshape(-1) if array.ndim == 2 and 1 in array.shape else array


LOAD_ERRORS = (
    *(
        ValueError,
        OSError,
        EOFError,
        LookupError,
        TypeError,
        SyntaxError,
        RuntimeError,
        MemoryError,
        SystemError,  # of the tokenizer of Python 3.12
    ),
    *(OverflowError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
)
"""Exceptions of numpy for a damaged or pickled file."""


def _read_npy(path: Path) -> Array:
    """Memory-map the array of a .npy file."""
    try:
        with open(path, "rb") as file:  # numpy leaves a file open that is no array
            if file.read(len(NPY_MAGIC)) != NPY_MAGIC:
                raise DataError(f"{path} is no .npy file, expected an array of features (np.save)")
        loaded: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except LOAD_ERRORS as error:
        raise _unreadable(path, error) from None
    return loaded


def _read_npz(path: Path) -> dict[str, Array]:
    """Read the arrays of an archive whose names are in ``ARRAYS``."""
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is one array, expected an archive of arrays (np.savez)")
            names = [name for name in archive.files if name in ARRAYS]
            assert archive.zip is not None
            for info in archive.zip.infolist():
                if info.filename.removesuffix(".npy") in names:
                    _check_size(archive.zip, info)
            arrays = {name: archive[name] for name in names}
        if other := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{other[0]} is no array")
        return arrays
    except LOAD_ERRORS as error:
        raise _unreadable(path, error) from None


def _check_size(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Raise ValueError for an array with more values than its member of an archive."""
    with archive.open(info) as member:
        if member.read(len(NPY_MAGIC)) != NPY_MAGIC:
            return
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        version = member.read(2)[:1]
        if version not in (b"\1", b"\2"):
            raise ValueError(f"{info.filename} is of an unknown version")
        shape, _, dtype = read[version[0]](member)
        if math.prod(shape) * dtype.itemsize > info.file_size:
            raise ValueError(f"{info.filename} of the shape {shape} has too few values")


def _read_mat(path: Path) -> dict[str, Array]:
    """Read the arrays of a .mat file of MATLAB 4 to 7.2; cell arrays of texts become texts."""
    require(f"reading {path.name}", "mat")
    import scipy.io

    try:
        check_elements(path, ARRAYS)
        content = scipy.io.loadmat(path, variable_names=ARRAYS)
    except NotImplementedError:  # HDF5, which scipy does not read
        raise DataError(
            f"{path} is a MATLAB 7.3 file (HDF5), expected version 7 or older: save it with "
            "save(..., '-v7'), or its arrays with np.savez"
        ) from None
    except Exception as error:  # scipy raises many types for a damaged file
        raise _unreadable(path, error) from None
    return {name: _plain(value) for name, value in content.items() if name in ARRAYS}


def _plain(value: Array) -> Array:
    """Return a cell array (n, 1) of texts as an array of texts; other arrays are unchanged."""
    if value.dtype != object:
        return np.char.rstrip(value) if value.dtype.kind == "U" else value
    texts = ["".join(map(str, np.ravel(cell))) for cell in np.ravel(value)]
    return np.array(texts, dtype=str)


def _unreadable(path: Path, error: Exception) -> Exception:
    if not is_damage(error):
        return error
    reason = " ".join(str(error).split())
    if "pickle" in reason.lower():
        return DataError(
            f"{path} has pickled objects, which are not loaded; expected arrays of numbers and "
            "texts: save ids with dtype str, and captions as an array with rows"
        )
    return DataError(f"{path} is not readable ({reason[:120]}), expected a complete file of arrays")
