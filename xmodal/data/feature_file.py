"""Files of features that another program computed: .npz, .mat, Parquet, or two .npy files.

Arrays of a .npz or .mat file, or columns of Parquet, by name; ``image`` or ``text`` may be absent:

    ids      (n,) ids of the items; default: the numbers of the rows
    image    (n, d), or (n, pictures, d)
    text     (n, captions, d), or (n, d), or (rows, d) with ``rows``
    rows     (rows,) item of each caption: its position in ``ids``, or its id
    split    (n,) names of a split
    labels   (n,) labels, or (n, classes) multi-hot, then ``classes`` may name them; used on request

Two .npy files are ``image`` and ``text``. A column of Parquet has a list of numbers in each row,
``text`` also a list of such lists, and no ``rows``. Features are float16, float32 or float64.
Positions in a .mat file count from 1, as in MATLAB, unless one of them is 0.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmodal.data.dataset import Dataset
from xmodal.data.feature_arrays import READERS, read_npy
from xmodal.data.feature_items import FeatureItems
from xmodal.data.names import Names, first_repeated
from xmodal.data.spill import take_rows
from xmodal.data.vectors import CHUNK
from xmodal.errors import ConfigError, DataError
from xmodal.modality import MODALITIES, Modality

Array = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]

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
    ids: Sequence[str] | None = None
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
        names = self.names[start:end]
        split = self.split[start:end] if self.split is not None else None
        labels = self.labels[start:end] if self.labels is not None else None
        return FeatureFile(self.name, end - start, rows, offsets, names, split, labels)

    @cached_property
    def digest(self) -> str:
        """Hash of the features and of the items that they belong to."""
        hashed = hashlib.blake2b(digest_size=16)
        for row, name in enumerate(self.names):
            hashed.update(f"\0{name}".encode() if row else name.encode())
        for modality, rows in self.rows.items():
            hashed.update(f"\0{modality} {rows.shape} {rows.dtype.str}".encode())
            hashed.update(self.offsets[modality].tobytes())
            for start in range(0, len(rows), CHUNK):
                hashed.update(np.ascontiguousarray(rows[start : start + CHUNK]).tobytes())
        return hashed.hexdigest()

    @cached_property
    def names(self) -> Sequence[str]:
        """The ids, or the numbers of the rows from 0."""
        return self.ids if self.ids is not None else Names.numbers(self.count)

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
        items = FeatureItems.of(self, labels=label_column is not None)
        return Dataset(items, name=self.name, label_column=label_column, source=self.name)


def is_feature_file(path: Path) -> bool:
    """Whether the ending of a path is that of a file of features of both modalities."""
    return path.suffix.lower() in (".npz", ".mat")


def read_feature_file(paths: Path | Sequence[Path]) -> FeatureFile:
    """Read one .npz, .mat or Parquet file, or two .npy files: of pictures, and of texts.

    Raises DataError in one line for a file that is missing, damaged or pickled, and for arrays
    whose shapes or types do not fit together; ConfigError for other endings; ExtraMissing for a
    .mat file without scipy.
    """
    files = [paths] if isinstance(paths, Path) else list(paths)
    for file in files:
        if not file.is_file():
            found = "is a folder" if file.is_dir() else "does not exist"
            raise DataError(
                f"{file} {found}, expected a file of features (.npz, .mat, .parquet, .npy)"
            )
    endings = [file.suffix.lower() for file in files]
    name = ", ".join(file.name for file in files)
    if len(files) == 1 and endings[0] in READERS:
        arrays = READERS[endings[0]](files[0], ARRAYS)
    elif endings == [".npy", ".npy"]:
        arrays = {m: read_npy(file) for m, file in zip(MODALITIES, files, strict=True)}
    else:
        raise ConfigError(
            f"--features has the file{'s' * (len(files) != 1)} {name or 'none'}, expected one .npz "
            "or .mat or .parquet file, or two .npy files: --features image.npy --features text.npy"
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
        if ids is not None and (repeated := first_repeated(ids)) is not None:
            raise DataError(f"{self.name} has the id {repeated!r} twice, expected different ids")
        rows: dict[Modality, Array] = {}
        offsets: dict[Modality, Int64] = {}
        for modality in present:
            rows[modality], offsets[modality] = self._matrix(modality, count, ids)
        split = [*map(sys.intern, self._texts("split"))] if "split" in self.arrays else None
        if split is not None and len(split) != count:
            raise self._mismatch("split", (len(split),), f"({count},)")
        return FeatureFile(self.name, count, rows, offsets, ids, split, self._labels(count))

    def _count(self, present: Sequence[Modality]) -> int:
        """Return the number of items of a file without ids: that of the pictures, if any."""
        if "image" not in present and "rows" in self.arrays:
            raise DataError(f"{self.name} has rows, expected ids as well: add the array ids, (n,)")
        return len(self.arrays[present[0]])

    def _matrix(
        self, modality: Modality, count: int, ids: Sequence[str] | None
    ) -> tuple[Array, Int64]:
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
            array, item = take_rows(array, order), item[order]
        counts = np.bincount(item, minlength=count)
        return array, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def _items_of_rows(self, length: int, count: int, ids: Sequence[str] | None) -> Int64:
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
        """Return the labels of each item; equal ones are one object."""
        if "labels" not in self.arrays:
            return None
        array = self.arrays["labels"]
        known: dict[Any, tuple[str, ...]] = {}
        if array.ndim == 2 and min(array.shape) > 1 and array.dtype.kind in "biuf":
            if len(array) != count:
                raise self._mismatch("labels", array.shape, f"({count},) or ({count}, classes)")
            classes = self._texts("classes") if "classes" in self.arrays else None
            names = classes or [str(column) for column in range(array.shape[1])]
            if len(names) != array.shape[1]:
                raise self._mismatch("classes", (len(names),), f"({array.shape[1]},)")
            for row in array:
                if (key := row.tobytes()) not in known:
                    known[key] = tuple(names[column] for column in np.flatnonzero(row).tolist())
            return [known[row.tobytes()] for row in array]
        labels = self._texts("labels")
        if len(labels) != count:
            raise self._mismatch("labels", array.shape, f"({count},) or ({count}, classes)")
        return [known.setdefault(label, (label,) if label else ()) for label in labels]

    def _texts(self, name: str) -> Names:
        """Return an array of texts or whole numbers as texts."""
        array = _flat(self.arrays[name])
        if array.dtype.kind == "f" and (array == np.floor(array)).all():
            array = array.astype(np.int64)
        if array.dtype.kind not in "UiuS" or array.ndim != 1:
            raise DataError(
                f"{name} of {self.name} is {array.dtype} of shape {array.shape}, expected texts or "
                "whole numbers, one an item"
            )
        texts = Names.of_array(array)
        try:
            for text in texts if array.dtype.kind == "U" else ():
                text.encode()
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
