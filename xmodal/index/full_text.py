"""Full text of the documents of a local index: kept up to date, read when it is first searched.

The words of all documents are in one file beside the Parquet file. The file is never changed: a
save writes a file with a new name, which the metadata of the Parquet file record, so that the
rename of that file replaces documents and words together. Files that it does not name are left over
and removed by the next save.

A file that is missing, damaged or of another version of :mod:`xmodal.index.words` is computed again
from the documents, and stored by the next save.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xmodal.index.bm25 import BM25
from xmodal.index.documents import DocumentBatch
from xmodal.index.postings import Postings
from xmodal.index.words import VERSION, document_words

PREFIX = "words-"
CHUNK = 1 << 17
"""Documents whose words are collected before they are joined to the others."""
log = logging.getLogger(__name__)


class WordsFile(NamedTuple):
    """Record of a file: its name, CRC-32 of its bytes, and version of the words."""

    name: str
    checksum: int
    version: str

    def to_json(self) -> str:
        """Return the record as JSON."""
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str) -> WordsFile | None:
        """Return the record of :meth:`to_json`, None for other text."""
        try:
            record = cls(**json.loads(text))
        except (TypeError, ValueError):
            return None
        return record if _is_name(record.name) else None


class _State(NamedTuple):
    """The documents whose words are known. Words depend on their ids and fields alone.

    The lists of a DocumentBatch are never changed, and parts of it have the same texts, so that
    comparisons are fast. ``ranking`` is None if it has not been read.
    """

    ids: Sequence[str] = ()
    fields: Sequence[str] = ()
    ranking: BM25 | None = None


class FullText:
    """Words of the documents of an index.

    ``file``: in ``folder``, the words of ``documents``; it is read when they are first needed.
    """

    def __init__(
        self,
        documents: DocumentBatch | None = None,
        folder: Path | None = None,
        file: WordsFile | None = None,
    ) -> None:
        self._folder, self._file = folder, file
        self._state = _State(documents.ids, documents.fields) if documents else _State()

    def ranking(self, documents: DocumentBatch) -> BM25:
        """Return the ranking of documents, in order of ids; computes the words of new ones."""
        ids, fields, ranking = self._state
        if ranking is None or ids is not documents.ids or fields is not documents.fields:
            before = self._state if ranking else self._read()
            ranking = before.ranking
            if before.ids is not documents.ids or before.fields is not documents.fields:
                ranking = BM25(_updated(before, documents))
            # One assignment: other threads see the old state or the new one.
            self._state = _State(documents.ids, documents.fields, ranking)
        assert ranking is not None
        return ranking

    def write(self, folder: Path, documents: DocumentBatch) -> WordsFile:
        """Write the words of documents to a new file, and sync it."""
        name = f"{PREFIX}{secrets.token_hex(8)}"
        checksum = self.ranking(documents).postings.write(folder / name)
        return WordsFile(name, checksum, VERSION)

    def _read(self) -> _State:
        """Return the state with the content of the file; no documents if it cannot be used."""
        problem = "of an earlier version"
        if self._file and self._folder and self._file.version == VERSION:
            try:
                postings = Postings.read(self._folder / self._file.name, self._file.checksum)
                if len(postings) != len(self._state.ids):
                    raise OSError("it is of other documents")
                return self._state._replace(ranking=BM25(postings))
            except OSError as error:
                problem = error.strerror or str(error)
        if self._state.ids and self._folder:
            log.warning(
                "%s: full text cannot be used (%s), the words of %s documents are computed again; "
                "the next change of the index stores them",
                *(self._folder, problem, f"{len(self._state.ids):,}"),
            )
        return _State(ranking=BM25(Postings.of((), 0)))


def _updated(before: _State, documents: DocumentBatch) -> Postings:
    """Return the words of documents, from those of the documents before."""
    assert before.ranking is not None
    n = len(documents)
    row_of = {id_: row for row, id_ in enumerate(documents.ids)}
    new_rows = np.array([row_of.get(id_, -1) for id_ in before.ids], np.int32)
    for old, row in enumerate(new_rows.tolist()):
        if row >= 0 and before.fields[old] != documents.fields[row]:
            new_rows[old] = -1
    changed = np.ones(n, np.bool_)
    changed[new_rows[new_rows >= 0]] = False
    rows = np.flatnonzero(changed).tolist()
    postings = before.ranking.postings.renumbered(new_rows, n)
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        postings = postings.joined(Postings.of(_texts(documents, chunk), n))
        if len(rows) > CHUNK:
            log.info("words of %s of %s documents", f"{start + len(chunk):,}", f"{len(rows):,}")
    return postings


def _texts(documents: DocumentBatch, rows: Sequence[int]) -> Iterator[tuple[int, list[str]]]:
    """Yield the words of documents with their rows."""
    for row in rows:
        fields = json.loads(documents.fields[row])
        yield row, document_words(fields, documents.ids[row])


def _is_name(name: object) -> bool:
    """Whether a recorded name is that of a file of words, in the folder itself."""
    return isinstance(name, str) and name.startswith(PREFIX) and os.path.basename(name) == name
