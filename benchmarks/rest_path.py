"""The whole REST path by curl: requests, answers, and many documents through the ingest pipeline.

    python benchmarks/rest_path.py [--documents 2000] [--bulk 100] [--quick]

A development node with ml-commons (full JIT) and ``xmodal serve`` are started for it, with a model
trained now on the rendered toy world (64 bits, small-cnn and hashed words): the figures are about
the path, not about a large backbone. Every code that the pipeline stored is compared with that of
the Python path, and so are the hits of every search.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from record import table, write

from xmodal.config import Options
from xmodal.data import Item
from xmodal.encoder import Encoder
from xmodal.loading import load_encoder
from xmodal.readers import read
from xmodal.toy import caption, unseen, write_world
from xmodal.training.train import train
from xmodal_opensearch.node import Node
from xmodal_opensearch.store import OpenSearchIndex, open_opensearch

PICTURES = 400
K = 10
LONGEST = 1200
COMMAND = "import sys; from {}.cli import main; main()"


def run(package: str, *arguments: object) -> str:
    """What a command of ours prints."""
    command = [sys.executable, "-c", COMMAND.format(package), *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def serving(model: Path, uri: str) -> Iterator[str]:
    """A running service, and its address."""
    arguments = ["serve", "--model", str(model), "--index", uri, "--port", "0"]
    command = [sys.executable, "-c", COMMAND.format("xmodal"), *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = (line.partition("listening on ")[2].strip() for line in process.stderr)
            yield next(filter(None, said))
        finally:
            process.terminate()


def curl(line: str, folder: Path, body: str | None = None) -> Any:
    """The decoded answer to a line for the shell."""
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, input=body, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def posting(address: str) -> str:
    """The line that sends what stands on its standard input."""
    head = "content-type: application/x-ndjson"
    return f"curl -sS '{address}' -H '{head}' --data-binary @-"


def documents(items: tuple[Item, ...], count: int) -> list[tuple[str, dict[str, str]]]:
    """Ids and documents, each with a text of its own and a picture."""
    out = []
    for number in range(count):
        item = items[number % len(items)]
        picture = base64.b64encode(Path(str(item.image)).read_bytes()).decode()
        text = f"{item.text}, number {number}"
        out.append((f"d{number:06}", {"text": text, "image_base64": picture}))
    return out


def sent(url: str, every: list[tuple[str, dict[str, str]]], bulk: int, folder: Path) -> list[Any]:
    """Send documents by curl and _bulk; rows of the table, after each code has been compared."""
    failed: list[Any] = []
    began = time.perf_counter()
    for start in range(0, len(every), bulk):
        part = every[start : start + bulk]
        lines = [part_of for id_, one in part for part_of in ({"index": {"_id": id_}}, one)]
        body = "".join(json.dumps(line) + "\n" for line in lines)
        answer = curl(posting(url), folder, body)
        failed += [one["index"] for one in answer["items"] if "error" in one["index"]]
    seconds = time.perf_counter() - began
    for one in failed[:3]:
        print(one, file=sys.stderr)
    return [len(every), bulk, len(failed), f"{seconds:.1f}", f"{len(every) / seconds:.0f}"]


def wrong_codes(
    index: OpenSearchIndex, encoder: Encoder, every: list[tuple[str, dict[str, str]]]
) -> int:
    """How many of the stored codes are not those of the Python path."""
    ids = [id_ for id_, _ in every]
    wanted = {
        "text": encoder.encode_texts([one["text"] for _, one in every]),
        "image": encoder.encode_images([base64.b64decode(one["image_base64"]) for _, one in every]),
    }
    wrong = 0
    for side, codes in wanted.items():
        stored, found = index.codes_of(ids, side)  # type: ignore[arg-type]
        rows = dict(zip(stored, found.packed, strict=True))
        wrong += sum(
            id_ not in rows or bool((rows[id_] != codes.packed[row]).any())
            for row, id_ in enumerate(ids)
        )
    return wrong


def searched(url: str, index: OpenSearchIndex, encoder: Encoder, folder: Path) -> list[Any]:
    """Searches by words: equality with the Python path, and medians of both, a process each."""
    asked = [caption(one) for one in unseen()][:50]
    rest, python, same = [], [], 0
    for words in asked:
        body = json.dumps({"query": {"match": {"text": words}}, "size": K})
        line = f"curl -sS '{url}' -H 'content-type: application/json' --data-binary @-"
        began = time.perf_counter()
        answer = curl(line, folder, body)
        rest.append(1000 * (time.perf_counter() - began))
        began = time.perf_counter()
        hits = index.search(encoder.encode_texts([words]), K, target="image")[0]
        python.append(1000 * (time.perf_counter() - began))
        found = [(hit["_id"], round(1 / hit["_score"] - 1)) for hit in answer["hits"]["hits"]]
        same += found == [(hit.id, hit.distance) for hit in hits]
    return [
        len(asked),
        same,
        f"{statistics.median(rest):.0f}",
        f"{statistics.median(python):.0f}",
    ]


def transcript(told: Any, folder: Path, refused: str) -> str:
    """The lines that connect prints, and a bad picture, each with its answer."""
    parts = []
    for one in [*told["try"], {"what": "a picture that is none", "curl": refused}]:
        answer = json.dumps(curl(one["curl"], folder), ensure_ascii=False)
        cut = answer if len(answer) <= LONGEST else f"{answer[:LONGEST]} ..."
        parts.append(f"{one['what']}\n\n```console\n$ {one['curl']}\n{cut}\n```")
    return "\n\n".join(parts)


def main() -> None:
    """Print everything and write results/rest-path.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--bulk", type=int, default=100, help="documents in one request")
    parser.add_argument("--quick", action="store_true", help="a few documents, nothing is written")
    told = parser.parse_args()
    count = min(told.documents, 60) if told.quick else told.documents
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = read(write_world(folder / "world", 60 if told.quick else PICTURES))
        options = Options(bits=64, image_backbone="small-cnn", text_backbone="words")
        settings = {"epochs": 1 if told.quick else 8, "batch": 32, "hidden": 64}
        model = folder / "model"
        train(world, model, options, settings, cache=folder / "cache")
        encoder = load_encoder(model)
        shutil.copyfile(str(world.items[0].image), folder / "picture.jpg")
        plugins = ("opensearch-knn", "opensearch-ml", "neural-search")
        with Node.start(folder / "node", plugins=plugins, quick=False) as node:
            version = node.get("/")["version"]["number"]
            uri = f"opensearch://127.0.0.1:{node.port}/photos"
            run("xmodal_opensearch", "create", uri, "--model", model)
            with serving(model, uri) as service, open_opensearch(uri) as index:
                asked = ("connect", uri, "--service", service, "--allow", "--json")
                made = json.loads(run("xmodal_opensearch", *asked))
                ingest = f"{node.url}/photos/_bulk?pipeline=xmodal-photos-ingest"
                search = f"{node.url}/photos/_search?search_pipeline=xmodal-photos-text-to-image"
                every = documents(world.items, count)
                row = sent(ingest, every, told.bulk, folder)
                curl(f"curl -sS -X POST {node.url}/photos/_refresh", folder)
                rows = [
                    ["documents", "a request", "failed", "seconds", "docs/s", "codes that differ"],
                    [*row, wrong_codes(index, encoder, every)],
                ]
                searches = [
                    ["searches", "with the hits of the Python path", "curl, ms", "Python, ms"],
                    searched(search, index, encoder, folder),
                ]
                through = ingest.replace("_bulk", "_doc/bad")
                bad = json.dumps({"text": "a red circle", "image_base64": "bm90aGluZw=="})
                head = "-H 'content-type: application/json'"
                refused = f"curl -sS -X PUT '{through}' {head} -d '{bad}'"
                said = transcript(made, folder, refused)
                run("xmodal_opensearch", "disconnect", uri)
    write(
        "rest-path",
        f"The REST path, OpenSearch {version}",
        "python benchmarks/rest_path.py"
        + (f" --documents {told.documents} --bulk {told.bulk}" if told.documents != 2000 else ""),
        [
            ("Documents through the ingest pipeline, one client", table(rows)),
            (f"Searches by words, k = {K}, whole calls, median", table(searches)),
            ("Requests and answers", said),
        ],
        keep=not told.quick,
    )


if __name__ == "__main__":
    main()
