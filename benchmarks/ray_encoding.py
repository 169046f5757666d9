"""Encoding by Ray from S3 into S3, while processes of it are killed.

    python benchmarks/ray_encoding.py [--rows 20000] [--kills 5] [--workers 4] [--seed 0] [--quick]

Writes results/ray-encoding.md; takes some minutes. An S3 server in this process has a table whose
rows name pictures of the same bucket. ``xmodal encode --shard`` encodes it without Ray, one part
after the other; then ``--engine ray`` does, with processes of this machine. At random times a
process that encodes, or the command itself, is killed; a killed command is started again until one
succeeds. All parts are compared byte by byte.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from harness.commands import COMMAND, run
from harness.report import table, write

from xmodal.data.synthetic import write_synthetic_data

PICTURES, PARTS = 360, 8
WORKER = "ray::MapWorker"
LONGEST_WAIT = 6.0
"""Seconds between the start of a process that encodes and a kill, at most."""
BUCKET = "photos"
KEY = "test"
"""Name and password of the user of the S3 server."""


@contextmanager
def s3() -> Iterator[Any]:
    """Yield the file system of an S3 server with an empty bucket, which commands will use."""
    from moto.server import ThreadedMotoServer
    from pyarrow import fs

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    os.environ |= {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
    }
    files = fs.S3FileSystem(
        access_key=KEY,
        secret_key=KEY,
        region="us-east-1",
        endpoint_override=address,
        allow_bucket_creation=True,
    )
    files.create_dir(BUCKET)
    try:
        yield files
    finally:
        server.stop()


def upload(files: Any, folder: Path, rows: int) -> None:
    """Store the pictures of a folder, and a table of ``rows`` rows that name them in turn."""
    names = sorted(one.name for one in folder.glob("*.png"))
    lines = (
        json.dumps({"id": str(row), "image": names[row % len(names)], "text": f"picture {row}"})
        for row in range(rows)
    )
    contents = {name: (folder / name).read_bytes() for name in names}
    contents["items.jsonl"] = "\n".join(lines).encode()
    for name, content in contents.items():
        with files.open_output_stream(f"{BUCKET}/{name}") as file:
            file.write(content)


def encode(model: Path, out: str, *options: object) -> list[str]:
    """Return a command that encodes the table into parts."""
    arguments = ["encode", f"s3://{BUCKET}/items.jsonl", "--model", model]
    arguments += ["--out", f"s3://{BUCKET}/{out}", *options]
    return [sys.executable, "-c", COMMAND.format("xmodal"), *map(str, arguments)]


def with_kills(
    command: list[str], kills: int, rng: np.random.Generator
) -> tuple[Counter[str], float]:
    """Run a command until it succeeds; return what was killed, and seconds."""
    killed: Counter[str] = Counter()
    started = time.perf_counter()
    while True:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while killed.total() < kills and (victims := _victims(process)):
                time.sleep(rng.uniform(0, LONGEST_WAIT))
                kind = rng.choice(["process that encodes", "command"], p=[0.7, 0.3])
                one = psutil.Process(process.pid) if kind == "command" else rng.choice(victims)
                with suppress(psutil.NoSuchProcess):
                    one.kill()
                    killed[str(kind)] += 1
            if process.wait() == 0:
                return killed, time.perf_counter() - started
            if process.returncode != -signal.SIGKILL:
                sys.exit("the command failed")


def _victims(command: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Wait for processes that encode, and return them; none if the command has ended."""
    while command.poll() is None:
        found = []
        with suppress(psutil.NoSuchProcess):
            for one in psutil.Process(command.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    found += [one] if WORKER in " ".join(one.cmdline()) else []
        if found:
            return found
        time.sleep(0.05)
    return []


def contents(files: Any, folder: str) -> dict[str, bytes]:
    """Return the files of a folder of the bucket, by name."""
    from pyarrow.fs import FileSelector

    found = files.get_file_info(FileSelector(f"{BUCKET}/{folder}"))
    return {one.base_name: files.open_input_stream(one.path).readall() for one in found}


def main() -> None:
    """Run the comparison and write the report; exit status 1 if a part differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--quick", action="store_true", help="2,000 rows, 1 kill, no file")
    args = parser.parse_args()
    rows, kills = (2000, 1) if args.quick else (args.rows, args.kills)
    with tempfile.TemporaryDirectory() as name, s3() as files:
        photos, model = Path(name, "photos"), Path(name, "model")
        write_synthetic_data(photos, PICTURES)
        backbones = ("--image-backbone", "small-cnn", "--text-backbone", "words")
        run("xmodal", "train", photos, "--out", model, *backbones, "--set", "epochs=2")
        upload(files, photos, rows)
        started = time.perf_counter()
        for part in range(1, PARTS + 1):
            subprocess.run(encode(model, "alone", "--shard", f"{part}/{PARTS}"), check=True)
        alone = time.perf_counter() - started
        on_ray = ("--engine", "ray", "--workers", args.workers, "--parts", PARTS)
        rng = np.random.default_rng(args.seed)
        killed, seconds = with_kills(encode(model, "ray", *on_ray), kills, rng)
        expected, found = contents(files, "alone"), contents(files, "ray")
    equal = sum(found.get(name) == content for name, content in expected.items())
    body = [["way", "seconds", "killed", "parts", "equal parts"]]
    body.append(["one process", f"{alone:.0f}", "-", f"{len(expected)}", "-"])
    shown = ", ".join(f"{number} x {kind}" for kind, number in sorted(killed.items()))
    body.append(
        [f"Ray, {args.workers} processes", f"{seconds:.0f}", shown, f"{len(found)}", f"{equal}"]
    )
    write(
        "ray-encoding",
        "Encoding by Ray from S3 into S3",
        f"python benchmarks/ray_encoding.py --rows {rows} --kills {kills} --workers "
        f"{args.workers} --seed {args.seed}",
        [(f"{rows:,} rows with a picture and a text", table(body))],
        keep=not args.quick,
    )
    sys.exit(0 if equal == PARTS == len(found) else 1)


if __name__ == "__main__":
    main()
