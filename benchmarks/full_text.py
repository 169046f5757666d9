"""Engines of full text at 1,000,000 captions: size, build, one query, one change.

    pip install tantivy
    python benchmarks/full_text.py [--data FOLDER] [--captions 1000000] [--quick]

Writes results/full-text.md; takes about half an hour, with ``--quick`` half a minute and no
file. Each caption is the beginning of one caption of flickr8k and the end of another one, with a
fixed seed. All engines store the same words (see :mod:`xmodal.index.words`), which are computed
before the measurement, and run in this process:

    xmodal    the inverted file of the local index, in one file, with a compiled loop
    tantivy   a folder of segments, tokenizer "whitespace", without positions
    FTS5      of SQLite, one file without the text, with positions, which its bm25 needs

A query is one word, two words or a whole caption. A filter accepts random documents. xmodal skips
the others in its loop. tantivy gets up to 1,000 accepted documents as a set of terms, else results
are requested, twice as many until enough are accepted. FTS5 returns results one by one until enough
are accepted. Each query runs five times, and the least time counts. If queries take more than
four seconds together, the first five or more are measured.

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
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from harness.report import table, write

from xmodal.codes import BinaryCodes
from xmodal.index.bm25 import BM25
from xmodal.index.contract import WordsQuery
from xmodal.index.documents import DocumentBatch
from xmodal.index.full_text import CHUNK
from xmodal.index.local import HammingIndex, open_folder
from xmodal.index.postings import Postings
from xmodal.index.query_codes import QueryCodes
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


class InvertedFile:
    """The inverted file of xmodal; each change writes a new file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0

    def build(self, texts: Sequence[list[str]]) -> None:
        postings, rows = Postings.of((), len(texts)), iter(enumerate(texts))
        while chunk := list(islice(rows, CHUNK)):
            postings = postings.joined(Postings.of(chunk, len(texts)))
        self._save(postings)

    def filter(self, accepted: Mask | None) -> None:
        self.accepted = np.ones(len(self.ranking.postings), np.bool_)
        if accepted is not None:
            self.accepted = accepted

    def search(self, words: list[str]) -> list[int]:
        return [row for row, *_ in self.ranking.search(" ".join(words), "", K, self.accepted)]

    def add(self, row: int, words: list[str]) -> None:
        rows = np.arange(row, dtype=np.int32)
        before = self.ranking.postings.renumbered(rows, row + 1)
        self._save(before.joined(Postings.of([(row, words)], row + 1)))

    def delete(self, row: int, words: list[str]) -> None:
        rows = np.arange(len(self.ranking.postings), dtype=np.int32)
        rows[row:] -= 1
        rows[row] = -1
        self._save(self.ranking.postings.renumbered(rows, len(rows) - 1))

    def _save(self, postings: Postings) -> None:
        self.number += 1
        postings.write(self.folder / str(self.number))
        (self.folder / str(self.number - 1)).unlink(missing_ok=True)
        self.ranking = BM25(postings)
        self.filter(None)


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
    """Return the seconds that a call takes, the least of so many rounds if it takes less than 1."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
        if times[-1] > 1:
            break
    return min(times)


def median_and_p99(times: Sequence[float]) -> str:
    """Return both in milliseconds."""
    return f"{1e3 * np.median(times):.1f} / {1e3 * np.quantile(times, 0.99):.1f}"


def measure(
    engine: Engine, folder: Path, texts: list[list[str]], queries: dict[str, list[list[str]]]
) -> tuple[list[object], dict[tuple[str, float], str], dict[str, list[list[int]]]]:
    """Return size and times of changes, times of queries, and the results without a filter."""
    built = seconds(lambda: engine.build(texts))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    times: dict[tuple[str, float], str] = {}
    engine.filter(None)
    results = {kind: [engine.search(words) for words in queries[kind][:5]] for kind in KINDS}
    for share, accepted in filters(len(texts)).items():
        engine.filter(accepted)
        for kind in KINDS:
            one: list[float] = []
            for words in queries[kind]:
                if len(one) < 5 or sum(one) < 4:
                    one.append(seconds(lambda words=words: engine.search(words), ROUNDS))  # type: ignore[misc]
            times[kind, share] = median_and_p99(one)
    n, new = len(texts), ["brand", "new", "caption"]
    engine.filter(None)
    added = seconds(lambda: engine.add(n, new))
    assert engine.search(["brand"]).count(n) == 1
    deleted = seconds(lambda: engine.delete(n, new))
    assert n not in engine.search(["brand"])
    figures = [f"{size / 1e6:.0f}", f"{built:.1f}", f"{1e3 * added:.0f}", f"{1e3 * deleted:.0f}"]
    return list(figures), times, results


def equal_to_lucene(
    ranking: BM25, queries: dict[str, list[list[str]]], results: dict[str, list[list[int]]]
) -> str:
    """Return the share of the first ten results that belong there by the scores of Lucene."""
    shares = []
    accepted = np.ones(len(ranking.postings), np.bool_)
    for kind in KINDS:
        for words, found in zip(queries[kind], results[kind], strict=False):
            every = ranking.search(" ".join(words), "", len(accepted), accepted)
            tenth = every[min(9, len(every) - 1)].score
            right = {hit.row for hit in every if hit.score >= tenth}
            shares.append(np.mean([row in right for row in found[:10]]))
    return f"{np.mean(shares):.3f}"


def engines(texts: list[list[str]], queries: dict[str, list[list[str]]]) -> list[tuple[str, str]]:
    """Return the sections of the comparison."""
    changes: list[Row] = [
        ["engine", "size, MB", "build, s", "add one, ms", "delete one, ms", "of Lucene's first ten"]
    ]
    header = ["engine", "query", *(f"{100 * share:g} % accepted" for share in ACCEPTED)]
    latency: list[Row] = [list(header)]
    names = {
        f"xmodal {version('xmodal')}": InvertedFile,
        f"tantivy {version('tantivy')}": Tantivy,
        f"FTS5 of SQLite {sqlite3.sqlite_version}": FTS5,
    }
    ranking = None
    for name, make in names.items():
        with tempfile.TemporaryDirectory() as folder:
            engine: Any = make(Path(folder))
            figures, times, results = measure(engine, Path(folder), texts, queries)
            ranking = ranking or engine.ranking
            changes.append([name, *figures, equal_to_lucene(ranking, queries, results)])
            for kind in KINDS:
                latency.append([name, kind, *(times[kind, share] for share in ACCEPTED)])
            print(table([changes[0], changes[-1], *latency[-len(KINDS) :]]), flush=True)
    return [
        (f"Size and changes, {len(texts):,} captions", table(changes)),
        (f"One query, k = {K}, ms, median / 99th percentile of {QUERIES} queries", table(latency)),
    ]


def parts(captions: list[str], queries: list[list[str]], folder: Path) -> str:
    """Return the table of a local index with codes of 256 bits: changes, and one query."""
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
    parser.add_argument("--quick", action="store_true", help="20,000 captions, no file")
    args = parser.parse_args()
    file = args.data / "flickr8k" / "captions.jsonl"
    captions = make_captions(file, 20_000 if args.quick else args.captions)
    texts = [document_words({"text": caption}, "") for caption in captions]
    queries = make_queries(captions)
    sections = engines(texts, queries)
    del texts
    with tempfile.TemporaryDirectory() as folder:
        heading = (
            "Local index with codes of 256 bits, queries are captions, median / 99th percentile"
        )
        sections.append((heading, parts(captions, queries["a caption"], Path(folder))))
    command = "python benchmarks/full_text.py"
    write("full-text", f"Full text, seed {SEED}", command, sections, keep=not args.quick)


if __name__ == "__main__":
    main()
