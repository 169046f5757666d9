"""Arrays of a file of features, by name: .npz, .npy, .mat and Parquet.

Large arrays are not read into memory: they are memory-mapped where the file has them as they are,
else written once to a file without a name, see :mod:`xmodal.data.spill`.
"""

from __future__ import annotations

import logging
import math
import shutil
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmodal.checksums import is_damage
from xmodal.data.mat_elements import check_elements
from xmodal.data.spill import spill_file
from xmodal.data.vectors import NPY_MAGIC
from xmodal.errors import DataError, require

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Array = npt.NDArray[Any]

MAPPED_BYTES = 1 << 24
"""Bytes from which an array is memory-mapped."""
COPIED_BYTES = 1 << 20
"""Bytes that are read at once."""
PARQUET_ROWS = 4096
"""Rows of a Parquet file that are read at once."""
LOCAL_HEADER = 30
"""Bytes of the header of a member of an archive, before its name."""
log = logging.getLogger(__name__)

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


def read_npy(path: Path) -> Array:
    """Memory-map the array of a .npy file. Raises DataError."""
    try:
        with open(path, "rb") as file:  # numpy leaves a file open that is no array
            if file.read(len(NPY_MAGIC)) != NPY_MAGIC:
                raise DataError(f"{path} is no .npy file, expected an array of features (np.save)")
        loaded: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except LOAD_ERRORS as error:
        raise _unreadable(path, error) from None
    return loaded


def read_npz(path: Path, wanted: Collection[str]) -> dict[str, Array]:
    """Read the arrays of an archive whose names are ``wanted``. Raises DataError.

    Large arrays are memory-mapped: in the archive if they are stored as they are, else from a copy.
    """
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is one array, expected an archive of arrays (np.savez)")
            members = archive.zip
            assert members is not None
            names = [name for name in archive.files if name in wanted]
            for info in members.infolist():
                if info.filename.removesuffix(".npy") in names:
                    _check_size(members, info)
            large = {n for n in names if _stored_bytes(members, n) >= MAPPED_BYTES}
            arrays = {
                name: _mapped(path, members, members.getinfo(f"{name}.npy"))
                if name in large
                else archive[name]
                for name in names
            }
        if other := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{other[0]} is no array")
        return arrays
    except LOAD_ERRORS as error:
        raise _unreadable(path, error) from None


def _stored_bytes(archive: zipfile.ZipFile, name: str) -> int:
    """Return the size of an array in an archive; 0 for a member that is no array."""
    known = archive.NameToInfo.get(f"{name}.npy")
    return 0 if known is None else known.file_size


