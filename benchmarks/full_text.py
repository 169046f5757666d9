"""Engines of full text at 1,000,000 captions: size, build, one query, one change.

    pip install tantivy
    python benchmarks/full_text.py [--data FOLDER] [--captions 1000000] [--quick]

Writes results/full-text.md; takes about half an hour, with ``--quick`` half a minute and no
file. Each caption is the beginning of one caption of flickr8k and the end of another one, with a
fixed seed. All engines store the same words (see :mod:`xmodal.index.words`), which are computed
before the measurement. Each runs in a process of its own. Times are those of the processor, of all
threads together, so other programs on the machine hardly change them; waiting for the disk is not
part of them:

    xmodal    the columns of words of the local index, with a compiled loop; a change adds a file
    tantivy   a folder of segments, tokenizer "whitespace", without positions
    FTS5      of SQLite, one file without the text, with positions, which its bm25 needs

A query is one word, two words or a whole caption. A filter accepts random documents. xmodal skips
the others in its loop. tantivy gets up to 1,000 accepted documents as a set of terms, else results
are requested, twice as many until enough are accepted. FTS5 returns results one by one until enough
are accepted. Each query runs five times, and the least time counts. If queries take more than
three seconds together, the first three or more are measured.

The last section measures the parts of a fused query in :class:`xmodal.index.local.HammingIndex`.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from harness.report import table, write

from xmodal.codes import BinaryCodes
from xmodal.index.bm25 import BM25, Part
from xmodal.index.contract import WordsQuery
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import PART, HammingIndex, open_folder
from xmodal.index.query_codes import QueryCodes
from xmodal.index.segments.column_file import ColumnFile, write_columns, write_synced
from xmodal.index.segments.columns import Array, MemoryColumns
from xmodal.index.segments.word_columns import WordColumns, merge_word_columns, word_columns
from xmodal.index.words import document_words, tokens

SEED, QUERIES, K = 0, 50, 100
ROUNDS = 5
"""Times that a query runs; the least counts, because other programs run on the machine."""
KINDS = ("one word", "two words", "a caption")
ACCEPTED = (1.0, 0.5, 0.01, 0.001)
"""Shares of documents that the filters accept."""
Mask = npt.NDArray[np.bool_]
Row = list[object]


class Engine(Protocol):
    """An engine in a folder. Documents are numbers from 0, and their words."""

    def build(self, texts: Sequence[list[str]]) -> None:
        """Index documents, and make them durable."""

    def filter(self, accepted: Mask | None) -> None:
        """Let later searches find these documents only."""

    def search(self, words: list[str]) -> list[int]:
        """Return the best ``K`` documents."""

    def add(self, row: int, words: list[str]) -> None:
        """Add a document, make it durable, and be ready to search."""

    def delete(self, row: int, words: list[str]) -> None:
        """Delete a document, make this durable, and be ready to search."""


class WordSegments:
    """Words of xmodal in segments; a change writes a segment of one document, or deletions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: dict[int, Part] = {}  # by the number of their first document

    def build(self, texts: Sequence[list[str]]) -> None:
        parts = []
        for start in range(0, len(texts), PART):
            chunk = texts[start : start + PART]
            rows = np.arange(len(chunk))
            parts.append((MemoryColumns(word_columns(chunk)), len(chunk), rows))
        self._write(0, merge_word_columns(parts, np.arange(len(texts))))

    def filter(self, accepted: Mask | None) -> None:
        self.accepted = [
            part.live if accepted is None else accepted[first : first + part.n]
            for first, part in self.parts.items()
        ]

    def search(self, words: list[str]) -> list[int]:
        hits = self.ranking.search(" ".join(words), "", K, self.accepted)
        return [int(hit.id) for hit in hits]

    def add(self, row: int, words: list[str]) -> None:
        self._write(row, word_columns([words]))

    def delete(self, row: int, words: list[str]) -> None:
        first = max(number for number in self.parts if number <= row)
        live = np.arange(self.parts[first].n) != row - first
        write_synced(self.folder / f"deleted-{first}", np.packbits(live).tobytes())
        self._replace(first, self.parts[first]._replace(live=live))

    def _write(self, first: int, columns: dict[str, Array]) -> None:
        path = self.folder / str(first)
        opened = ColumnFile.open(path, write_columns(path, columns, {}))
        n = len(columns["word.lengths"])
        self._replace(first, Part(WordColumns(opened), partial(row_ids, first), n, None))

    def _replace(self, first: int, part: Part) -> None:
        self.parts[first] = part
        self.ranking = BM25(list(self.parts.values()))
        self.filter(None)


