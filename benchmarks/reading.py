"""Reading of 1,000,000 rows: rows a second, and memory above that before the first row.

    python benchmarks/reading.py [--rows 1000000] [--formats csv jsonl parquet tar] [--quick]

Writes results/reading.md; takes half an hour and 3 GB of the folder for temporary files. Rows have
an id, a caption of six words, a price, a stock and a shop; those of the tar are a caption and a
picture of one pixel, whose bytes are not read. Each run is a process of its own: ``iterate``
passes over the items, ``read`` keeps them. Memory is resident memory; before the first row, numpy
and xmodal are imported, pyarrow is not.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness.report import table, write
from PIL import Image

WORDS = "red green blue white round square large small dog cat left right".split()
CHUNK = 50_000
# Prints the number of items, seconds, those of the processor, and the peak memory in MB above that
# before the first row.
PROGRAM = """
import sys, time
from harness.memory import process_memory, reset_peak_memory
from xmodal.data.readers.read import iterate, read

reset_peak_memory()  # the peak is counted from here on
before, started, used = process_memory("VmRSS"), time.perf_counter(), time.process_time()
if sys.argv[1] == "read":
    number = len(read(sys.argv[2]))
else:
    number = sum(1 for _ in iterate(sys.argv[2]))
seconds, of_processor = time.perf_counter() - started, time.process_time() - used
print(number, seconds, of_processor, (process_memory("VmHWM") - before) / 2**20)
"""

Row = dict[str, Any]


def rows(number: int, seed: int) -> Iterator[list[Row]]:
    """Yield rows with pseudo-random values, ``CHUNK`` at a time."""
    random = np.random.default_rng(seed)
    words = np.array(WORDS)
    for start in range(0, number, CHUNK):
        size = min(CHUNK, number - start)
        captions = words[random.integers(0, len(words), (size, 6))].tolist()
        prices = random.random(size).round(2).tolist()
        stock = random.integers(0, 1000, size).tolist()
        yield [
            {
                "id": f"item-{start + k}",
                "caption": " ".join(captions[k]),
                "price": prices[k],
                "stock": stock[k],
                "shop": f"shop {stock[k] % 7}",
            }
            for k in range(size)
        ]


def write_csv(path: Path, chunks: Iterator[list[Row]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = None
        for chunk in chunks:
            if writer is None:
                writer = csv.DictWriter(file, list(chunk[0]))
                writer.writeheader()
            writer.writerows(chunk)


def write_jsonl(path: Path, chunks: Iterator[list[Row]]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for chunk in chunks:
            file.writelines(json.dumps(row) + "\n" for row in chunk)


def write_parquet(path: Path, chunks: Iterator[list[Row]]) -> None:
    first = next(chunks)
    with pq.ParquetWriter(path, pa.Table.from_pylist(first).schema) as writer:
        for chunk in (first, *chunks):
            writer.write_table(pa.Table.from_pylist(chunk))


def write_tar(path: Path, chunks: Iterator[list[Row]]) -> None:
    """Write a sample of NUMBER.jpg and NUMBER.txt for each row."""
    picture = io.BytesIO()
    Image.new("RGB", (1, 1), "red").save(picture, "JPEG", quality=1)
    number = 0
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as file:
        for row in (row for chunk in chunks for row in chunk):
            for ending, data in (("jpg", picture.getvalue()), ("txt", row["caption"].encode())):
                member = tarfile.TarInfo(f"{number:08d}.{ending}")
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
            file.members = []  # type: ignore[attr-defined]  # they are of no use here
            number += 1


FORMATS: dict[str, Callable[[Path, Iterator[list[Row]]], None]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
    "tar": write_tar,
}


class Run(NamedTuple):
    """Rows a second, by the clock and by the processor, and MB above the start."""

    by_clock: float
    by_processor: float
    memory: float


def measure(function: str, path: Path, number: int) -> Run:
    """Run ``iterate`` or ``read`` in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, function, str(path.resolve())]
    here = Path(__file__).parent
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=here)
    found, seconds, of_processor, memory = map(float, done.stdout.split())
    if found != number:
        raise SystemExit(f"{function} of {path} gives {found:,.0f} items, expected {number:,}")
    return Run(number / seconds, number / of_processor, memory)


def main() -> None:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="[default: 1,000,000]")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--seed", type=int, default=0, help="of the values [default: 0]")
    parser.add_argument("--quick", action="store_true", help="10,000 rows, no file")
    args = parser.parse_args()
    number = 10_000 if args.quick else args.rows
    found: list[list[object]] = [
        ["file", "MB", "function", "rows a second", "a second of the processor", "MB above start"]
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in args.formats:
            path = Path(folder, f"rows.{name}")
            FORMATS[name](path, rows(number, args.seed))
            size = f"{path.stat().st_size / 1e6:,.0f}"
            for function in ("iterate", "read"):
                run = measure(function, path, number)
                found.append([name, size, function, *(f"{value:,.0f}" for value in run)])
            path.unlink()
    write(
        "reading",
        f"Reading of {number:,} rows",
        f"python benchmarks/reading.py --rows {number} --seed {args.seed}",
        [("Each run in a process of its own", table(found))],
        keep=not args.quick,
    )


if __name__ == "__main__":
    main()
