"""The local index on disk: opening, first searches, filters, facets, changes, and memory.

    python benchmarks/local_index.py [--quick] [--documents 10000000] [--folder FOLDER]

Writes results/local-index.md; takes a quarter of an hour, with ``--quick`` (100,000 documents) a
minute and no file. Documents have a random code of 64 bits and five fields: a category of 20
values, a list of tags, a price, a date and a text. Each measurement runs in a process of its own
after the imports; the first time is shown, files are in the cache of the system. ``--folder`` keeps
the index there and uses it again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from harness.memory import process_memory
from harness.report import table, write

from xmodal.codes import BinaryCodes
from xmodal.index.contract import WordsQuery
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import HammingIndex, open_folder
from xmodal.index.segments.commit import FILE, read_commit, write_commit
from xmodal.index.segments.segment import write_segment
from xmodal.index.segments.text_column import SAMPLED, sample_columns, text_columns

BITS, PART, ROUNDS, SEED, MILLION = 64, 100_000, 3, 0, 1_000_000
WORDS = [f"{a}{b}" for a in ("red", "blue", "old", "new") for b in range(500)]
MEMORY = ("RssAnon", "RssFile")
BARS = {
    "open": "50 ms",
    "open and first query": "200 ms after opening",
    "first filter on a field": "100 ms",
    "open and facets": "300 ms",
    "add one document and search": "100 ms",
}


def batches(n: int) -> Iterator[DocumentBatch]:
    """Yield ``n`` random documents."""
    rng = np.random.default_rng(SEED)
    for start in range(0, n, PART):
        count = min(PART, n - start)
        categories, prices = rng.integers(20, size=count), rng.integers(100, 100_000, size=count)
        tags, days = rng.integers(50, size=(count, 2)), rng.integers(1, 29, size=(count, 2))
        words = rng.integers(len(WORDS), size=(count, 3))
        fields = [
            {
                "category": f"category {category}",
                "tags": [f"tag {tag}" for tag in own],
                "price": price / 100,
                "date": f"2024-{day[0] % 12 + 1:02}-{day[1]:02}",
                "text": " ".join(WORDS[word] for word in text),
            }
            for category, price, own, day, text in zip(
                *(values.tolist() for values in (categories, prices, tags, days, words)),
                strict=True,
            )
        ]
        packed = rng.integers(0, 256, (count, BITS // 8), dtype=np.uint8)
        ids = [f"d{number:08}" for number in range(start, start + count)]
        yield DocumentBatch.of(ids, image=BinaryCodes(packed, BITS), fields=fields)


def build(folder: Path, n: int) -> tuple[float, float]:
    """Fill an index with ``n`` documents; return the seconds of adding and of saving.

    Above a million documents, a seventh is added; segments with the fields of these and other
    codes and ids are written beside them, because dividing so many texts into words takes long.
    """
    index, adding = open_folder(folder, bits=BITS, create=True), 0.0
    for batch in batches(-(-n // 7) if n > MILLION else n):
        start = time.perf_counter()
        index.add(batch)
        adding += time.perf_counter() - start
    start = time.perf_counter()
    index.save()
    saving = time.perf_counter() - start
    if n > MILLION:
        repeat(folder, 7)
    return adding, saving


def repeat(folder: Path, times: int) -> None:
    """Write more segments with the fields of the first, until there are ``times`` as many."""
    commit = read_commit(folder / FILE)
    first, rng = open_folder(folder).segments, np.random.default_rng(SEED)
    records = list(commit.segments)
    for turn in range(1, times):
        for segment in first:
            columns = {name: segment.columns.whole(name) for name in segment.columns.names}
            codes = rng.integers(0, 1 << 63, columns["codes.image"].shape, dtype=np.uint64)
            columns["codes.image"] = np.where(columns["codes.image"], codes, np.uint64(0))
            ids = [f"d{turn:02}{id_[3:]}" for id_ in segment.ids]
            columns |= text_columns("id", ids) | sample_columns("id", ids[::SAMPLED], ids[-1])
            written = write_segment(folder, columns, segment.columns.meta)
            assert written.record is not None
            records.append(written.record)
    (folder / FILE).unlink()
    write_commit(folder / FILE, commit._replace(segments=tuple(records)))


# ---- measurements, each in a process of its own ----------------------------------------------


def query(index: HammingIndex, where: dict[str, object] | None = None) -> None:
    """Search for ten documents."""
    [hits] = index.search(BinaryCodes.from_hex(["00" * 8]), 10, target="image", where=where)
    assert len(hits) == 10


def add_one(index: HammingIndex) -> None:
    """Add a document and search for it."""
    code = BinaryCodes.from_hex(["ff" * 8])
    index.add(["new"], image=code, fields=[{"category": "category 3", "price": 1.5, "text": "new"}])
    [hits] = index.search(code, 1, target="image")
    assert hits[0].id == "new"


STEPS: dict[str, tuple[Callable[[HammingIndex], object], ...]] = {
    "open": (),
    "open and first query": (query,),
    "first filter on a field": (query, lambda index: query(index, {"category": "category 7"})),
    "first range of a price": (query, lambda index: query(index, {"price": {"lt": 10}})),
    "open and facets": (HammingIndex.facets,),
    "open and first search of words": (
        lambda index: index.search_words([WordsQuery("red7 blue9")], 10, target="image"),
    ),
    "add one document and search": (query, add_one),
    "save of this one": (query, add_one, HammingIndex.save),
}
"""Calls after opening; the last one is shown."""


def measure(folder: Path, name: str) -> dict[str, float]:
    """Return milliseconds of opening and of the last call, and memory against touched columns."""
    before = {kind: process_memory(kind) or 0 for kind in MEMORY}
    start = time.perf_counter()
    index = open_folder(folder)
    times = [time.perf_counter() - start]
    for call in STEPS[name]:
        start = time.perf_counter()
        call(index)
        times.append(time.perf_counter() - start)
    return {
        "opening": 1000 * times[0],
        "last": 1000 * times[-1],
        **{kind: ((process_memory(kind) or 0) - before[kind]) / 1e6 for kind in MEMORY},
        "whole": sum(one.bytes_read(whole=True) for one in index.segments) / 1e6,
        "part": sum(one.bytes_read(whole=False) for one in index.segments) / 1e6,
    }


def measured(folder: Path, name: str) -> dict[str, float]:
    """Return the medians of a measurement in new processes, on copies where it saves."""
    rounds = []
    for _ in range(1 if name.startswith("save") else ROUNDS):
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            used = folder
            if name.startswith("save"):
                used = Path(temporary, "index")
                shutil.copytree(folder, used, copy_function=lambda a, b: Path(b).hardlink_to(a))
            command = [sys.executable, __file__, "--folder", str(used), "--measure", name]
            rounds.append(json.loads(subprocess.check_output(command)))
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def report(folder: Path, n: int, built: tuple[float, float] | None) -> str:
    """Return the tables."""
    rows = []
    for name in STEPS:
        found = measured(folder, name)
        rows.append(
            [
                name,
                f"{found['opening']:.1f}",
                f"{found['last']:.1f}" if STEPS[name] else "",
                BARS.get(name, ""),
                *(f"{found[kind]:.0f}" for kind in MEMORY),
                f"{found['whole']:.0f}",
                f"{found['part']:.0f}",
            ]
        )
        print(rows[-1], file=sys.stderr, flush=True)
    files = sorted(path.stat().st_size for path in folder.glob("segment-*"))
    head = ["measurement", "opening, ms", "call, ms", "bar", "memory, MB", "of files, MB"]
    head += ["columns read whole, MB", "columns read in part, MB"]
    text = [
        f"{n:,} documents with a code of {BITS} bits and five fields, in {len(files)} segments of "
        f"{sum(files) / 1e9:.2f} GB; codes {n * BITS // 8 / 1e6:.0f} MB. Median of {ROUNDS} new "
        "processes. Memory: growth of the resident memory since the imports. Of files: pages of "
        "the system's cache, of which the library of the scan's compiler has about 25 MB; the "
        "system maps 64 KB to 2 MB around each place that is read. Columns read in part, texts and "
        "their ends: their whole sizes.\n",
        table([head, *rows]),
    ]
    if built:
        text.append(f"\nAdded in {built[0]:.0f} s, saved in {built[1]:.1f} s.\n")
    return "\n".join(text)


def main() -> None:
    """Build the index, measure, print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100,000 documents, no file")
    parser.add_argument("--documents", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="of the index, which is kept")
    parser.add_argument("--measure", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.folder, arguments.measure)))
        return
    n = 100_000 if arguments.quick else arguments.documents
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary, "index")
        built = None if (folder / FILE).exists() else build(folder, n)
        text = report(folder, n, built)
    command = f"python benchmarks/local_index.py --documents {n}"
    sections = [(f"{n:,} documents", text)]
    write("local-index", "The local index on disk", command, sections, keep=not arguments.quick)


if __name__ == "__main__":
    main()
