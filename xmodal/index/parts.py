"""Parts: Parquet files of encoded documents, one for each shard of a data set.

``xmodal encode`` writes parts, which indexes of all backends load without the encoder. The columns:

    id, fields (JSON), origin           texts
    image, text                         lists of codes, fixed-size binary
    image_vectors, text_vectors         lists of int8 vectors, fixed-size binary; of encoders with
                                        outputs

A row group has ``GROUP_ROWS`` documents, the last one the rest. The key ``xmodal.part`` of the
file's metadata has a JSON object: :class:`PartInfo`, a CRC-32 for each row group, and a digest of
the object. Equal documents give equal bytes.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from xmodal.checksums import bytes_of, check_digest, is_damage, with_digest
from xmodal.codes import check_bits
from xmodal.data.dataset import Problems
from xmodal.data.sharding import Shard
from xmodal.errors import CodeError, IndexFailure, IndexMismatch
from xmodal.index.documents import DocumentBatch
from xmodal.modality import MODALITIES
from xmodal.writing import atomic_write

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

GROUP_ROWS = 4096
FORMAT = 1
KEY = b"xmodal.part"
ENDING = ".parquet"
_DAMAGE = (ValueError, LookupError, AttributeError, CodeError)
"""Exceptions for columns of other types or values than those of a part."""
UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PartInfo:
    """What a part holds.

    ``listing``: digest of the data's files, see :func:`~xmodal.data.sharding.listing_digest`.
    ``source``: see :class:`~xmodal.index.origins.Origin`. ``dim``: length of the vectors, None
    without vectors and for a part without documents. ``codes``: number of codes by modality;
    ``problems``: number of unusable inputs by kind.
    """

    fingerprint: str
    bits: int
    listing: str
    source: str
    shard: Shard
    vectors: bool = True
    dim: int | None = None
    documents: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    problems: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the content for the metadata."""
        return {"format": FORMAT, **vars(self), "shard": [self.shard.number, self.shard.count]}


def write_part(
    path: Path, info: PartInfo, batches: Iterable[DocumentBatch], problems: Problems
) -> PartInfo:
    """Write documents to a part, which replaces ``path`` when it is complete.

    ``info``: without the numbers, which are counted; ``problems``: those that ``batches`` records.
    Memory is that of some batches. Raises InUse if another process writes the file, and OSError.
    """
    with atomic_write(path) as file:
        return write_part_file(file, info, batches, problems)


def write_part_file(
    file: BinaryIO, info: PartInfo, batches: Iterable[DocumentBatch], problems: Problems
) -> PartInfo:
    """Write a part to an open file; see :func:`write_part`."""
    checksums: list[int] = []
    codes: Counter[str] = Counter()
    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for batch in _regrouped(batches, info):
            if writer is None:
                info = replace(info, dim=batch.dim)
                writer = stack.enter_context(_writer(file, info))
            writer.write_table(_to_table(batch, writer.schema), row_group_size=GROUP_ROWS)
            checksums.append(_checksum(batch))
            info = replace(info, documents=info.documents + len(batch))
            codes.update({modality: len(batch.packed[modality]) for modality in MODALITIES})
        if writer is None:
            writer = stack.enter_context(_writer(file, info))
        info = replace(
            info,
            codes={modality: codes[modality] for modality in MODALITIES},
            problems=problems.count_by_kind(),
        )
        content = with_digest(info.to_json() | {"checksums": checksums})
        writer.add_key_value_metadata({KEY.decode(): json.dumps(content, sort_keys=True)})
    return info


def _writer(file: BinaryIO, info: PartInfo) -> pq.ParquetWriter:
    """Return a writer, which must be closed also after an error: its destructor raises others."""
    import pyarrow.parquet as pq

    return pq.ParquetWriter(file, _schema(info), compression="zstd", write_page_checksum=True)


