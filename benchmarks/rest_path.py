"""The REST path: throughput of the ingest pipeline, latency of searches, requests and responses.

    python benchmarks/rest_path.py [--documents 2000] [--bulk 100] [--quick]

Writes results/rest-path.md; takes minutes, with ``--quick`` no file. A development node with
ml-commons (full JIT) and ``xmodal serve`` are started, with a model trained on synthetic data (64
bits, small-cnn and hashed words), so the backbone takes little of the time. All requests are sent
by curl. Stored codes and hits are compared with those of the Python client.
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
from pathlib import Path
from typing import Any

from harness.commands import run, serving
from harness.report import table, write

from xmodal.config import Options
from xmodal.data.items import Item
from xmodal.data.readers.read import read
from xmodal.data.synthetic import caption, unseen_combinations, write_synthetic_data
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.load import load_encoder
from xmodal.retrieval.retriever import Retriever
from xmodal.training.train import train
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.node.process import Node

IMAGES = 400
K = 10
MAX_RESPONSE_SHOWN = 1200


def curl(line: str, folder: Path, body: str | None = None) -> Any:
    """Run a shell line; return its decoded JSON output."""
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, input=body, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def post_line(address: str) -> str:
    """The curl line that posts its standard input."""
    head = "content-type: application/x-ndjson"
    return f"curl -sS '{address}' -H '{head}' --data-binary @-"


def documents(items: tuple[Item, ...], count: int) -> list[tuple[str, dict[str, str]]]:
    """Ids and documents; each has a distinct text and an image in base64."""
    out = []
    for number in range(count):
        item = items[number % len(items)]
        image = base64.b64encode(item.images[0].read_bytes()).decode()
        text = f"{item.captions[0]}, number {number}"
        out.append((f"d{number:06}", {"text": text, "image_base64": image}))
    return out


def send(url: str, batch: list[tuple[str, dict[str, str]]], bulk: int, folder: Path) -> list[Any]:
    """Send documents with _bulk by curl; return the cells of the table."""
    failed: list[Any] = []
    started = time.perf_counter()
    for start in range(0, len(batch), bulk):
        part = batch[start : start + bulk]
        lines = [part_of for id_, one in part for part_of in ({"index": {"_id": id_}}, one)]
        body = "".join(json.dumps(line) + "\n" for line in lines)
        answer = curl(post_line(url), folder, body)
        failed += [one["index"] for one in answer["items"] if "error" in one["index"]]
    seconds = time.perf_counter() - started
    for one in failed[:3]:
        print(one, file=sys.stderr)
    return [len(batch), bulk, len(failed), f"{seconds:.1f}", f"{len(batch) / seconds:.0f}"]


def wrong_codes(
    index: OpenSearchIndex, encoder: Encoder, batch: list[tuple[str, dict[str, str]]]
) -> int:
    """Number of stored codes that are missing or differ from those of the Python client."""
    ids = [id_ for id_, _ in batch]
    expected = {
        "text": encoder.encode_texts([one["text"] for _, one in batch]),
        "image": encoder.encode_images([base64.b64decode(one["image_base64"]) for _, one in batch]),
    }
    wrong = 0
    for modality, codes in expected.items():
        stored, found = index.get(ids).codes(modality)  # type: ignore[arg-type]
        rows = dict(zip(stored, found.packed, strict=True))
        wrong += sum(
            id_ not in rows or bool((rows[id_] != codes.packed[row]).any())
            for row, id_ in enumerate(ids)
        )
    return wrong


def compare_searches(url: str, index: OpenSearchIndex, encoder: Encoder, folder: Path) -> list[Any]:
    """Text searches by curl and by the Python client: number of equal hit lists, median ms."""
    queries = [caption(one) for one in unseen_combinations()][:50]
    retriever = Retriever(encoder, index)
    rest, python, same = [], [], 0
    for text in queries:
        body = json.dumps({"query": {"match": {"text": text}}, "size": K})
        line = f"curl -sS '{url}' -H 'content-type: application/json' --data-binary @-"
        started = time.perf_counter()
        answer = curl(line, folder, body)
        rest.append(1000 * (time.perf_counter() - started))
        started = time.perf_counter()
        hits = retriever.search(text=text, k=K)
        python.append(1000 * (time.perf_counter() - started))
        found = [(hit["_id"], round(1 / hit["_score"] - 1)) for hit in answer["hits"]["hits"]]
        same += found == [(hit.id, hit.distance) for hit in hits]
    return [
        len(queries),
        same,
        f"{statistics.median(rest):.0f}",
        f"{statistics.median(python):.0f}",
    ]


def transcript(connection: Any, folder: Path, refused: str) -> str:
    """The lines that connect prints, and one with an invalid image, with their responses."""
    parts = []
    for one in [*connection["try"], {"what": "an invalid image", "curl": refused}]:
        response = json.dumps(curl(one["curl"], folder), ensure_ascii=False)
        cut = (
            response
            if len(response) <= MAX_RESPONSE_SHOWN
            else f"{response[:MAX_RESPONSE_SHOWN]} ..."
        )
        parts.append(f"{one['what']}\n\n```console\n$ {one['curl']}\n{cut}\n```")
    return "\n\n".join(parts)


def main() -> None:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--bulk", type=int, default=100, help="documents per request")
    parser.add_argument("--quick", action="store_true", help="few documents, no file")
    args = parser.parse_args()
    count = min(args.documents, 60) if args.quick else args.documents
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = 60 if args.quick else IMAGES
        data = read(write_synthetic_data(folder / "pictures", images), label_column="labels")
        options = Options(bits=64, image_backbone="small-cnn", text_backbone="words")
        settings = {"epochs": 1 if args.quick else 8, "batch": 32, "hidden": 64}
        model = folder / "model"
        train(data, model, options, settings, cache=folder / "cache")
        encoder = load_encoder(model)
        shutil.copyfile(data.items[0].images[0], folder / "picture.jpg")
        plugins = ("opensearch-knn", "opensearch-ml", "neural-search")
        with Node.start(folder / "node", plugins=plugins, fast_start=False) as node:
            version = node.get("/")["version"]["number"]
            uri = f"opensearch://127.0.0.1:{node.port}/photos"
            run("xmodal_opensearch", "create", uri, "--model", model)
            with serving(model, uri) as service, open_opensearch(uri) as index:
                arguments = ("connect", uri, "--service", service, "--allow", "--json")
                made = json.loads(run("xmodal_opensearch", *arguments))
                ingest = f"{node.url}/photos/_bulk?pipeline=xmodal-photos-ingest"
                search = f"{node.url}/photos/_search?search_pipeline=xmodal-photos-text-to-image"
                documents_sent = documents(data.items, count)
                row = send(ingest, documents_sent, args.bulk, folder)
                curl(f"curl -sS -X POST {node.url}/photos/_refresh", folder)
                rows = [
                    ["documents", "per request", "failed", "seconds", "docs/s", "different codes"],
                    [*row, wrong_codes(index, encoder, documents_sent)],
                ]
                searches = [
                    ["searches", "with equal hits", "curl, ms", "Python client, ms"],
                    compare_searches(search, index, encoder, folder),
                ]
                through = ingest.replace("_bulk", "_doc/bad")
                bad = json.dumps({"text": "a red circle", "image_base64": "bm90aGluZw=="})
                head = "-H 'content-type: application/json'"
                refused = f"curl -sS -X PUT '{through}' {head} -d '{bad}'"
                shown = transcript(made, folder, refused)
                run("xmodal_opensearch", "disconnect", uri)
    write(
        "rest-path",
        f"The REST path, OpenSearch {version}",
        "python benchmarks/rest_path.py"
        + (f" --documents {args.documents} --bulk {args.bulk}" if args.documents != 2000 else ""),
        [
            ("Documents through the ingest pipeline, one client", table(rows)),
            (f"Text searches, k = {K}, time of the call, median", table(searches)),
            ("Requests and responses", shown),
        ],
        keep=not args.quick,
    )


if __name__ == "__main__":
    main()
