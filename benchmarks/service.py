"""The service: latency of a warm query, and many clients with micro-batching and without.

    python benchmarks/service.py [--model FOLDER] [--index URI] [--seconds 60] [--clients 16]
                                 [--quick]

Without ``--model`` and ``--index`` those of ``make demo``. Clients, service and baseline share the
machine; both services run all the time and are asked in turn.
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
from harness.command_line import ended
from harness.report import table, write

from xmodal.encoder import Encoder
from xmodal.errors import ConfigError
from xmodal.loading import load_encoder

WAYS = {"micro-batching": (), "one at a time": ("--batch", "1")}
ROUNDS = 2
"""The seconds of each way are spent in so many parts, in turn with those of the other."""


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("demo/model"))
    parser.add_argument("--index", default="demo/index")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--name", default="service", help="of the file of results")
    parser.add_argument("--quick", action="store_true", help="does it all run? keeps no table")
    told = parser.parse_args()
    return ended(lambda: _write(told))


def _write(told: argparse.Namespace) -> int:
    seconds, asked = (2.0, 30) if told.quick else (told.seconds, 300)
    encoder = load_encoder(told.model)
    with ExitStack() as stack:
        ports = {
            way: stack.enter_context(_service(told.model, told.index, options))
            for way, options in WAYS.items()
        }
        port = ports["micro-batching"]
        documents = int(_answer(port, "GET", "/v1/about", None)["documents"])
        texts = _texts(port)
        warm = _warm(encoder, port, texts, asked)
        load = _load(ports, texts, told.clients, seconds)
    backbone = str(encoder.about["options"]["text_backbone"])
    about = (
        f"text backbone {'/'.join(Path(backbone).parts[-2:])}, {encoder.bits} bits, "
        f"{documents:,} documents, k = 10"
    )
    write(
        told.name,
        "The service: a warm query, and many at once",
        f"python benchmarks/service.py --seconds {told.seconds:g} --clients {told.clients}",
        [
            (f"One client, a warm text query, {asked} in turn ({about})", warm),
            (f"{told.clients} clients for {seconds:g} s each way ({about})", load),
        ],
        keep=not told.quick,
    )
    return 0


@contextmanager
def _service(model: Path, index: str, options: tuple[str, ...]) -> Iterator[int]:
    """The port of a service that answers until the block ends."""
    command = [sys.executable, "-c", "from xmodal.cli import main; main()", "serve"]
    given = ["--model", str(model), "--index", index, "--port", "0", *options]
    with subprocess.Popen([*command, *given], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if line.startswith("listening on "):
                break
        else:
            raise ConfigError(f"the service did not start: {said.strip()}")
        try:
            yield int(line.rpartition(":")[2])
        finally:
            process.terminate()


def _answer(port: int, method: str, path: str, body: Any) -> Any:
    return _ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), method, path, body)


def _ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any) -> Any:
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise ConfigError(f"{path} answered {answer.status}: {content[:200]!r}")
    return json.loads(content)


def _texts(port: int) -> list[str]:
    """Texts of documents, to ask with."""
    hits = _answer(port, "POST", "/v1/search", {"text": "a red", "k": 1000})["hits"]
    texts = list(dict.fromkeys(str(h["fields"]["text"]) for h in hits if h["fields"].get("text")))
    if not texts:
        raise ConfigError("the documents of this index have no field text to ask with")
    return texts


def _warm(encoder: Encoder, port: int, texts: list[str], asked: int) -> str:
    """Milliseconds of one query at a time: the bare tower, and the whole way by HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    ways: dict[str, Any] = {
        "the bare text tower": lambda text: encoder.encode_texts([text]),
        "the service, /v1/encode": lambda text: _ask(
            connection, "POST", "/v1/encode", {"texts": [text]}
        ),
        "the service, /v1/search": lambda text: _ask(
            connection, "POST", "/v1/search", {"text": text, "k": 10}
        ),
    }
    took: dict[str, list[float]] = {way: [] for way in ways}
    for number, text in zip(range(asked + 10), cycle(texts), strict=False):
        for way, call in ways.items():
            started = time.perf_counter()
            call(text)
            if number >= 10:
                took[way].append(1000 * (time.perf_counter() - started))
    bare = float(np.median(took["the bare text tower"]))
    rows = [["what", "median ms", "p95 ms", "times the bare tower"]]
    for way, each in took.items():
        middle = float(np.median(each))
        rows.append(
            [way, f"{middle:.2f}", f"{np.percentile(each, 95):.2f}", f"{middle / bare:.2f}"]
        )
    return table(rows)


def _load(ports: dict[str, int], texts: list[str], clients: int, seconds: float) -> str:
    """What many clients see, each asking again as soon as it is answered."""
    took: dict[str, list[float]] = {way: [] for way in ports}
    errors = dict.fromkeys(ports, 0)
    for _ in range(ROUNDS):
        for way, port in ports.items():
            each, wrong = _hammer(port, texts, clients, seconds / ROUNDS)
            took[way] += each
            errors[way] += wrong
    rows = [["way", "requests", "errors", "per second", "p50 ms", "p95 ms", "p99 ms"]]
    for way, each in took.items():
        points = (f"{value:.1f}" for value in np.percentile(each, (50, 95, 99)))
        rows.append([way, f"{len(each):,}", errors[way], f"{len(each) / seconds:.0f}", *points])
    return table(rows)


def _hammer(port: int, texts: list[str], clients: int, seconds: float) -> tuple[list[float], int]:
    """Milliseconds of each request, and how many failed."""
    took: list[list[float]] = [[] for _ in range(clients)]
    wrong = [0] * clients
    end = time.perf_counter() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for text in cycle(texts[number::clients] or texts):
            started = time.perf_counter()
            if started > end:
                return
            try:
                _ask(connection, "POST", "/v1/search", {"text": text, "k": 10})
                took[number].append(1000 * (time.perf_counter() - started))
            except (OSError, http.client.HTTPException, ConfigError):
                wrong[number] += 1
                connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return [one for each in took for one in each], sum(wrong)


if __name__ == "__main__":
    sys.exit(main())