class Part:
    """A part that is open for reading. ``info``: its metadata."""

    def __init__(self, path: Path) -> None:
        """Raises IndexFailure if the file is damaged or no part, IndexMismatch for its format."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            metadata = pq.read_metadata(path)
            content = json.loads((metadata.metadata or {})[KEY])
            if content.get("format") != FORMAT:
                raise IndexMismatch(
                    f"{path} is a part of format {content.get('format')!r}, this version reads "
                    f"{FORMAT}: use the version that wrote it"
                )
            check_digest(content, path.name)
            names = {name for name in PartInfo.__dataclass_fields__ if name != "shard"}
            self.info = PartInfo(
                **{name: content[name] for name in names}, shard=Shard(*content["shard"])
            )
            check_bits(self.info.bits)
            self._checksums: list[int] = content["checksums"]
            if metadata.num_rows != self.info.documents:
                raise ValueError(f"{metadata.num_rows:,} documents")
        except FileNotFoundError:
            raise IndexFailure(f"{path} does not exist, expected a part of xmodal encode") from None
        except KeyError:
            raise IndexFailure(f"{path} is no part, expected a file of xmodal encode") from None
        except (pa.ArrowException, OSError, ValueError, TypeError, AttributeError) as error:
            if not is_damage(error):
                raise
            raise self._damaged(error) from None

    def __len__(self) -> int:
        return self.info.documents

    def batches(self) -> Iterator[DocumentBatch]:
        """Yield the documents, one row group at a time.

        Raises IndexFailure before the first row group whose content is not what was written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path, page_checksum_verification=True) as file:
                if file.num_row_groups != len(self._checksums):
                    raise ValueError(f"{file.num_row_groups} row groups")
                for number, expected in enumerate(self._checksums):
                    batch = _to_batch(file.read_row_group(number), self.info)
                    if _checksum(batch) != expected:
                        raise ValueError(f"row group {number} does not match its checksum")
                    yield batch
        except (*_DAMAGE, pa.ArrowException, OSError) as error:
            if not is_damage(error):
                raise
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> IndexFailure:
        reason = " ".join(str(error).split())[:120]
        return IndexFailure(f"{self.path} is damaged ({reason}): remove it and encode again")