def row_ids(first: int, rows: npt.NDArray[np.int64]) -> list[str]:
    """Return the ids of the documents at rows of a segment, by its first document."""
    return [f"{first + row:010d}" for row in rows.tolist()]


class Tantivy:
    """tantivy through its Python bindings."""

    def __init__(self, folder: Path) -> None:
        import tantivy

        self.tantivy = tantivy
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("words", tokenizer_name="whitespace", index_option="freq")
        builder.add_unsigned_field("row", indexed=True, fast=True)
        self.schema = builder.build()
        self.index = tantivy.Index(self.schema, str(folder))

    def build(self, texts: Sequence[list[str]]) -> None:
        writer = self.index.writer(256_000_000, 2)
        for row, words in enumerate(texts):
            self._add(writer, row, words)
        writer.commit()
        writer.wait_merging_threads()
        self._reload()

    def filter(self, accepted: Mask | None) -> None:
        self.accepted = accepted

    def search(self, words: list[str]) -> list[int]:
        accepted = self.accepted
        query, occur = self.tantivy.Query, self.tantivy.Occur
        terms = [query.term_query(self.schema, "words", word, "freq") for word in words]
        parsed = query.boolean_query([(occur.Should, term) for term in terms])
        if accepted is not None and np.count_nonzero(accepted) <= 1000:
            rows = np.flatnonzero(accepted).tolist()
            rows = query.const_score_query(query.term_set_query(self.schema, "row", rows), 0.0)
            parsed = query.boolean_query([(occur.Must, parsed), (occur.Must, rows)])
            accepted = None
        limit = K
        while True:
            hits = self.searcher.search(parsed, limit, count=False).hits
            found = self.searcher.fast_field_values("row", [address for _, address in hits])
            rows = [row for row in found if accepted is None or accepted[row]]
            if len(rows) >= K or len(hits) < limit:
                return rows[:K]
            limit *= 2

    def add(self, row: int, words: list[str]) -> None:
        writer = self.index.writer(15_000_000, 1)
        self._add(writer, row, words)
        writer.commit()
        writer.wait_merging_threads()
        self._reload()

    def delete(self, row: int, words: list[str]) -> None:
        writer = self.index.writer(15_000_000, 1)
        # delete_documents_by_term takes a whole number for a signed one, and deletes nothing here.
        writer.delete_documents_by_query(self.tantivy.Query.term_query(self.schema, "row", row))
        writer.commit()
        writer.wait_merging_threads()
        self._reload()

    def _add(self, writer: Any, row: int, words: list[str]) -> None:
        document = self.tantivy.Document()
        document.add_text("words", " ".join(words))
        document.add_unsigned("row", row)
        writer.add_document(document)

    def _reload(self) -> None:
        self.index.reload()
        self.searcher = self.index.searcher()


class FTS5:
    """FTS5 of SQLite, without a copy of the texts."""

    def __init__(self, folder: Path) -> None:
        self.connection = sqlite3.connect(folder / "words.db")
        self.connection.execute(
            "create virtual table captions using fts5(words, content='', "
            "tokenize=\"unicode61 remove_diacritics 0 categories 'L* N* Co S* M*'\")"
        )

    def build(self, texts: Sequence[list[str]]) -> None:
        rows = ((row, " ".join(words)) for row, words in enumerate(texts))
        self.connection.executemany("insert into captions(rowid, words) values (?, ?)", rows)
        self.connection.execute("insert into captions(captions) values ('optimize')")
        self.connection.commit()

    def filter(self, accepted: Mask | None) -> None:
        self.accepted = accepted

    def search(self, words: list[str]) -> list[int]:
        accepted, query = self.accepted, " OR ".join(f'"{word}"' for word in words)
        statement = "select rowid from captions where captions match ? order by rank"
        rows = (row for (row,) in self.connection.execute(statement, [query]))
        return list(islice((row for row in rows if accepted is None or accepted[row]), K))

    def add(self, row: int, words: list[str]) -> None:
        self.connection.execute(
            "insert into captions(rowid, words) values (?, ?)", [row, " ".join(words)]
        )
        self.connection.commit()

    def delete(self, row: int, words: list[str]) -> None:
        self.connection.execute(
            "insert into captions(captions, rowid, words) values ('delete', ?, ?)",
            [row, " ".join(words)],
        )
        self.connection.commit()


