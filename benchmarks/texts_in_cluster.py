"""Codes of random texts from OpenSearch, compared bit by bit with those of the Python encoder.

    python benchmarks/texts_in_cluster.py [--texts 10000] [--seed 0] [--bits 64] [--quick]

Writes results/texts-in-cluster.md; takes an hour, with ``--quick`` minutes and no file. The texts
are of all scripts, empty, long, and like JSON and templates (harness/random_texts.py). Each is
stored through the ingest pipeline and then searched through the search pipeline, restricted to its
own document: distance 0 means that the query has the same code. Both are done twice: with the model
inside OpenSearch (``connect --in-cluster``), and with the service (``connect --service``).
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from harness.command_line import exit_status
from harness.random_texts import KINDS, random_texts
from harness.report import table, write
from harness.text_paths import (
    PATHS,
    PLUGINS,
    Client,
    Connected,
    bulk,
    connected_indexes,
    train_model,
)

from xmodal.encoders.encoder import Encoded
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.errors import ConfigError
from xmodal.export.ml_commons import write_text_tower
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.node.process import Node

BULK = 100
HEAD = ["texts", "", "no code", "bits", "bits that differ", "queries", "distance not 0", "refused"]
CLIENTS = 4
TITLES = ("Encoded in the cluster", "By the service")
Texts = Sequence[tuple[str, str]]
"""Kind and text of each document; the id is the position."""


def main() -> int:
    """Run the comparison and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="100 texts, no file")
    args = parser.parse_args()
    return exit_status(lambda: _write(args))


def _write(args: argparse.Namespace) -> int:
    texts = random_texts(100 if args.quick else args.texts, args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = train_model(folder, args.bits)
        tower = write_text_tower(model, folder / "text.zip")
        portable = model / "portable"
        expected = PortableEncoder.load(portable).encode("text", [text for _, text in texts])
        settings = {"plugins": PLUGINS, "local_models": True, "fast_start": False}
        with Node.start(folder / "node", heap="2g", **settings) as node:
            version = node.get("/")["version"]["number"]
            with connected_indexes(node, portable, tower.file, "texts") as places:
                tables = {path: _compare(places[path], texts, expected) for path in PATHS}
    write(
        "texts-in-cluster",
        f"Codes of {len(texts):,} random texts, OpenSearch {version}",
        f"python benchmarks/texts_in_cluster.py --texts {len(texts)} --seed {args.seed} "
        f"--bits {args.bits}",
        [
            (f"{title}, compared with the Python encoder", tables[path])
            for path, title in zip(
                PATHS, ("Encoded in the cluster", "By the service"), strict=False
            )
        ],
        keep=not args.quick,
    )
    return 0


def _compare(place: Connected, texts: Texts, expected: Encoded) -> str:
    """Store and search all texts; return a table with a row for each kind."""
    started = time.perf_counter()
    ids = [str(row) for row in range(len(texts))]
    client = Client(place.node.url)
    refused: Counter[str] = Counter()
    for start in range(0, len(ids), BULK):
        batch = [(id_, texts[int(id_)][1]) for id_ in ids[start : start + BULK]]
        for id_, reason in bulk(client, place, batch).items():
            print(f"{place.index}: {texts[int(id_)][1][:80]!r}: {reason[:200]}", flush=True)
            refused[texts[int(id_)][0]] += 1
    client.post(f"/{place.index}/_refresh", {})
    with open_opensearch(place.uri) as index:
        stored, found = index.get(ids).codes("text")
    print(f"{place.index}: stored in {time.perf_counter() - started:.0f} s", flush=True)
    by_id = dict(zip(stored, found.packed, strict=True))
    assert expected.outputs is not None
    differing, bits, without = Counter[str](), Counter[str](), Counter[str]()
    largest = 0.0
    for row, (kind, _) in enumerate(texts):
        if (code := by_id.get(str(row))) is None:
            without[kind] += 1
            continue
        bits[kind] += 8 * len(code)
        wrong = np.unpackbits(code ^ expected.codes.packed[row]).astype(bool)
        differing[kind] += int(wrong.sum())
        largest = max([largest, *np.abs(expected.outputs[row][wrong])])
    searched, far, failed = _search(place, [int(id_) for id_ in by_id], texts)
    print(f"{place.index}: all in {time.perf_counter() - started:.0f} s", flush=True)
    counts = Counter(kind for kind, _ in texts)
    columns = (counts, without, bits, differing, searched, far, refused + failed)
    rows = [[kind, *(f"{one[kind]:,}" for one in columns)] for kind in KINDS]
    rows.append(["all", *(f"{sum(one.values()):,}" for one in columns)])
    size = float(np.median(np.abs(expected.outputs)))
    note = f"Largest output of a bit that differs: {largest:.1e}; median of all: {size:.1e}."
    return f"{table([HEAD, *rows])}\n\n{note}"


def _search(
    place: Connected, rows: Sequence[int], texts: Texts
) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Search each text; count queries, hits at another distance than 0, and failures, by kind."""
    local = threading.local()
    searched, far, failed = Counter[str](), Counter[str](), Counter[str]()

    def search(row: int) -> float | str:
        if not hasattr(local, "client"):
            local.client = Client(place.node.url)
        path, body = place.search(texts[row][1], str(row))
        try:
            hits = local.client.post(path, body)["hits"]["hits"]
        except ConfigError as error:
            return str(error)
        return float(hits[0]["_score"]) if hits else "no hit"

    with ThreadPoolExecutor(CLIENTS) as threads:
        for row, score in zip(rows, threads.map(search, rows), strict=True):
            kind = texts[row][0]
            searched[kind] += 1
            if isinstance(score, str):
                print(f"{place.index}: {texts[row][1][:80]!r}: {score}", flush=True)
                failed[kind] += 1
            elif score != 1:
                far[kind] += 1
    return searched, far, failed


if __name__ == "__main__":
    raise SystemExit(main())
