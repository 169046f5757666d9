"""The search page: milliseconds from a key to its hits, in Chromium.

    python benchmarks/page.py [--model FOLDER] [--documents 100000] [--quick]

Writes results/page.md; takes two minutes, with ``--quick`` seconds and no file. The default of
``--model`` is that of ``make demo``. Requires the extra ``browser-tests`` and Chromium (or the
variable CHROMIUM). Browser and service share the machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from harness.command_line import exit_status
from harness.report import table, write

from xmodal.data.synthetic import all_combinations, caption
from xmodal.encoders.load import load_encoder
from xmodal.errors import ConfigError
from xmodal.index.contract import open_index

QUERIES = ("a red circle on the left", "small blue star", "yellow square at the top", "purple")
KEY_INTERVAL = 200
"""Milliseconds between keys: 60 words a minute."""
OBSERVER = """
() => {
  const keys = [], times = window.times = [];
  const hits = document.getElementById('hits');
  document.getElementById('words').addEventListener('input',
    (event) => keys.push([event.target.value, performance.now()]), true);
  new MutationObserver(() => {
    const words = new URLSearchParams(hits.dataset.query.slice(2)).get('q');
    const key = keys.findLast(([value]) => value.trim() === words);
    if (!key || !hits.childElementCount) return;
    requestAnimationFrame(() => setTimeout(() => times.push(performance.now() - key[1])));
  }).observe(hits, {attributes: true, attributeFilter: ['data-query']});
}
"""
"""Records the time from a key to the frame after the hits of its words are in the page."""


def main() -> int:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("demo/model"))
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true", help="one query, no file")
    args = parser.parse_args()
    return exit_status(lambda: _write(args))


def _write(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        bits = _fill(args.model, f"{folder}/index", args.documents)
        with _service(args.model, f"{folder}/index") as url:
            times = _type(url, QUERIES[:1] if args.quick else QUERIES * 3)
    points = (f"{value:.0f}" for value in (*np.percentile(times, (50, 95)), times.max()))
    rows = [
        ["from a key to its hits", "keys", "median ms", "p95 ms", "largest ms"],
        [f"a key each {KEY_INTERVAL} ms", str(len(times)), *points],
    ]
    write(
        "page",
        "The search page: search as you type",
        f"python benchmarks/page.py --documents {args.documents}",
        [
            (
                f"{args.documents:,} documents, {bits} bits, words",
                table(rows),
            )
        ],
        keep=not args.quick,
    )
    return 0


def _fill(model: Path, folder: str, documents: int) -> int:
    """Write an index of captions of rendered pictures, without the pictures; return its width."""
    encoder = load_encoder(model)
    captions = [caption(combination) for combination in all_combinations()]
    codes = encoder.encode_texts(captions)
    index = open_index(folder, bits=encoder.bits, fingerprint=encoder.fingerprint, create=True)
    rows = np.arange(documents) % len(captions)
    for start in range(0, documents, 10_000):
        chunk = rows[start : start + 10_000]
        part = codes[chunk]
        fields = [
            {"text": captions[row], "colour": captions[row].split()[1], "price": start + n}
            for n, row in enumerate(chunk)
        ]
        ids = [f"{start + n:06d}" for n in range(len(chunk))]
        index.add(ids, image=part, text=part, fields=fields)
    index.close()
    return encoder.bits


@contextmanager
def _service(model: Path, index: str) -> Iterator[str]:
    """Start a service; yield its address."""
    command = [sys.executable, "-c", "from xmodal.cli import main; main()", "serve", "--port", "0"]
    given = ["--model", str(model), "--index", index]
    with subprocess.Popen([*command, *given], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = next((line for line in process.stderr if line.startswith("listening on ")), None)
        if found is None:
            raise ConfigError("the service did not start")
        try:
            yield f"http://127.0.0.1:{int(found.rpartition(':')[2])}"
        finally:
            process.terminate()


def _type(url: str, queries: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Type each query into the page; return milliseconds from keys to hits."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("#fields label, #ranges label", state="attached")
        page.type("#words", "warm up", delay=KEY_INTERVAL)
        time.sleep(2)
        page.fill("#words", "")
        page.evaluate(OBSERVER)
        for query in queries:
            page.type("#words", query, delay=KEY_INTERVAL)
            time.sleep(1)
            page.fill("#words", "")
        times = np.array(page.evaluate("window.times"))
        browser.close()
    return times


if __name__ == "__main__":
    sys.exit(main())