def is_part(path: Path) -> bool:
    """Return whether a file is a part, by its metadata."""
    if path.suffix.lower() != ENDING or not path.is_file():
        return False
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return KEY in (pq.read_metadata(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def find_parts(paths: Sequence[Path]) -> list[Part]:
    """Open the parts at ``paths``, files or folders of them; an empty list if these have none.

    Raises IndexMismatch unless the parts are all shards of each listing, each once, and all of one
    encoder, and for parts beside other files; IndexFailure for a damaged one.
    """
    files = [
        one
        for path in paths
        for one in (sorted(path.glob(f"*{ENDING}")) if path.is_dir() else [path])
    ]
    found = [path for path in files if is_part(path)]
    if not found:
        return []
    if others := [path for path in files if path not in set(found)]:
        raise IndexMismatch(
            f"{others[0]} is no part beside {len(found):,} parts of xmodal encode: load other data "
            "by a command of its own"
        )
    parts = [Part(path) for path in found]
    _check_same_encoder(parts)
    for listing in dict.fromkeys(part.info.listing for part in parts):
        _check_complete([part for part in parts if part.info.listing == listing])
    return sorted(parts, key=lambda part: (part.info.source, part.info.listing, part.info.shard))


def _check_same_encoder(parts: Sequence[Part]) -> None:
    first = parts[0]
    for part in parts:
        mine, other = (one.info for one in (first, part))
        if (mine.fingerprint, mine.bits) != (other.fingerprint, other.bits):
            raise IndexMismatch(
                f"{part.path} was encoded by {other.fingerprint} ({other.bits} bits), {first.path} "
                f"by {mine.fingerprint} ({mine.bits} bits), expected parts of one model"
            )
    if len({part.info.dim for part in parts if len(part)}) > 1:
        raise IndexMismatch(
            f"some of the parts beside {first.path} have vectors, others none: encode all of them "
            "with or without --no-vectors"
        )


def _check_complete(parts: Sequence[Part]) -> None:
    """Raise IndexMismatch unless parts of one listing are all of its shards, each once."""
    count = parts[0].info.shard.count
    seen: dict[int, Path] = {}
    for part in parts:
        shard = part.info.shard
        if shard.count != count:
            raise IndexMismatch(
                f"{part.path} is shard {shard}, {parts[0].path} is shard {parts[0].info.shard}: "
                "expected the same number of shards"
            )
        if shard.number in seen:
            raise IndexMismatch(
                f"{seen[shard.number]} and {part.path} are both shard {shard}, expected one of them"
            )
        seen[shard.number] = part.path
    if missing := [number for number in range(1, count + 1) if number not in seen]:
        shown = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        raise IndexMismatch(
            f"{len(missing):,} of {count:,} shards are missing beside {parts[0].path}: {shown}; "
            "encode them (xmodal encode --shard), or add their files"
        )


# ---- documents and tables ----------------------------------------------------------------------


def _regrouped(batches: Iterable[DocumentBatch], info: PartInfo) -> Iterator[DocumentBatch]:
    """Yield the documents in batches of GROUP_ROWS, the last one of the rest."""
    waiting: list[DocumentBatch] = []
    for batch in batches:
        waiting.append(batch if info.vectors else batch.without_vectors())
        if sum(map(len, waiting)) < GROUP_ROWS:
            continue
        joined = DocumentBatch.join(waiting)
        whole = len(joined) - len(joined) % GROUP_ROWS
        for start in range(0, whole, GROUP_ROWS):
            yield joined.take(range(start, start + GROUP_ROWS))
        waiting = [joined.take(range(whole, len(joined)))]
    if any(map(len, waiting)):
        yield DocumentBatch.join(waiting)


def _schema(info: PartInfo) -> pa.Schema:
    import pyarrow as pa

    texts = [(name, pa.large_string()) for name in ("id", "fields", "origin")]
    columns = [(str(m), _list_type(info.bits // 8)) for m in MODALITIES]
    if info.dim is not None:
        columns += [(f"{m}_vectors", _list_type(info.dim)) for m in MODALITIES]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in texts + columns])


def _list_type(width: int) -> Any:
    import pyarrow as pa

    return pa.large_list(pa.field("element", pa.binary(width), nullable=False))


def _to_table(batch: DocumentBatch, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    texts = {"id": batch.ids, "fields": batch.fields, "origin": batch.origin_texts()}
    columns: dict[str, Any] = {
        n: pa.array(values, pa.large_string()) for n, values in texts.items()
    }
    for modality in MODALITIES:
        offsets = batch.offsets[modality]
        columns[modality] = _lists(offsets, batch.packed[modality])
        if batch.vectors:
            columns[f"{modality}_vectors"] = _lists(offsets, batch.vectors[modality].view(np.uint8))
    return pa.table(columns, schema=schema)


def _lists(offsets: npt.NDArray[np.int64], rows: UInt8) -> pa.Array:
    """Return lists of rows of bytes (m, width)."""
    import pyarrow as pa

    kind = _list_type(rows.shape[1])
    data = pa.py_buffer(np.ascontiguousarray(rows))
    values = pa.FixedSizeBinaryArray.from_buffers(kind.value_type, len(rows), [None, data])
    return pa.LargeListArray.from_arrays(pa.array(offsets), values, type=kind)


def _to_batch(table: pa.Table, info: PartInfo) -> DocumentBatch:
    """Return the documents of a row group. Raises exceptions of pyarrow, ValueError, LookupError,
    AttributeError for other columns than those of a part.
    """
    packed, offsets, vectors = {}, {}, {}
    for modality in MODALITIES:
        packed[modality], offsets[modality] = _rows_of(table[modality], info.bits // 8)
        if info.dim is not None:
            rows, _ = _rows_of(table[f"{modality}_vectors"], info.dim)
            vectors[modality] = rows.view(np.int8)
    texts = (table[name].to_pylist() for name in ("id", "fields", "origin"))
    ids, fields, origins = texts
    return DocumentBatch(ids, packed, offsets, fields, vectors, origins)


def _rows_of(column: Any, width: int) -> tuple[UInt8, npt.NDArray[np.int64]]:
    """Return rows of bytes (m, width) and offsets (n + 1,) of a column of lists."""
    array = column.combine_chunks()
    if array.type.value_type.byte_width != width or array.null_count:
        raise ValueError(f"a column of type {array.type}, expected {width} bytes")
    offsets = array.offsets.to_numpy()
    values = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    data = values.buffers()[1]
    start = values.offset * width
    content = np.frombuffer(data if data is not None else b"", np.uint8)
    rows = content[start : start + len(values) * width].reshape(-1, width)
    return rows, offsets - offsets[0]


def _checksum(batch: DocumentBatch) -> int:
    """Return the CRC-32 of the content of a batch."""
    found = 0
    for texts in (batch.ids, batch.fields, batch.origin_texts()):
        encoded = [text.encode() for text in texts]
        lengths = np.array([len(text) for text in encoded], "<i8")
        found = zlib.crc32(b"".join(encoded), zlib.crc32(bytes_of(lengths), found))
    for modality in MODALITIES:
        offsets = batch.offsets[modality].astype("<i8", copy=False)
        found = zlib.crc32(bytes_of(offsets), found)
        found = zlib.crc32(bytes_of(batch.packed[modality]), found)
        if batch.vectors:
            found = zlib.crc32(bytes_of(batch.vectors[modality]), found)
    return found
