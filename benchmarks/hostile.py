"""Longest delay of small requests while hostile requests run; slow connections; memory.

A second process requests /health/live and a small search every 20 ms, a third one only measures a
timer, so that delays of the machine can be told from those of the service.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness.hostile_requests import hostile_requests
from benchmarks.harness.memory import process_memory

INTERVAL = 0.02
LIMIT_MS = 250.0
Samples = list[tuple[float, float]]
"""Start in seconds of the monotonic clock, and delay in milliseconds."""


class Row(NamedTuple):
    """Longest delays in milliseconds while one kind of request ran."""

    kind: str
    statuses: dict[str, int]
    live: float
    search: float
    control: float


def main() -> None:
    options = arguments()
    if options.role:
        run_role(options.role, options.port)
        return
    with service(options) as (port, process):
        print_delays(attack(port, options.requests, options.kinds, options.parallel))
        print_slow(slow_connections(port, options.connections, process))
        if options.total:
            print("\n| requests | memory in MB | open files |\n| --- | --- | --- |")
            for requests, size, files in memory(port, options.total, process):
                print(f"| {requests:,} | {(size or 0) / 2**20:.0f} | {files} |", flush=True)


def attack(port: int, requests: int, kinds: Sequence[str] = (), parallel: int = 1) -> list[Row]:
    """Run ``requests`` hostile requests, kind by kind; returns the longest delays of each kind."""
    senders = {
        kind: send for kind, send in hostile_requests().items() if not kinds or kind in kinds
    }
    each = max(1, requests // len(senders))
    spans = []
    with measuring(port) as samples, ThreadPoolExecutor(parallel) as pool:
        for kind, send in senders.items():
            first = send(port)  # makes the request; not measured, because that takes the processor
            start = time.monotonic()
            statuses = Counter([first, *pool.map(lambda _, send=send: send(port), range(each - 1))])
            time.sleep(5 * INTERVAL)
            spans.append((kind, dict(statuses), start, time.monotonic()))
    return [
        Row(kind, statuses, *(longest(samples[role], start, end) for role in ROLES))
        for kind, statuses, start, end in spans
    ]


def slow_connections(port: int, count: int, process: int) -> dict[str, float]:
    """Open connections that send a byte per second, and measure others; returns milliseconds."""
    head = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    heads = (b"GET / HT", head + b"Content-Length: 1000000\r\n\r\n{", b"")
    opened = []
    files = open_files(process)
    with measuring(port) as samples:
        start = time.monotonic()
        for number in range(count):
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            connection.sendall(heads[number % len(heads)])
            opened.append(connection)
            time.sleep(0.002)  # a burst fills the queue of the system, which is served in order
        most = open_files(process)
        for _ in range(8):
            for connection in opened:
                try:
                    connection.send(b" ")
                except OSError:
                    pass
            time.sleep(1)
        end = time.monotonic()
    for connection in opened:
        connection.close()
    time.sleep(2)
    found = {role: longest(samples[role], start, end) for role in ROLES}
    return found | {"files before": files, "files at most": most, "after": open_files(process)}


def memory(
    port: int, total: int, process: int, steps: int = 20
) -> Iterator[tuple[int, int | None, int]]:
    """Send requests, valid and invalid; yields their number, bytes of memory and open files."""
    bodies = [json.dumps(body) for body in BODIES]
    yield 0, process_memory("VmRSS", process), open_files(process)

    def send(count: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for number in range(count):
            headers = {"Content-Type": "application/json"}
            client.request("POST", "/v1/search", bodies[number % len(bodies)], headers)
            client.getresponse().read()
        client.close()

    for step in range(1, steps + 1):
        threads = [threading.Thread(target=send, args=(total // steps // 8,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        yield step * total // steps, process_memory("VmRSS", process), open_files(process)


BODIES: tuple[object, ...] = (
    {"text": "a red circle", "k": 5},
    {"text": "a" * 9000},
    {"text": "a", "unknown": 1},
    {"image": "A" * 5000},
    {"text": "a", "where": {"a": [1, 2]}},
    ["a"] * 100,
)

# ---- measuring processes ----------------------------------------------------------------------

ROLES = ("live", "search", "control")


@contextmanager
def measuring(port: int) -> Iterator[dict[str, Samples]]:
    """Measure in three other processes until the block ends; then the dict has the samples."""
    processes = {
        role: subprocess.Popen(
            [sys.executable, __file__, "--role", role, "--port", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for role in ROLES
    }
    samples: dict[str, Samples] = {}
    try:
        for process in processes.values():
            assert process.stdout is not None
            process.stdout.readline()
        yield samples
    finally:
        for role, process in processes.items():
            out, _ = process.communicate(b"\n", timeout=60)
            samples[role] = json.loads(out)


def run_role(role: str, port: int) -> None:
    """Measure until a line is read; prints the samples as JSON."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), ended.set()), daemon=True).start()
    samples: Samples = []
    asyncio.run(measure(role, port, samples, ended))
    print(json.dumps(samples))


