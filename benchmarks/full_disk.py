"""Full disk: each writing command with many sizes of free space; the old result must be intact.

Mounts a small file system in memory (tmpfs) in a mount namespace of its own, which Linux allows
where user namespaces are allowed. For each command and size, the old result is put there, all but
that many bytes are filled, and the command runs, in this process. Expected: exit status 2, one line
that names the full disk, and the old result with every byte; or status 0. A rerun with room works.

    python benchmarks/full_disk.py --sizes 40
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

MOUNTED = "XMODAL_FULL_DISK_FOLDER"
"""Environment variable with the folder of the mounted file system."""
ROOM = 48 * 1024 * 1024
"""Bytes of the file system."""
SMALL = (
    *("--image-backbone", "small-cnn", "--text-backbone", "words", "--bits", "16"),
    *("--set", "hidden=16", "--set", "epochs=2", "--set", "batch=16", "--no-portable"),
)


class Command(NamedTuple):
    """A command that writes ``result`` in the folder of the small file system.

    ``old``: arguments that make the old result; ``new``: of the command that replaces it.
    """

    name: str
    result: str
    old: list[str]
    new: list[str]


class Outcome(NamedTuple):
    """What a command left with ``left`` free bytes; ``problem``: what is wrong, or None."""

    left: int
    status: int
    problem: str | None


def commands(source: Path, folder: Path) -> list[Command]:
    """Return the commands; ``source`` has photos, other, vectors.npy, m, m.onnx and m.index."""
    photos, other, model, index = (source / name for name in ("photos", "other", "m.onnx", "i"))
    at = {name: str(folder / name) for name in ("m", "i", "c", "x", "codes.npz", "g.html", "g.png")}
    encoder = ["--model", str(model), "--no-portable"]
    vectors = str(source / "vectors.npy")
    train = ["train", str(photos), "--out", at["m"], *SMALL]
    compress = ["compress", vectors, "--out", at["c"], "--bits", "32", "--set", "epochs=2"]
    export = ["export", "--model", str(source / "m"), "--onnx", at["x"], "--items", "4"]
    encode = ["encode", str(photos), "--model", str(model), "--out", at["codes.npz"]]
    search = ["search", "red", "--model", str(model), "--index", str(index), "-k", "20"]
    return [
        Command("train", "m", train, [*train, "--seed", "1", "--restart"]),
        Command(
            "index",
            "i",
            ["index", str(photos), *encoder, "--index", at["i"]],
            ["index", str(other), *encoder, "--index", at["i"]],
        ),
        Command("compress", "c", compress, [*compress, "--seed", "1", "--restart"]),
        Command("export", "x", export, [*export, "--int8", "--restart"]),
        Command("encode", "codes.npz", encode, encode),
        Command("gallery, HTML", "g.html", [*search, "--gallery", at["g.html"]], []),
        Command("gallery, PNG", "g.png", [*search, "--gallery", at["g.png"]], []),
    ]


def make_source(folder: Path) -> None:
    """Make data, a model, its export and an index, which the commands read."""
    import numpy as np

    from xmodal.data.synthetic import write_synthetic_data

    write_synthetic_data(folder / "photos", 48)
    write_synthetic_data(folder / "other", 60)
    np.save(folder / "vectors.npy", np.random.default_rng(0).standard_normal((500, 32)))
    photos, model, portable = (str(folder / name) for name in ("photos", "m", "m.onnx"))
    for arguments in (
        ["train", photos, "--out", model, *SMALL],
        ["export", "--model", model, "--onnx", portable, "--items", "4"],
        ["index", photos, "--model", portable, "--index", str(folder / "i")],
    ):
        status, text = run(arguments)
        if status != 0:
            raise SystemExit(text)


def run(arguments: list[str]) -> tuple[int, str]:
    """Run ``xmodal`` in this process; return its exit status and what it printed."""
    from xmodal.cli import main

    printed = io.StringIO()
    sys.argv = ["xmodal", *arguments]
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main()
        except SystemExit as exit_:
            return int(exit_.code or 0), printed.getvalue()
    raise AssertionError("main returns")


def check(
    command: Command, folder: Path, sizes: int, seed: int, show: Callable[[Outcome], None]
) -> None:
    """Run a command with many sizes of free space."""
    chosen = random.Random(seed)
    empty(folder)
    status, text = run(command.old)
    if status != 0:
        raise SystemExit(text)
    kept = folder.parent / f"{folder.name}.kept"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept, symlinks=True)
    before = content(folder / command.result)
    new = command.new or command.old
    needed = most_written(new, folder)
    free = [0, *(chosen.randrange(needed) for _ in range(sizes - 1))]
    for left in sorted(free):
        empty(folder)
        shutil.copytree(kept, folder, symlinks=True, dirs_exist_ok=True)
        fill(folder, left)
        status, text = run(new)
        problem = None
        lines = [line for line in text.splitlines() if line.startswith("xmodal: ")]
        if status == 2:
            if content(folder / command.result) != before:
                problem = "the old result is not intact"
            elif "Traceback" in text or len(lines) != 1:
                problem = f"not one line: {text[-500:]}"
            elif "No space left on device" not in lines[0] and "disk is full" not in lines[0]:
                problem = f"another error: {lines[0]}"
        elif status != 0:
            problem = f"exit status {status}: {text[-500:]}"
        (folder / "filler").unlink()
        if problem is None:
            status_again, text = run(new)
            if status_again != 0:
                problem = f"a rerun with room fails: {text[-500:]}"
        show(Outcome(left, status, problem))
    shutil.rmtree(kept)


def most_written(arguments: list[str], folder: Path) -> int:
    """Run a command with room; return the largest number of bytes that it had in use."""
    import threading

    free, least, done = available(folder), [available(folder)], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            least[0] = min(least[0], available(folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status, text = run(arguments)
    done.set()
    watcher.join()
    if status != 0:
        raise SystemExit(text)
    return max(free - least[0], 1)


def available(folder: Path) -> int:
    """Return the free bytes of a file system."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def fill(folder: Path, left: int) -> None:
    """Fill the file system with a file except for ``left`` bytes, rounded up to a page."""
    with open(folder / "filler", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, available(folder) - left))


