"""Codes for 1,000,000 documents of an existing index: a run through three kills and the restart of
a node, and a run without.

    python benchmarks/backfill.py --model m.onnx [--documents 1000000] [--work FOLDER] [--quick]

Writes results/backfill.md; takes 15 minutes and 2 GB of FOLDER. The documents have a title of six
words and a shop. Both runs are ``xmodal-opensearch enrich``. In the first, SIGKILL ends the command
at 20, 40 and 60 % of the documents, and the same command is started again; at 80 % the node ends
and starts while the command waits. Ids and codes of both indexes are compared by a sum of hashes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from harness.memory import process_memory
from harness.report import table, write

from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.mapping import ENCODER, ID
from xmodal_opensearch.loading.shard_reader import ShardReader
from xmodal_opensearch.node.process import Node
from xmodal_opensearch.server_plugin.build import plugin_folder

WORDS = (
    "red green blue white striped dotted round square large small circle star left right".split()
)
CHUNK = 5000
SHARDS = 2
REFRESH = "30s"
"""Interval of refreshes; each costs time during a backfill."""
POLL = 5.0
"""Seconds between two counts of the documents with codes."""
KILLS = (0.2, 0.4, 0.6)
RESTART = 0.8
PROGRAM = "from xmodal_opensearch.cli import main; main()"


class Run(NamedTuple):
    """Seconds of all commands, and the largest resident memory of one, in MB."""

    seconds: float
    memory: float


class Benchmark:
    """A node with an index of documents, and copies of it."""

    def __init__(self, folder: Path, documents: int, model: Path) -> None:
        self.folder, self.documents, self.model = folder, documents, model
        self.node = self._start(None)

    def _start(self, port: int | None) -> Node:
        options: dict[str, Any] = {} if port is None else {"port": port}
        return Node.start(
            self.folder / "node",
            extra_plugins=[plugin_folder()],
            fast_start=False,
            timeout=900,
            **options,
        )

    def server(self) -> Server:
        return Server(parse_address(f"opensearch://127.0.0.1:{self.node.port}", index_needed=False))

    def fill(self) -> float:
        """Store the documents in the index "plain"; return the seconds."""
        server, started = self.server(), time.perf_counter()
        body = {
            "settings": {
                "index.number_of_shards": SHARDS,
                "index.number_of_replicas": 0,
                "index.refresh_interval": REFRESH,
            },
            "mappings": {"properties": {"title": {"type": "text"}, "shop": {"type": "keyword"}}},
        }
        server.request("PUT", "/plain", body, doing="creating")
        for chunk in self._chunks():
            assert not server.bulk("plain", chunk, 300)["errors"]
        server.request("POST", "/plain/_flush", doing="flushing", timeout=600)
        settings = {"index.blocks.write": True}
        server.request("PUT", "/plain/_settings", settings, doing="blocking")
        server.close()
        return time.perf_counter() - started

    def _chunks(self) -> Iterator[bytes]:
        random = np.random.default_rng(0)
        for start in range(0, self.documents, CHUNK):
            size = min(CHUNK, self.documents - start)
            words = np.array(WORDS)[random.integers(0, len(WORDS), (size, 6))].tolist()
            lines = []
            for row in range(size):
                title = {"title": " ".join(words[row]), "shop": f"shop {row % 7}"}
                lines += [json.dumps({"index": {"_id": f"item-{start + row}"}}), json.dumps(title)]
            yield ("\n".join(lines) + "\n").encode()

    def copy(self, name: str) -> None:
        """Make the index ``name`` with the documents of "plain"."""
        server = self.server()
        body = {"settings": {"index.blocks.write": None, "index.number_of_replicas": 0}}
        server.request("PUT", f"/plain/_clone/{name}", body, doing="copying", timeout=600)
        status = {"wait_for_status": "green"}
        server.request("GET", f"/_cluster/health/{name}", doing="waiting", **status)
        server.close()

    def command(self, name: str) -> subprocess.Popen[bytes]:
        """Start ``xmodal-opensearch enrich``."""
        uri = f"opensearch://127.0.0.1:{self.node.port}/{name}"
        options = ["--index", uri, "--model", self.model, "--text-field", "title", "--no-cache"]
        return subprocess.Popen([sys.executable, "-c", PROGRAM, "enrich", *options])

    def encoded(self, name: str) -> int:
        """Return the number of documents with codes."""
        server = self.server()
        server.request("POST", f"/{name}/_refresh", doing="refreshing", timeout=300)
        count = server.count(name, {"exists": {"field": ID}})
        server.close()
        return count

    def run(self, name: str, kills: tuple[float, ...], restart: float | None) -> Run:
        """Encode the index ``name``, with kills and a restart of the node at shares of it."""
        started, memory = time.perf_counter(), 0.0
        events = [*((share, "kill") for share in kills)]
        events += [] if restart is None else [(restart, "restart of the node")]
        while True:
            process, before = self.command(name), self.encoded(name)
            try:
                while process.poll() is None:
                    time.sleep(POLL if events else 0.5)
                    memory = max(memory, (process_memory("VmHWM", process.pid) or 0) / 2**20)
                    count = self.encoded(name) if events else 0
                    # The command works: it has written documents.
                    if not events or count <= before or count < events[0][0] * self.documents:
                        continue
                    print(f"{name}: {events[0][1]} at {count:,} documents", flush=True)
                    if events.pop(0)[1] == "kill":
                        process.send_signal(signal.SIGKILL)
                        process.wait()
                        time.sleep(POLL)  # the server stores what it has received
                    else:
                        self.restart()
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            if process.returncode == 0:
                if events:
                    sys.exit(f"the command ended before {events}")
                return Run(time.perf_counter() - started, memory)
            if process.returncode != -signal.SIGKILL:
                sys.exit(f"enrich ended with {process.returncode}")

    def restart(self) -> None:
        """End the node and start it again at the same port."""
        port = self.node.port
        self.node.stop()
        self.node = self._start(port)

    def checksum(self, name: str) -> tuple[int, str]:
        """Return the number of documents with codes, and a sum of hashes of ids and codes."""
        server, count, total = self.server(), 0, 0
        query = {"exists": {"field": ID}}
        fields = ["text_code", "text_codes", ENCODER]
        for hits in ShardReader(server, name, SHARDS, query, fields).pages():
            for hit in hits:
                text = json.dumps([hit["_id"], hit["_source"]], sort_keys=True)
                digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
                total = (total + int.from_bytes(digest)) % 2**128
                count += 1
        server.close()
        return count, f"{total:032x}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    options.add_argument("--model", type=Path, required=True, help="encoder of texts")
    options.add_argument("--documents", type=int, default=1_000_000)
    options.add_argument("--work", type=Path, help="folder of the node")
    options.add_argument("--quick", action="store_true", help="20,000 documents, no report")
    given = options.parse_args()
    documents = 20_000 if given.quick else given.documents
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        benchmark = Benchmark(Path(folder), documents, given.model.resolve())
        try:
            filling = benchmark.fill()
            print(f"filled in {filling:.0f} s, load {os.getloadavg()[0]:.1f}", flush=True)
            runs = {}
            for name, kills, restart in (("clean", (), None), ("killed", KILLS, RESTART)):
                benchmark.copy(name)
                runs[name] = benchmark.run(name, kills, restart)
                print(f"{name}: {runs[name]}, load {os.getloadavg()[0]:.1f}", flush=True)
            sums = {name: benchmark.checksum(name) for name in runs}
        finally:
            benchmark.node.stop()
    print(sums)
    equal = sums["clean"] == sums["killed"] and sums["clean"][0] == documents
    rows = [["run", "seconds", "documents a second", "memory of the command, MB", "codes", "sum"]]
    for name, run in runs.items():
        count, digest = sums[name]
        rate = f"{documents / run.seconds:,.0f}"
        rows.append([name, f"{run.seconds:,.0f}", rate, f"{run.memory:.0f}", f"{count:,}", digest])
    text = (
        f"{documents:,} documents, {SHARDS} shards; kills at "
        f"{', '.join(f'{share:.0%}' for share in KILLS)} and a restart of the node at "
        f"{RESTART:.0%} of the documents. Ids and codes are "
        f"{'equal' if equal else 'DIFFERENT'}."
    )
    write(
        "backfill",
        "Backfill of an existing index",
        f"python benchmarks/backfill.py --model m.onnx --documents {documents}",
        [("Kills and a restart", f"{text}\n\n{table(rows)}")],
        keep=not given.quick,
    )
    if not equal:
        sys.exit("the codes differ")


if __name__ == "__main__":
    main()