async def measure(role: str, port: int, samples: Samples, ended: threading.Event) -> None:
    print("started", flush=True)
    requests: set[asyncio.Task[None]] = set()
    while not ended.is_set():
        start = time.monotonic()
        if role == "control":
            await asyncio.sleep(INTERVAL)
            samples.append((start, 1000 * (time.monotonic() - start - INTERVAL)))
            continue
        task = asyncio.create_task(probe(role, port, samples))
        requests.add(task)
        task.add_done_callback(requests.discard)
        await asyncio.sleep(INTERVAL)
    await asyncio.gather(*requests)


async def probe(role: str, port: int, samples: Samples) -> None:
    """One small request on a new connection."""
    body = b'{"text":"a red circle","k":3}'
    line = "GET /health/live" if role == "live" else "POST /v1/search"
    head = f"{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    if role == "search":
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    start = time.monotonic()
    delay = 60_000.0  # of a probe that fails
    try:
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode() + b"\r\n" + (body if role == "search" else b""))
            answer = await reader.read()
            writer.close()
        if answer.startswith(b"HTTP/1.1 200"):
            delay = 1000 * (time.monotonic() - start)
    except OSError:
        pass
    samples.append((start, delay))


def longest(samples: Samples, start: float, end: float) -> float:
    """The longest delay of the samples that began between two times."""
    return max((delay for began, delay in samples if start - INTERVAL <= began <= end), default=0.0)


def open_files(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


# ---- output -----------------------------------------------------------------------------------


def print_delays(rows: Sequence[Row]) -> None:
    print(f"\n{sum(sum(row.statuses.values()) for row in rows)} requests, longest delays in ms\n")
    print("| kind | responses | /health/live | search | timer of an idle process |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        shown = ", ".join(f"{count} x {status}" for status, count in row.statuses.items())
        print(f"| {row.kind} | {shown} | {row.live:.0f} | {row.search:.0f} | {row.control:.0f} |")
    worst = max(max(row.live, row.search) for row in rows)
    print(f"\nLongest: {worst:.0f} ms, expected at most {LIMIT_MS:.0f} ms.")


def print_slow(found: dict[str, float]) -> None:
    print(
        "\nSlow connections: " + ", ".join(f"{name} {value:.0f}" for name, value in found.items())
    )


@contextmanager
def service(options: argparse.Namespace) -> Iterator[tuple[int, int]]:
    """A running ``xmodal serve``: its port and process."""
    program = "from xmodal.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", "--port", "0"]
    command += ["--model", options.model, "--index", options.index]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    draining: threading.Thread | None = None
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("listening on "):
                break
        else:
            sys.exit("".join(lines))
        draining = threading.Thread(target=process.stderr.read, daemon=True)
        draining.start()
        yield int(line.rpartition(":")[2]), process.pid
    finally:
        process.terminate()
        process.wait(30)
        if draining is not None:
            draining.join()
        assert process.stderr is not None
        process.stderr.close()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="model or portable model")
    parser.add_argument("--index", help="its index")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--parallel", type=int, default=1, help="hostile requests at a time")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--total", type=int, default=100_000, help="requests of the memory curve")
    parser.add_argument("--kinds", nargs="*", default=(), help="only these kinds")
    parser.add_argument("--quick", action="store_true", help="100 requests, no memory curve")
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.requests, options.total, options.connections = 100, 0, 300
    return options


if __name__ == "__main__":
    main()
