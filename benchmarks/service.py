"""The service: latency of one client, and throughput of many with and without micro-batching.

    python benchmarks/service.py [--model FOLDER] [--index URI] [--seconds 60] [--clients 16]
                                 [--quick]

Writes results/service.md; takes three minutes, with ``--quick`` seconds and no file. The defaults
of ``--model`` and ``--index`` are those of ``make demo``. Clients, services and baseline share the
machine; both services run during the whole benchmark and are measured in turn.
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from harness.command_line import exit_status
from harness.report import table, write

from xmodal.encoders.encoder import Encoder
from xmodal.encoders.load import load_encoder
from xmodal.errors import ConfigError

SERVICES = {"micro-batching": (), "one at a time": ("--batch", "1")}
ROUNDS = 2
"""Number of alternating intervals in which each service is measured."""


def main() -> int:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("demo/model"))
    parser.add_argument("--index", default="demo/index")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--name", default="service", help="name of the file in results/")
    parser.add_argument("--quick", action="store_true", help="short, no file")
    args = parser.parse_args()
    return exit_status(lambda: _write(args))


def _write(args: argparse.Namespace) -> int:
    seconds, queries = (2.0, 30) if args.quick else (args.seconds, 300)
    encoder = load_encoder(args.model)
    with ExitStack() as stack:
        ports = {
            name: stack.enter_context(_service(args.model, args.index, options))
            for name, options in SERVICES.items()
        }
        port = ports["micro-batching"]
        documents = int(_request_once(port, "GET", "/v1/about", None)["documents"])
        texts = _texts(port)
        latency = _latency(encoder, port, texts, queries)
        throughput = _throughput(ports, texts, args.clients, seconds)
    backbone = str(encoder.about["options"]["text_backbone"])
    about = (
        f"text backbone {'/'.join(Path(backbone).parts[-2:])}, {encoder.bits} bits, "
        f"{documents:,} documents, k = 10"
    )
    write(
        args.name,
        "The service: latency and throughput",
        f"python benchmarks/service.py --seconds {args.seconds:g} --clients {args.clients}",
        [
            (f"One client, {queries} text queries ({about})", latency),
            (f"{args.clients} clients, {seconds:g} s per service ({about})", throughput),
        ],
        keep=not args.quick,
    )
    return 0


@contextmanager
def _service(model: Path, index: str, options: tuple[str, ...]) -> Iterator[int]:
    """Start a service; yield its port."""
    command = [sys.executable, "-c", "from xmodal.cli import main; main()", "serve"]
    given = ["--model", str(model), "--index", index, "--port", "0", *options]
    with subprocess.Popen([*command, *given], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        output = ""
        for line in process.stderr:
            output += line
            if line.startswith("listening on "):
                break
        else:
            raise ConfigError(f"the service did not start: {output.strip()}")
        try:
            yield int(line.rpartition(":")[2])
        finally:
            process.terminate()


def _request_once(port: int, method: str, path: str, body: Any) -> Any:
    return _request(http.client.HTTPConnection("127.0.0.1", port, timeout=60), method, path, body)


def _request(connection: http.client.HTTPConnection, method: str, path: str, body: Any) -> Any:
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise ConfigError(f"{path} returned status {response.status}: {content[:200]!r}")
    return json.loads(content)


def _texts(port: int) -> list[str]:
    """Texts of documents, used as queries."""
    hits = _request_once(port, "POST", "/v1/search", {"text": "a red", "k": 1000})["hits"]
    texts = list(dict.fromkeys(str(h["fields"]["text"]) for h in hits if h["fields"].get("text")))
    if not texts:
        raise ConfigError(
            "the documents of this index have no field text, expected one for the queries"
        )
    return texts


def _latency(encoder: Encoder, port: int, texts: list[str], queries: int) -> str:
    """Milliseconds of one query at a time: the text encoder alone, and HTTP requests."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    calls: dict[str, Any] = {
        "the text encoder": lambda text: encoder.encode_texts([text]),
        "the service, /v1/encode": lambda text: _request(
            connection, "POST", "/v1/encode", {"texts": [text]}
        ),
        "the service, /v1/search": lambda text: _request(
            connection, "POST", "/v1/search", {"text": text, "k": 10}
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number, text in zip(range(queries + 10), cycle(texts), strict=False):
        for name, call in calls.items():
            started = time.perf_counter()
            call(text)
            if number >= 10:
                times[name].append(1000 * (time.perf_counter() - started))
    encoder_only = float(np.median(times["the text encoder"]))
    rows = [["call", "median ms", "p95 ms", "/ text encoder"]]
    for name, each in times.items():
        median = float(np.median(each))
        rows.append(
            [
                name,
                f"{median:.2f}",
                f"{np.percentile(each, 95):.2f}",
                f"{median / encoder_only:.2f}",
            ]
        )
    return table(rows)


def _throughput(ports: dict[str, int], texts: list[str], clients: int, seconds: float) -> str:
    """Throughput and latency of clients that send the next request after each response."""
    times: dict[str, list[float]] = {name: [] for name in ports}
    errors = dict.fromkeys(ports, 0)
    for _ in range(ROUNDS):
        for name, port in ports.items():
            each, failed = _run_clients(port, texts, clients, seconds / ROUNDS)
            times[name] += each
            errors[name] += failed
    rows = [["service", "requests", "errors", "per second", "p50 ms", "p95 ms", "p99 ms"]]
    for name, each in times.items():
        points = (f"{value:.1f}" for value in np.percentile(each, (50, 95, 99)))
        rows.append([name, f"{len(each):,}", errors[name], f"{len(each) / seconds:.0f}", *points])
    return table(rows)


def _run_clients(
    port: int, texts: list[str], clients: int, seconds: float
) -> tuple[list[float], int]:
    """Milliseconds of each successful request, and the number of failed ones."""
    times: list[list[float]] = [[] for _ in range(clients)]
    failed = [0] * clients
    end = time.perf_counter() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for text in cycle(texts[number::clients] or texts):
            started = time.perf_counter()
            if started > end:
                return
            try:
                _request(connection, "POST", "/v1/search", {"text": text, "k": 10})
                times[number].append(1000 * (time.perf_counter() - started))
            except (OSError, http.client.HTTPException, ConfigError):
                failed[number] += 1
                connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for each in times for one in each], sum(failed)


if __name__ == "__main__":
    sys.exit(main())