def empty(folder: Path) -> None:
    """Remove all that is in a folder."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def content(path: Path) -> dict[str, str]:
    """Return the hash of a file, or of each file in a folder, except locks and checkpoints."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {
        str(file.relative_to(path.parent)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file() and file.name not in (".lock", "lock")
    }


def main() -> int:
    """Print a table of outcomes; return the number of wrong ones."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, default=40, help="sizes of free space a command")
    parser.add_argument("--commands", nargs="*", default=[], help="begin of names of commands")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    mounted = os.environ.get(MOUNTED)
    if mounted is None:
        return in_namespace(sys.argv[1:])
    folder, wrong = Path(mounted), 0
    with tempfile.TemporaryDirectory() as source:
        os.environ["XMODAL_CACHE"] = str(Path(source, "cache"))
        make_source(Path(source))
        print(f"{'command':<16}{'sizes':>6}{'failed':>8}{'complete':>10}{'wrong':>7}")
        for command in commands(Path(source), folder):
            if options.commands and not command.name.startswith(tuple(options.commands)):
                continue
            found: list[Outcome] = []
            check(command, folder, options.sizes, options.seed, found.append)
            failed = sum(one.status == 2 for one in found)
            bad = [one for one in found if one.problem is not None]
            print(
                f"{command.name:<16}{len(found):>6}{failed:>8}{len(found) - failed:>10}"
                f"{len(bad):>7}",
                flush=True,
            )
            for one in bad:
                print(f"  {one.left:,} bytes left, exit {one.status}: {one.problem}", flush=True)
            wrong += len(bad)
    return min(wrong, 100)


def in_namespace(arguments: list[str]) -> int:
    """Run this program in a mount namespace of its own, with the small file system; its status."""
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder, "small")
        small.mkdir()
        script = f'mount -t tmpfs -o size={ROOM} tmpfs "$1" && shift && exec "$@"'
        users = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        done = subprocess.run(
            [
                *("unshare", *users, "--mount", "sh", "-c", script, "sh", str(small)),
                *(sys.executable, __file__, *arguments),
            ],
            env=os.environ | {MOUNTED: str(small)},
            check=False,
        )
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
