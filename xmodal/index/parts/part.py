"""A part that is open for reading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmodal.checksums import check_digest, is_damage
from xmodal.codes import check_bits
from xmodal.data.remote import address, is_remote, open_remote
from xmodal.data.sharding import Shard
from xmodal.errors import CodeError, IndexFailure, IndexMismatch
from xmodal.index.documents import DocumentBatch
from xmodal.index.parts.info import FORMAT, KEY, PartInfo
from xmodal.index.parts.tables import checksum, to_batch

ENDING = ".parquet"
_DAMAGE = (ValueError, LookupError, AttributeError, CodeError)
"""Exceptions for columns of other types or values than those of a part."""


class Part:
    """A part that is open for reading. ``info``: its metadata."""

    def __init__(self, path: Path) -> None:
        """Raises IndexFailure if the file is damaged or no part, IndexMismatch for its format.

        RemoteFailure if its file system cannot be reached.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path, self.name = path, address(path)
        try:
            metadata = pq.read_metadata(_source(path))
            content = json.loads((metadata.metadata or {})[KEY])
            if content.get("format") != FORMAT:
                raise IndexMismatch(
                    f"{self.name} is a part of format {content.get('format')!r}, this version "
                    f"reads {FORMAT}: use the version that wrote it"
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
            raise IndexFailure(
                f"{self.name} does not exist, expected a part of xmodal encode"
            ) from None
        except KeyError:
            raise IndexFailure(
                f"{self.name} is no part, expected a file of xmodal encode"
            ) from None
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
            source = _source(self.path)
            with pq.ParquetFile(source, page_checksum_verification=True) as file:
                if file.num_row_groups != len(self._checksums):
                    raise ValueError(f"{file.num_row_groups} row groups")
                for number, expected in enumerate(self._checksums):
                    batch = to_batch(file.read_row_group(number), self.info)
                    if checksum(batch) != expected:
                        raise ValueError(f"row group {number} does not match its checksum")
                    yield batch
        except (*_DAMAGE, pa.ArrowException, OSError) as error:
            if not is_damage(error):
                raise
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> IndexFailure:
        reason = " ".join(str(error).split())[:120]
        return IndexFailure(f"{self.name} is damaged ({reason}): remove it and encode again")


def is_part(path: Path) -> bool:
    """Return whether a file is a part, by its metadata."""
    if path.suffix.lower() != ENDING or not (is_remote(path) or path.is_file()):
        return False
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return KEY in (pq.read_metadata(_source(path)).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def _source(path: Path) -> Any:
    """Return what pyarrow reads a part from: its path, or the open remote file."""
    return open_remote(path) if is_remote(path) else path
