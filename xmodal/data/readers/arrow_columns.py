"""Columns of Arrow batches as Python values, and columns that hold pictures.

A column holds pictures if its values are the bytes of pictures, or objects of bytes and path, as
the library ``datasets`` writes them, or lists of either. Its pictures are named by their virtual
paths, see :mod:`xmodal.data.packed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import repeat
from typing import TYPE_CHECKING, Any

from xmodal.data.packed.names import PackedName
from xmodal.data.problems import Problems
from xmodal.data.readers.values import plain_value

if TYPE_CHECKING:
    import pyarrow as pa

SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP")
"""First bytes of JPEG, PNG, GIF, BMP, TIFF and JPEG 2000."""


def may_hold_pictures(type_: pa.DataType) -> bool:
    """Whether values of a type may be pictures: bytes, objects of bytes and path, lists of them."""
    import pyarrow.types as t

    if t.is_list(type_) or t.is_large_list(type_) or t.is_fixed_size_list(type_):
        return not t.is_list(type_.value_type) and may_hold_pictures(type_.value_type)
    if t.is_struct(type_):
        return is_bytes_and_path(type_)
    return bool(t.is_binary(type_) or t.is_large_binary(type_) or t.is_binary_view(type_))


def is_bytes_and_path(type_: pa.DataType) -> bool:
    """Whether a type is an object with bytes and a path."""
    import pyarrow.types as t

    if not t.is_struct(type_):
        return False
    fields = {type_.field(k).name: type_.field(k).type for k in range(type_.num_fields)}
    return {*fields} == {"bytes", "path"} and may_hold_pictures(fields["bytes"])


def are_pictures(values: list[Any], named: bool) -> bool:
    """Whether the first bytes among values are those of a picture.

    ``named``: the column is the one of pictures; then any bytes that are no text are a picture.
    """
    data = next((data for value in values for data in _all_bytes(value)), b"")
    return is_picture(data) or (named and isinstance(plain_value(data), bytes))


def is_picture(data: bytes) -> bool:
    """Whether bytes begin as those of a picture do."""
    return (
        data.startswith(SIGNATURES)
        or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or (data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1"))
    )


def _all_bytes(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        yield from _all_bytes(value.get("bytes"))
    elif isinstance(value, list):
        for one in value:
            yield from _all_bytes(one)


def picture_values(values: pa.Array, prefix: str, first: int) -> list[Any]:
    """Return the pictures of a column: virtual paths, lists of them, texts, or None.

    ``prefix``: path of the file and name of the column. ``first``: row of the first value in the
    file, from 0. An object without bytes is its path.
    """
    import pyarrow as pa
    import pyarrow.types as t

    rows = range(first, first + len(values))
    if not (t.is_struct(values.type) or t.is_nested(values.type)):
        return [
            PackedName(f"{prefix}/{row}") if valid else None
            for row, valid in zip(rows, values.is_valid().to_pylist(), strict=True)
        ]
    if t.is_struct(values.type):
        children = dict(zip([f.name for f in values.type], values.flatten(), strict=True))
        packed = picture_values(children["bytes"], prefix, first)
        paths = column_values(children["path"], [])
        return [name or path for name, path in zip(packed, paths, strict=True)]
    found: list[Any] = []
    for row, scalar in zip(rows, values, strict=True):
        inner = scalar.values
        found.append(
            None if inner is None else picture_values(pa.array(inner), f"{prefix}/{row}", 0)
        )
    return found


def batch_rows(
    columns: Sequence[tuple[str, list[Any]]], first: int, number: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("row N", row) of the values of columns; ``first`` is the first row, from 0."""
    names = [name for name, _ in columns]
    lists = [values for _, values in columns]
    rows = zip(*lists, strict=True) if lists else repeat((), number)
    for place, row in enumerate(rows, first + 1):
        yield f"row {place}", dict(zip(names, row, strict=True))


def readable_values(values: pa.Array) -> Iterator[Any]:
    """Yield the values of a column that may hold pictures, without those that are not readable.

    Of an object of bytes and path, yield the bytes.
    """
    import pyarrow.types as t

    for scalar in values.field("bytes") if t.is_struct(values.type) else values:
        with suppress(ValueError, OverflowError):
            yield scalar.as_py()


def column_values(values: pa.Array, unreadable: list[int]) -> list[Any]:
    """Return the values of a column as texts, numbers, lists and objects.

    The places of values that are not readable are added to ``unreadable``: a text that is not in
    UTF-8, a date beyond the year 9999. Such a text has replacement characters; others are None.
    """
    import pyarrow as pa
    import pyarrow.types as t

    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if t.is_dictionary(values.type):
        values = values.dictionary_decode()
    if t.is_temporal(values.type) and getattr(values.type, "unit", "") == "ns":
        values = values.cast(_in_microseconds(values.type), safe=False)
    kind = values.type
    plain = t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind) or t.is_string(kind)
    try:
        found = values.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        found = [_value(one, place, unreadable) for place, one in enumerate(values)]
    return found if plain else [plain_value(value) for value in found]


def recorded_values(column: Any, name: str, first: int, problems: Problems) -> list[Any]:
    """Return the values of a column; those that are not readable are recorded, and None.

    ``first``: number of the column's first row, from 0.
    """
    unreadable: list[int] = []
    values = column_values(column, unreadable)
    for place in unreadable:
        problems.add("value that is not readable", f"row {first + place + 1}, column {name}")
    return values


def _in_microseconds(type_: pa.DataType) -> pa.DataType:
    import pyarrow as pa
    import pyarrow.types as t

    if t.is_timestamp(type_):
        return pa.timestamp("us", tz=type_.tz)
    return pa.time64("us") if t.is_time(type_) else pa.duration("us")


def _value(scalar: pa.Scalar, place: int, unreadable: list[int]) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError) as error:
        unreadable.append(place)
        if isinstance(error, UnicodeDecodeError):
            return bytes(error.object).decode(errors="replace")
        return None
