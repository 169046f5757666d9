"""Files on remote file systems (s3, gs, hdfs, abfs), which pyarrow reads and writes.

The address ``s3://bucket/photos/a.jpg`` is the path ``s3:/bucket/photos/a.jpg``: pathlib joins
slashes, so that such a path has a parent, a name and an ending like others. :func:`address` returns
the text for messages and documents. Credentials, regions and endpoints are those of the
environment, as the tools of the file systems read them.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from xmodal.errors import ConfigError, DataError, RemoteFailure, one_line
from xmodal.writing import NEW

SCHEMES = ("s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")
_OBJECT_STORES = ("s3", "gcs", "abfs")
"""Names of pyarrow's file systems where a file appears when all of it was uploaded."""
_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)}):/+(.*)", re.DOTALL)
CONNECT_TIMEOUT, REQUEST_TIMEOUT = 10, 60
"""Seconds that S3 may take for a connection, and between bytes."""
MAX_REASON = 200
"""Characters of the reason of a failure."""


def is_remote(path: str | Path) -> bool:
    """Return whether a path, or an address, is on a remote file system."""
    return str(path).partition(":")[0] in SCHEMES and _ADDRESS.match(str(path)) is not None


def address(path: str | Path) -> str:
    """Return the address of a remote path, and other paths as text."""
    return _ADDRESS.sub(r"\1://\2", str(path)) if is_remote(path) else str(path)


def located(path: str | Path) -> tuple[Any, str]:
    """Return the file system of a remote path, and the path in it.

    Raises ConfigError for an address without a bucket or host, and RemoteFailure.
    """
    scheme, *parts = (part for part in Path(path).parts)
    if not parts:
        raise ConfigError(f"{address(path)} has no bucket or host, expected s3://bucket/name")
    system, base = _system(scheme.rstrip(":"), parts[0])
    return system, "/".join([base.rstrip("/"), *parts[1:]])


@cache
def _system(scheme: str, authority: str) -> tuple[Any, str]:
    import pyarrow as pa
    from pyarrow import fs

    uri = f"{scheme}://{authority}"
    try:
        system, base = fs.FileSystem.from_uri(uri)
        if system.type_name == "s3":  # by default, an answer that takes 3 s is an error
            endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            system = fs.S3FileSystem(
                region=system.region,
                endpoint_override=endpoint or None,
                connect_timeout=CONNECT_TIMEOUT,
                request_timeout=REQUEST_TIMEOUT,
            )
    except (pa.ArrowException, OSError) as error:
        raise _failure(uri, error) from None
    return system, base


def file_info(path: str | Path) -> Any:
    """Return pyarrow's information about a remote file. Raises RemoteFailure."""
    system, name = located(path)
    with _failures(path):
        return system.get_file_info(name)


def is_remote_file(path: str | Path) -> bool:
    """Return whether there is a remote file. Raises RemoteFailure."""
    return bool(file_info(path).is_file)


def open_remote(path: str | Path) -> Any:
    """Open a remote file for reading in any order.

    Raises FileNotFoundError, PermissionError and RemoteFailure.
    """
    system, name = located(path)
    with _failures(path):
        return system.open_input_file(name)


def read_remote(path: str | Path, max_bytes: int) -> bytes:
    """Return the content of a remote file.

    Raises FileNotFoundError, PermissionError, OSError for more than ``max_bytes``, RemoteFailure.
    """
    with open_remote(path) as file, _failures(path):
        size = file.size()
        content: bytes = file.read() if size <= max_bytes else b""
    if size > max_bytes:
        raise OSError(f"{size:,} bytes, expected at most {max_bytes:,}")
    return content


def copy_remote(path: str | Path, target: Path) -> None:
    """Copy a remote file to a local one. Raises like :func:`open_remote`."""
    with open_remote(path) as source, open(target, "wb") as file, _failures(path):
        shutil.copyfileobj(source, file, 1 << 22)


def list_remote(folder: str | Path, *, recursive: bool = False) -> list[tuple[Path, Any]]:
    """Return the files of a remote folder in order, each with its information.

    Raises DataError for a folder that does not exist, and RemoteFailure.
    """
    from pyarrow import fs

    system, base = located(folder)
    try:
        with _failures(folder):
            found = system.get_file_info(fs.FileSelector(base, recursive=recursive))
    except FileNotFoundError:
        raise DataError(f"{address(folder)} does not exist, expected a folder or a table") from None
    start = len(base.rstrip("/")) + 1
    files = [(one.path[start:], one) for one in found if one.is_file]
    return [(Path(folder, name), one) for name, one in sorted(files, key=lambda one: one[0])]


def find_remote(pattern: Path) -> list[Path]:
    """Return the remote files of a name with ``*`` or ``?``, in order."""
    files = list_remote(pattern.parent)
    return [path for path, _ in files if fnmatchcase(path.name, pattern.name)]


def check_remote_target(path: Path) -> None:
    """Check that a remote file can be written. Raises ConfigError and RemoteFailure."""
    system, name = located(path)
    try:
        with _failures(path):
            if system.type_name not in _OBJECT_STORES:
                system.create_dir(os.path.dirname(name), recursive=True)
            system.open_output_stream(f"{name}{NEW}").close()
            system.delete_file(f"{name}{NEW}")
    except (FileNotFoundError, PermissionError) as error:
        raise ConfigError(f"{address(path)} cannot be written: {_reason(error)}") from None


@contextmanager
def write_remote(path: Path) -> Iterator[BinaryIO]:
    """Context with a local file that becomes the remote file at the end of the block.

    The remote file is whole or absent, and unchanged after an exception or a kill. Raises
    RemoteFailure.
    """
    from pyarrow import fs

    system, name = located(path)
    with tempfile.TemporaryDirectory(prefix="xmodal-") as folder:
        local = Path(folder, "file")
        with open(local, "w+b") as file:
            yield file
        with _failures(path):
            is_store = system.type_name in _OBJECT_STORES
            new = name if is_store else f"{name}{NEW}"
            given = {"source_filesystem": fs.LocalFileSystem(), "destination_filesystem": system}
            fs.copy_files(str(local), new, **given)
            if not is_store:
                with suppress(FileNotFoundError):
                    system.delete_file(name)
                system.move(new, name)


@contextmanager
def _failures(path: str | Path) -> Iterator[None]:
    """Raise RemoteFailure for errors of the block other than a missing file or permission."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if "NO_SUCH_BUCKET" in str(error) or isinstance(error, FileNotFoundError):
            raise FileNotFoundError(2, os.strerror(2), address(path)) from None
        if "ACCESS_DENIED" in str(error) or isinstance(error, PermissionError):
            raise PermissionError(13, os.strerror(13), address(path)) from None
        raise _failure(path, error) from None


def _failure(path: str | Path, error: Exception) -> RemoteFailure:
    return RemoteFailure(f"{address(path)}: {_reason(error)}")


def _reason(error: Exception) -> str:
    """Return the message of an exception of pyarrow, shortened."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = text.partition("(Request ID")[0].partition("; Details:")[0]
    return one_line(text).strip()[:MAX_REASON]