def make_captions(file: Path, n: int) -> list[str]:
    """Return ``n`` captions, each from the parts of two captions of the file."""
    rng = random.Random(SEED)
    rows = map(json.loads, file.read_text().splitlines())
    captions = [caption.split() for row in rows for caption in row["captions"]]

    def mixture() -> str:
        first, second = rng.choice(captions), rng.choice(captions)
        return " ".join(first[: rng.randint(1, len(first))] + second[rng.randint(0, len(second)) :])

    return [mixture() for _ in range(n)]


def make_queries(captions: Sequence[str]) -> dict[str, list[list[str]]]:
    """Return ``QUERIES`` queries of each kind; short ones have the longest words of a caption."""
    chosen = random.Random(SEED + 1).sample(list(captions), QUERIES)
    words = [list(dict.fromkeys(tokens(caption))) for caption in chosen]
    longest = [sorted(own, key=len, reverse=True) for own in words]
    return {
        "one word": [own[:1] for own in longest],
        "two words": [own[:2] for own in longest],
        "a caption": words,
    }


def filters(n: int) -> dict[float, Mask | None]:
    """Return the accepted documents of each share, None for all."""
    rng = np.random.default_rng(SEED)
    return {share: None if share == 1 else rng.random(n) < share for share in ACCEPTED}


def seconds(call: Callable[[], object], rounds: int = 1) -> float:
    """Return the processor seconds of a call, the least of so many rounds if they are below 1."""
    times = []
    for _ in range(rounds):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
        if times[-1] > 1:
            break
    return min(times)


def median_and_p99(times: Sequence[float]) -> str:
    """Return both in milliseconds."""
    return f"{1e3 * np.median(times):.1f} / {1e3 * np.quantile(times, 0.99):.1f}"


class Measured(NamedTuple):
    """Figures of an engine: of changes, of queries, and the rows that queries found."""

    name: str
    changes: list[str]
    times: dict[tuple[str, float], str]
    found: dict[str, list[list[int]]]
    right: dict[str, list[set[int]]]
    """Rows that are among the first ten of each query by the scores of Lucene; of xmodal only."""


def measure(make: Callable[[Path], Any], name: str, file: Path, n: int) -> Measured:
    """Return the figures of an engine with ``n`` captions."""
    captions = make_captions(file, n)
    queries = make_queries(captions)
    texts = [document_words({"text": caption}, "") for caption in captions]
    del captions
    with tempfile.TemporaryDirectory() as folder:
        engine = make(Path(folder))
        built = seconds(lambda: engine.build(texts))
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        engine.filter(None)
        found = {kind: [engine.search(words) for words in queries[kind][:3]] for kind in KINDS}
        right = {}
        if isinstance(engine, WordSegments):
            right = {
                kind: [first_ten(engine, words) for words in queries[kind][:3]] for kind in KINDS
            }
        times = {}
        for share, accepted in filters(n).items():
            engine.filter(accepted)
            for kind in KINDS:
                times[kind, share] = median_and_p99(query_times(engine, queries[kind]))
        new = ["brand", "new", "caption"]
        engine.filter(None)
        added = seconds(lambda: engine.add(n, new))
        assert engine.search(["brand"]).count(n) == 1
        deleted = seconds(lambda: engine.delete(n, new))
        assert n not in engine.search(["brand"])
    changes = [f"{size / 1e6:.0f}", f"{built:.1f}", f"{1e3 * added:.0f}", f"{1e3 * deleted:.0f}"]
    return Measured(name, changes, times, found, right)


def query_times(engine: Engine, queries: Sequence[list[str]]) -> list[float]:
    """Return the seconds of queries: of three, and of more until they take three seconds."""
    times: list[float] = []
    for words in queries:
        if len(times) < 3 or sum(times) < 3:
            times.append(seconds(lambda words=words: engine.search(words), ROUNDS))  # type: ignore[misc]
    return times


def first_ten(engine: WordSegments, words: list[str]) -> set[int]:
    """Return the documents whose score is not below that of the tenth."""
    n = sum(part.n for part in engine.parts.values())
    every = engine.ranking.search(" ".join(words), "", n, engine.accepted)
    tenth = every[min(9, len(every) - 1)].score
    return {int(hit.id) for hit in every if hit.score >= tenth}


