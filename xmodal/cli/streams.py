"""DATA of a command as a stream of encoded documents; memory does not grow with DATA."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.cli.data import CommandData, read_data
from xmodal.cli.options import columns_of, stream_items
from xmodal.cli.sources import Data, is_features
from xmodal.data.feature_file import FeatureFile, read_feature_file
from xmodal.data.items import Item
from xmodal.data.problems import Problems
from xmodal.data.readers.reading import Expected
from xmodal.data.remote_copy import LocalCopy
from xmodal.data.sharding import Shard
from xmodal.index.documents import DocumentBatch

if TYPE_CHECKING:
    from xmodal.encoders.encoder import Encoder

WHOLE = Shard()


@dataclass
class DataStream:
    """DATA, or files of --features, or both; only DATA with --features is read whole.

    ``problems``: unusable input that was found while the documents were read and encoded.
    ``copy``: the local copy of remote data that ``data`` is.
    """

    data: Data | None
    options: Mapping[str, Any]
    problems: Problems = field(default_factory=Problems)
    copy: LocalCopy | None = None
    _file: FeatureFile | None = None
    _matched: CommandData | None = None
    _items: Iterator[Item] | None = None
    _expected: Expected = field(default_factory=Expected)
    _shards: int = 1

    def start(self) -> None:
        """Read the beginning of DATA; raises the errors of the readers."""
        files: tuple[Path, ...] = self.options.get("feature_files", ())
        data = self.data
        if isinstance(data, Path) and is_features(data) and not files:
            files, data = (data,), None
        if data is None:
            self._file = read_feature_file(files)
            self._file.dataset(columns_of(self.options).label)  # checks the column
        elif files:
            self._matched = read_data(data, self.options)
            self.problems.extend(self._matched.dataset.problems)
        else:
            items = stream_items(data, self.options, self.problems, self._expected)
            if self.copy is not None:
                items = self.copy.restored(items)
            self._items = chain(list(islice(items, 1)), items)

    @property
    def total(self) -> int:
        """Number of documents of the shard, about; 0 if it is unknown so far."""
        number = self._expected.number
        if self._file is not None:
            number = len(self._file)
        elif self._matched is not None:
            number = len(self._matched.dataset)
        return number // self._shards

    def read(self) -> CommandData:
        """Read DATA whole, and return its items; raises the errors of the readers."""
        given = self._matched or read_data(self.data, self.options)
        self.problems = given.dataset.problems
        return given

    def items(self) -> Iterator[Item]:
        """Return the items of DATA, which are read once; raises the errors of the readers.

        Only for a stream without features.
        """
        if self._items is None:
            self.start()
        assert self._items is not None
        return self._items

    def documents(
        self,
        encoder: Encoder,
        *,
        source: str,
        shard: Shard = WHOLE,
        root: Path = Path(),
        cache: Path | None = None,
        vectors: bool = True,
    ) -> Iterator[DocumentBatch]:
        """Return the documents of a shard.

        ``source``: see :class:`~xmodal.index.origins.Origin`. ``root``: see ``Shard.has``. The
        stream is read once. Raises the errors of :meth:`start`.
        """
        from xmodal.encoders.feature_stream import encode_features
        from xmodal.encoders.pipeline import encode_stream

        self._shards = shard.count
        given: dict[str, Any] = {"source": source, "problems": self.problems, "vectors": vectors}
        if self._file is None and self._matched is None and self._items is None:
            self.start()
        if self._file is not None:
            label = columns_of(self.options).label
            return encode_features(encoder, self._file, shard=shard, label_column=label, **given)
        if self._matched is not None:
            own = shard.select(self._matched.dataset, root)
            return encode_stream(self._matched.encoder(encoder), own, **given)
        assert self._items is not None
        items: Iterable[Item] = shard.select(self._items, root)
        return encode_stream(encoder, items, cache=cache, **given)
