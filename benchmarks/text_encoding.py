"""Time to encode texts: inside OpenSearch, by the service, and by the Python encoder.

    python benchmarks/text_encoding.py [--seconds 10] [--rounds 3] [--clients 8] [--quick]

Writes results/text-encoding.md; takes a quarter of an hour, with ``--quick`` minutes and no file. A
model with MiniLM is trained on rendered pictures and exported in float32 and int8. One node and two
services run during the whole benchmark, and all paths are measured in turn in each round, with
captions of 9 to 14 words. Clients, services, node and encoder share the machine. The service
encodes texts that wait at the same time together, the cluster each text alone.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from harness.command_line import exit_status
from harness.random_texts import captions
from harness.report import table, write
from harness.text_paths import (
    PLUGINS,
    Client,
    Connected,
    bulk,
    connected_indexes,
    train_model,
)

from xmodal.encoders.encoder import Encoder
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.export import Check, export
from xmodal.export.ml_commons import write_text_tower
from xmodal.index.documents import DocumentBatch
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.node.process import Node

BITS = 256
BULK = 200
"""Documents of a bulk request."""
Encode = Callable[[str], object]
"""Encodes one text."""
Store = Callable[[Sequence[tuple[str, str]]], object]
"""Encodes and stores texts by id."""


def main() -> int:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="short, no file")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.rounds = 1.0, 1
    return exit_status(lambda: _write(args))


def _write(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        model = train_model(folder, BITS)
        export(model, folder / "int8", int8=True, check=Check(items=20))
        settings = {"plugins": PLUGINS, "local_models": True, "fast_start": False}
        node = stack.enter_context(Node.start(folder / "node", heap="2g", **settings))
        version = node.get("/")["version"]["number"]
        makers: dict[str, Callable[[], Encode]] = {}
        stores: dict[str, Store] = {}
        for precision, portable in (("float32", model / "portable"), ("int8", folder / "int8")):
            tower = write_text_tower(portable, folder / f"{precision}.zip")
            places = stack.enter_context(
                connected_indexes(node, portable, tower.file, f"texts-{precision}")
            )
            encoder = PortableEncoder.load(portable)
            makers |= _encoders(precision, places, encoder)
            stores |= _stores(precision, places, encoder)
        rows = _measure(makers, stores, args)
    write(
        "text-encoding",
        f"Time to encode texts, OpenSearch {version}",
        f"python benchmarks/text_encoding.py --seconds {args.seconds:g} --rounds {args.rounds} "
        f"--clients {args.clients}",
        [
            (
                f"Texts of 9 to 14 words, {BITS} bits, MiniLM; medians of {args.rounds} rounds",
                table(rows),
            )
        ],
        keep=not args.quick,
    )
    return 0


def _encoders(
    precision: str, places: Mapping[str, Connected], encoder: Encoder
) -> dict[str, Callable[[], Encode]]:
    """For each path a function that returns the encoding function of one client."""
    cluster = places["cluster"]
    service = str(places["service"].service)
    predict = f"/_plugins/_ml/models/{cluster.model_id}/_predict"

    def in_cluster() -> Encode:
        client, more = Client(cluster.node.url), {"target_response": ["sentence_embedding"]}
        return lambda text: client.post(
            predict, {"text_docs": [text], "return_number": True, **more}
        )

    def by_service() -> Encode:
        client = Client(service)
        return lambda text: client.post("/v1/encode", {"texts": [text]})

    return {
        f"cluster, {precision}": in_cluster,
        f"service, {precision}": by_service,
        f"Python, {precision}": lambda: lambda text: encoder.encode_texts([text]),
    }


def _stores(precision: str, places: Mapping[str, Connected], encoder: Encoder) -> dict[str, Store]:
    """For each path a function that stores texts; Python stores in the index of the cluster."""

    def through(place: Connected) -> Store:
        client = Client(place.node.url)
        return lambda documents: bulk(client, place, documents)

    index = open_opensearch(places["cluster"].uri)

    def by_python(documents: Sequence[tuple[str, str]]) -> None:
        ids, texts = zip(*documents, strict=True)
        codes = encoder.encode_texts(list(texts))
        index.add(DocumentBatch.of(list(ids), text=codes, fields=[{"text": t} for t in texts]))

    stores: dict[str, Store] = {path: through(places[path]) for path in ("cluster", "service")}
    stores["Python"] = by_python
    return {f"{path}, {precision}": store for path, store in stores.items()}


def _measure(
    makers: Mapping[str, Callable[[], Encode]],
    stores: Mapping[str, Store],
    args: argparse.Namespace,
) -> list[list[Any]]:
    """Measure all paths in turn, in each round; return the rows of the table."""
    texts = iter(captions(1_000_000, seed=0))
    figures: dict[str, list[tuple[float, ...]]] = {name: [] for name in makers}
    ids = map(str, count())
    for name, make in makers.items():  # warm up
        _run_clients(make, texts, 1, min(2.0, args.seconds))
        stores[name]([(next(ids), next(texts))])
    for _ in range(args.rounds):
        for name, make in makers.items():
            one = _run_clients(make, texts, 1, args.seconds)
            many = _run_clients(make, texts, args.clients, args.seconds)
            batch = [(next(ids), next(texts)) for _ in range(BULK)]
            started, stored = time.perf_counter(), 0
            while time.perf_counter() - started < args.seconds:
                stores[name](batch)
                stored += len(batch)
                batch = [(next(ids), next(texts)) for _ in range(BULK)]
            rate = stored / (time.perf_counter() - started)
            figures[name].append((*one, *many, rate))
            print(name, [f"{value:.1f}" for value in figures[name][-1]], flush=True)
    clients = f"{args.clients} clients"
    head = ["encoded by", "1 client: median ms", "p95 ms", "texts/s", f"{clients}: median ms"]
    head += ["p95 ms", "texts/s", f"stored by `_bulk` of {BULK}: texts/s"]
    rows: list[list[Any]] = [head]
    for name, each in figures.items():
        rows.append([name, *(f"{value:.0f}" for value in np.median(each, axis=0))])
    return rows


def _run_clients(
    make: Callable[[], Encode], texts: Iterator[str], clients: int, seconds: float
) -> tuple[float, float, float]:
    """Median and 95th percentile in milliseconds, and texts a second, of parallel clients."""
    times: list[float] = []
    failures: list[BaseException] = []
    lock = threading.Lock()
    started = time.perf_counter()

    def client() -> None:
        try:
            encode = make()
            while (begun := time.perf_counter()) - started < seconds:
                with lock:
                    text = next(texts)
                encode(text)
                times.append(1000 * (time.perf_counter() - begun))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    elapsed = time.perf_counter() - started
    median, late = np.percentile(times, (50, 95))
    return float(median), float(late), len(times) / elapsed


if __name__ == "__main__":
    raise SystemExit(main())