def comparison(measured: Sequence[Measured], n: int) -> list[tuple[str, str]]:
    """Return the sections of the comparison; the first engine is xmodal."""
    header = ["engine", "size, MB", "build, s", "add one, ms", "delete one, ms"]
    changes: list[Row] = [[*header, "of Lucene's first ten"]]
    latency: list[Row] = [
        ["engine", "query", *(f"{100 * share:g} % accepted" for share in ACCEPTED)]
    ]
    for one in measured:
        shares = [
            np.mean([row in right for row in found[:10]])
            for kind in KINDS
            for found, right in zip(one.found[kind], measured[0].right[kind], strict=True)
        ]
        changes.append([one.name, *one.changes, f"{np.mean(shares):.3f}"])
        latency += [
            [one.name, kind, *(one.times[kind, share] for share in ACCEPTED)] for kind in KINDS
        ]
    return [
        (f"Size and changes, {n:,} captions", table(changes)),
        (f"One query, k = {K}, ms, median / 99th percentile of {QUERIES} queries", table(latency)),
    ]


def local_index(file: Path, n: int) -> str:
    """Return the table of a local index with codes of 256 bits: changes, and one query."""
    captions = make_captions(file, n)
    with tempfile.TemporaryDirectory() as folder:
        return parts(captions, make_queries(captions)["a caption"], Path(folder))


def parts(captions: list[str], queries: list[list[str]], folder: Path) -> str:
    """Return the table of :func:`local_index`."""
    n, rng = len(captions), np.random.default_rng(SEED)
    index = HammingIndex(256, folder=folder)
    colours = rng.choice(["red", "green", "blue", "white"], n, p=[0.01, 0.09, 0.4, 0.5]).tolist()
    fields = [
        {"text": text, "colour": colour} for text, colour in zip(captions, colours, strict=True)
    ]
    packed = rng.integers(0, 256, (n, 32), dtype=np.uint8)
    ids = [f"{number:08d}" for number in range(n)]
    index.add(DocumentBatch.of(ids, image=BinaryCodes(packed, 256), fields=fields))
    rows: list[Row] = [["part", "time"]]
    rows.append(["first save, with the words of all documents", f"{seconds(index.save):.0f} s"])
    index.add(["new"], image=BinaryCodes(packed[:1], 256), fields=[{"text": "a new caption"}])
    rows.append(["add one document, and save", f"{seconds(index.save):.1f} s"])
    index = open_folder(folder)
    first = [WordsQuery("warm up")]
    read = seconds(lambda: index.search_words(first, K, target="image"))
    rows.append(["first search of words after opening", f"{1e3 * read:.0f} ms"])
    codes = QueryCodes.of(rng.standard_normal((QUERIES, 256)).astype(np.float32))
    for where in (None, {"colour": "blue"}, {"colour": "green"}, {"colour": "red"}):
        times: dict[str, list[float]] = {"words": [], "codes, weighted": [], "both": []}
        index.search_words(first, K, target="image", where=where)
        index.search(codes[:1], K, target="image", where=where)
        for at, words in enumerate(queries):
            one, code = [WordsQuery(" ".join(words))], codes[at : at + 1]
            by_words = seconds(
                lambda one=one, where=where: index.search_words(  # type: ignore[misc]
                    one, K, target="image", where=where
                ),
                ROUNDS,
            )
            by_codes = seconds(
                lambda code=code, where=where: index.search(  # type: ignore[misc]
                    code, K, target="image", where=where
                ),
                ROUNDS,
            )
            times["words"].append(by_words)
            times["codes, weighted"].append(by_codes)
            times["both"].append(by_words + by_codes)
        share = "all" if where is None else f"{100 * colours.count(where['colour']) / n:.0f} %"
        for name, each in times.items():
            rows.append([f"{name}, {share} accepted", f"{median_and_p99(each)} ms"])
    return table(rows)


def main() -> None:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="data folder")
    parser.add_argument("--captions", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=1, help="engines that run at once")
    parser.add_argument("--quick", action="store_true", help="20,000 captions, no file")
    args = parser.parse_args()
    file, n = args.data / "flickr8k" / "captions.jsonl", 20_000 if args.quick else args.captions
    engines = {
        f"xmodal {version('xmodal')}": WordSegments,
        f"tantivy {version('tantivy')}": Tantivy,
        f"FTS5 of SQLite {sqlite3.sqlite_version}": FTS5,
    }
    with ProcessPoolExecutor(args.jobs, get_context("spawn"), max_tasks_per_child=1) as pool:
        index = pool.submit(local_index, file, n)
        running = [pool.submit(measure, make, name, file, n) for name, make in engines.items()]
        sections = comparison([one.result() for one in running], n)
        heading = "Local index, codes of 256 bits, queries are captions, median / 99th percentile"
        sections.append((heading, index.result()))
    command = "python benchmarks/full_text.py"
    write(
        "full-text",
        f"Full text, seed {SEED}, processor time",
        command,
        sections,
        keep=not args.quick,
    )


if __name__ == "__main__":
    main()