def _mapped(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """Memory-map an array of an archive, after its checksum was compared."""
    with archive.open(info) as member:
        shape, fortran, dtype = _header(member, info)
        if dtype.hasobject:
            raise ValueError("pickled objects")
        start = member.tell()
        options: dict[str, Any] = {"shape": shape, "order": "F" if fortran else "C"}
        if info.compress_type == zipfile.ZIP_STORED:
            while member.read(COPIED_BYTES):  # at its end, the checksum is compared
                pass
            first = _first_byte(path, info) + start
            return np.memmap(path, dtype, "r", first, **options)
        with spill_file(info.file_size - start) as copy:
            shutil.copyfileobj(member, copy, COPIED_BYTES)
            copy.flush()
            return np.memmap(copy, dtype, "r", **options)


def _first_byte(path: Path, info: zipfile.ZipInfo) -> int:
    """Return the position of a member's content in its archive."""
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        header = file.read(LOCAL_HEADER)
    name, extra = struct.unpack("<HH", header[-4:])
    return info.header_offset + LOCAL_HEADER + int(name) + int(extra)


def _check_size(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Raise ValueError for an array with more values than its member of an archive."""
    with archive.open(info) as member:
        if member.read(len(NPY_MAGIC)) != NPY_MAGIC:
            return
    with archive.open(info) as member:
        shape, _, dtype = _header(member, info)
        if math.prod(shape) * dtype.itemsize > info.file_size:
            raise ValueError(f"{info.filename} of the shape {shape} has too few values")


def _header(member: IO[bytes], info: zipfile.ZipInfo) -> tuple[tuple[int, ...], bool, Any]:
    """Read the header of an array: shape, whether in the order of Fortran, and type."""
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    if member.read(len(NPY_MAGIC)) != NPY_MAGIC:
        raise ValueError(f"{info.filename} is no array")
    version = member.read(2)[:1]
    if version not in (b"\1", b"\2"):
        raise ValueError(f"{info.filename} is of an unknown version")
    return read[version[0]](member)


def read_mat(path: Path, wanted: Collection[str]) -> dict[str, Array]:
    """Read the arrays of a .mat file of MATLAB 4 to 7.2; cell arrays of texts become texts.

    Raises DataError, and ExtraMissing without scipy.
    """
    require(f"reading {path.name}", "mat")
    import scipy.io

    if path.stat().st_size >= MAPPED_BYTES:
        log.warning("%s is read into memory as a whole: np.savez of its arrays is not", path)
    try:
        check_elements(path, wanted)
        content = scipy.io.loadmat(path, variable_names=wanted)
    except NotImplementedError:  # HDF5, which scipy does not read
        raise DataError(
            f"{path} is a MATLAB 7.3 file (HDF5), expected version 7 or older: save it with "
            "save(..., '-v7'), or its arrays with np.savez"
        ) from None
    except Exception as error:  # scipy raises many types for a damaged file
        raise _unreadable(path, error) from None
    return {name: _plain(value) for name, value in content.items() if name in wanted}


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


def read_parquet(path: Path, wanted: Collection[str]) -> dict[str, Array]:
    """Read the columns of a Parquet file whose names are ``wanted``, some rows at a time.

    Features are lists of numbers of one length, or lists of such lists, for several captions or
    pictures a row. Raises DataError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name in wanted]
            arrays: dict[str, Array] = {}
            for name in names:
                arrays |= _column(file, name)
            return arrays
    except (pa.ArrowException, *LOAD_ERRORS) as error:
        raise _unreadable(path, error) from None


def _column(file: pq.ParquetFile, name: str) -> dict[str, Array]:
    """Return a column as an array; of lists of captions also the array ``rows``."""
    import pyarrow as pa

    kind = file.schema_arrow.field(name).type
    if _is_list(kind):
        return _features(file, name, several=_is_list(kind.value_type))
    column = pa.chunked_array([part.column(0) for part in _batches(file, name)], kind)
    if column.null_count:
        raise ValueError(f"{name} has {column.null_count:,} rows without a value")
    values = column.to_numpy()
    return {name: np.array(values, str) if values.dtype == object else values}


def _features(file: pq.ParquetFile, name: str, *, several: bool) -> dict[str, Array]:
    """Copy features to a file without a name, and map it; ``several``: lists of them in a row."""
    if several and name != "text":
        raise ValueError(f"{name} has lists of vectors, expected one vector a row")
    items: list[npt.NDArray[np.int64]] = []
    found: set[tuple[int, Any]] = set()
    done = 0
    with spill_file(0) as copy:
        for batch in _batches(file, name):
            rows, values = np.arange(done, done + len(batch)), batch.column(0)
            done += len(batch)
            if several:
                rows, values = np.repeat(rows, _lengths(values, name)), values.flatten()
            lengths, numbers = _lengths(values, name), values.flatten()
            plain = numbers.to_numpy(zero_copy_only=False)
            found |= {(width, plain.dtype) for width in np.unique(lengths).tolist()}
            if len(found) > 1 or plain.dtype.kind != "f" or numbers.null_count:
                raise ValueError(f"{name} is {values.type}, expected numbers, as many in each row")
            items.append(rows)
            copy.write(plain.tobytes())
        copy.flush()
        if not found:
            raise ValueError(f"{name} has no features")
        width, dtype = found.pop()
        matrix = np.memmap(copy, dtype, "r").reshape(-1, width)
    return {name: matrix, "rows": np.concatenate(items)} if several else {name: matrix}


def _lengths(lists: pa.Array, name: str) -> npt.NDArray[np.int64]:
    """Return the lengths of lists. Raises ValueError for a missing one."""
    import pyarrow.compute as pc

    if lists.null_count:
        raise ValueError(f"{name} has rows without a value")
    lengths: npt.NDArray[np.int64] = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    return lengths


def _batches(file: pq.ParquetFile, name: str) -> Iterator[pa.RecordBatch]:
    batches: Iterator[pa.RecordBatch] = file.iter_batches(PARQUET_ROWS, columns=[name])
    return batches


def _is_list(kind: Any) -> bool:
    """Return whether a type of pyarrow is one of lists."""
    import pyarrow.types as pt

    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind))


READERS: Mapping[str, Callable[[Path, Collection[str]], dict[str, Array]]] = {
    ".npz": read_npz,
    ".mat": read_mat,
    ".parquet": read_parquet,
}
"""Reader of the arrays of one file, by its ending."""
