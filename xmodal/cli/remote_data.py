"""DATA on a remote file system, with local copies of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodal.cli.output import status
from xmodal.cli.sources import Data, paths_of
from xmodal.cli.streams import DataStream
from xmodal.data.problems import Problems
from xmodal.data.remote import address, is_remote
from xmodal.data.remote_copy import LocalCopy, local_copy
from xmodal.errors import ConfigError


@dataclass(frozen=True)
class GivenData:
    """DATA as it is given, and what is read in place of it.

    ``local``: DATA, or its local copy; ``options``: those of reading; ``root``: folder that paths
    of pictures are relative to in :func:`~xmodal.data.sharding.group_key`.
    """

    data: Data
    local: Data
    options: Mapping[str, Any]
    root: Path
    copy: LocalCopy | None = None

    def stream(self, problems: Problems) -> DataStream:
        """Return what reads the items; to ``problems``, those of reading are added."""
        return DataStream(self.local, self.options, problems, self.copy)


@contextmanager
def local_data(data: Data, options: Mapping[str, Any], problems: Problems) -> Iterator[GivenData]:
    """Context with DATA, and with a local copy of it if it is remote.

    Raises ConfigError for a remote source beside others, and like
    :func:`~xmodal.data.remote_copy.local_copy`.
    """
    paths = paths_of(data)
    remote = next(filter(is_remote, paths), None)
    if remote is None:
        yield GivenData(data, data, options, _root(paths[0], paths[0]))
        return
    if len(paths) > 1 or set("{*?") & set(remote.name):
        raise ConfigError(f"{address(remote)}: expected one folder or table on a remote system")
    if options["feature_files"]:
        raise ConfigError(f"{address(remote)} is remote: copy it for --features")
    with ExitStack() as stack:
        with status(f"copying the tables of {address(remote)}"):
            copy = stack.enter_context(local_copy(remote, problems))
        pictures = options["pictures"] or options["former_pictures"] or copy.folder
        given = {**options, "pictures": pictures}
        yield GivenData(data, copy.path, given, _root(remote, copy.path), copy)


def _root(path: Path, local: Path) -> Path:
    return path if local.is_dir() else path.parent
