"""Makes the artefacts of this folder; it runs with the code of commit 83f5741, see README.md."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_models import save_clip

from xmodal.codes import BinaryCodes
from xmodal.compression import Compressor, read_codes
from xmodal.encoder import Encoder
from xmodal.features import image_features
from xmodal.hamming import open_folder
from xmodal.index import Hits
from xmodal.loading import load_encoder
from xmodal.toy import write_world
from xmodal.trained import TrainedEncoder, as_tensor
from xmodal_opensearch.address import parse_address
from xmodal_opensearch.server import Server
from xmodal_opensearch.store import open_opensearch

METHODS = {
    "schgan": [],
    "schgan-policy": ["--method", "schgan", "--set", "negatives=policy"],
    "schgan-paper": ["--method", "schgan-paper", "--set", "pretraining=1"],
    "dshgan": ["--method", "dshgan", "--set", "pretraining=2"],
    "multiadversarial": ["--method", "multiadversarial", "--set", "components=8"],
    "sigah": ["--method", "sigah"],
    "ssah": ["--method", "ssah"],
}
NO_HIDDEN = ("sigah",)
NO_BATCH = ("schgan-paper",)
CLIP = ["--image-backbone", "clip", "--text-backbone", "clip"]
PIXELS = ["--image-backbone", "small-cnn", "--text-backbone", "words"]
COMMON = ["--bits", "32", "--set", "epochs=2"]
WAYS = ("script", "long", "lucene-hnsw")
STOP = """
import os, signal, sys
import xmodal.cli, xmodal.run
save = xmodal.run.Run._save
def stop(self, epoch):
    save(self, epoch)
    os.kill(os.getpid(), signal.SIGKILL)
xmodal.run.Run._save = stop
xmodal.cli.main()
"""


def run(package: str, *arguments: str, program: str = "") -> None:
    """One command; ``program`` replaces the call of its main function. Skips what is there."""
    out = [after for name, after in pairwise(arguments) if name in ("--out", "--onnx")]
    if out and Path(out[0]).exists():
        return
    told = program or f"from {package}.cli import main; main()"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", told, *arguments])
    assert done.returncode == (-9 if program else 0), (arguments, done.returncode)


def train(name: str, world: str, options: list[str], *backbones: str, program: str = "") -> None:
    """Train on ``world`` into the folder ``name``."""
    size = [] if name.endswith(NO_HIDDEN) else ["--set", "hidden=8"]
    size += [] if name.endswith(NO_BATCH) else ["--set", "batch=16"]
    report = [] if name == "models/schgan" else ["--no-report"]
    run(
        "xmodal",
        *("train", world, "--out", name, *COMMON, *size, *options, *backbones, *report),
        *("--cache", "work/cache"),
        program=program,
    )


def prune(folder: Path, pictures: list[Path]) -> None:
    """Keep a twentieth of the weights of a model, coarsely, so that it compresses well."""
    model = TrainedEncoder.load(folder)
    with torch.no_grad():
        for tensor in model.towers.parameters():
            if tensor.numel() > 1000:
                size = tensor.abs()
                tensor[size < size.flatten().kthvalue(int(tensor.numel() * 0.95)).values] = 0
                mantissa, exponent = torch.frexp(tensor)
                tensor.copy_(torch.ldexp((mantissa * 16).round() / 16, exponent))
    backbone = model.image_backbone
    batch, _ = image_features(backbone, pictures)
    model.towers.train()
    with torch.no_grad():
        for _ in range(50):  # batch normalisation measures anew
            model.towers.image(as_tensor(batch))
    model.towers.eval()
    TrainedEncoder(model.towers, model.backbones, model.confidence, model.about, model.split).save(
        folder
    )


def codes_of(encoder: Encoder, pictures: list[str], texts: list[str]) -> dict[str, Any]:
    """Fingerprint and codes in hexadecimal, backbones in float32."""
    if isinstance(encoder, TrainedEncoder):
        encoder.float32 = True
    return {
        "fingerprint": encoder.fingerprint,
        "bits": encoder.bits,
        "image": encoder.encode_images(pictures).to_hex(),
        "text": encoder.encode_texts(texts).to_hex(),
    }


def margins(encoder: TrainedEncoder, texts: list[str]) -> np.ndarray:
    """The smallest |relaxed bit| of each text."""
    encoder.float32 = True
    features = as_tensor(encoder.text_backbone.forward(texts))
    features = torch.nn.functional.normalize(features, dim=1)
    with torch.inference_mode():
        return encoder.towers.text(features.half().float()).abs().amin(1).numpy()


def documents(pictures: BinaryCodes, texts: BinaryCodes) -> list[tuple[Any, ...]]:
    """Id, picture's code, text's code and fields: with one, the other, both; of every kind."""
    rng = np.random.default_rng(7)
    out: list[tuple[Any, ...]] = []
    for n in range(12):
        random = BinaryCodes(rng.integers(256, size=(2, 4), dtype=np.uint8), 32)
        image = pictures[n : n + 1] if n < len(pictures) else random[:1]
        text = texts[n : n + 1] if n < len(texts) else random[1:]
        fields = [
            {"title": f"item {n}", "price": n + 0.5, "count": n, "sale": n % 2 == 0},
            {"title": "grün, 日本", "tags": ["a", "b"], "numbers": [1, 2.5], "count": n},
            {"mixed": ["x", 1, True], "price": float(n)},
            {},
        ][n % 4]
        image, text = [(image, text), (image, None), (None, text)][n % 3]
        out.append((f"doc-{n:02}", image, text, fields))
    return out


def fill(index: Any, some: list[tuple[Any, ...]]) -> None:
    """Add the documents, in an order that is not that of their ids."""
    for id_, image, text, fields in reversed(some):
        index.add([id_], image=image, text=text, fields=[fields])


def told(hits: Hits) -> list[list[Any]]:
    """Ids and distances of each query."""
    return [[[hit.id, hit.distance] for hit in one] for one in hits]


def searches(index: Any, queries: BinaryCodes) -> list[dict[str, Any]]:
    """Some searches and what they find."""
    asked: list[dict[str, Any]] = [
        {"k": 12, "target": "image"},
        {"k": 12, "target": "text"},
        {"k": 3, "target": "image", "radius": 14},
        {"k": 12, "target": "text", "where": {"sale": True}},
        {"k": 12, "target": "image", "where": {"count": {"gte": 4}}},
        {"k": 12, "target": "image", "where": {"tags": "a"}},
    ]
    return [one | {"found": told(index.search(queries, **one))} for one in asked]


def dump(server: Server, name: str) -> dict[str, Any]:
    """An index as the server tells of it: settings, mappings, aliases and all documents."""
    ((concrete, content),) = server.request(
        "GET", f"/{name}", doing="dumping", flat_settings="true"
    ).items()
    own = ("uuid", "creation_date", "provided_name", "version.created")
    settings = {
        key: value
        for key, value in content["settings"].items()
        if key.removeprefix("index.") not in own
    }
    server.request("POST", f"/{concrete}/_refresh", doing="dumping")
    body = {"size": 100, "query": {"match_all": {}}, "sort": ["_id"]}
    server.request(
        "PUT",
        "/_cluster/settings",
        {"transient": {"indices.id_field_data.enabled": True}},
        doing="dumping",
    )
    found = server.search(f"/{concrete}/_search", body, doing="dumping")["hits"]["hits"]
    return {
        "index": concrete,
        "settings": settings,
        "mappings": content["mappings"],
        "aliases": content["aliases"],
        "documents": [{"_id": one["_id"], "_source": one["_source"]} for one in found],
    }


def main() -> None:
    """Everything, into the current folder; the address of a node is the argument."""
    node = sys.argv[1]
    Path("work").mkdir(exist_ok=True)
    world = write_world("work/world", 60)
    if not Path("clip").exists():
        save_clip(Path("clip"))
    Path("pictures").mkdir(exist_ok=True)
    for n, name in enumerate(("00000.png", "00017.png", "00041.png")):
        shutil.copyfile(world / name, f"pictures/{n}.png")
    pictures = [f"pictures/{n}.png" for n in range(3)]

    for name, options in METHODS.items():
        train(f"models/{name}", str(world), options, *CLIP)
    train("work/pixels/model", str(world), METHODS["schgan"], *PIXELS)
    if not Path("work/pixels/portable").exists():
        prune(Path("work/pixels/model"), sorted(world.glob("*.png")))
    pixels = "work/pixels"
    for model, out in (("models/schgan", "portable"), (f"{pixels}/model", f"{pixels}/portable")):
        run("xmodal", "export", "--model", model, "--onnx", out)
    with tarfile.open("pixels.tar.xz", "w:xz", preset=9) as packed:
        for kind in ("model", "portable"):
            packed.add(f"work/pixels/{kind}", kind)
    train("stopped", "work/world", [], *CLIP, program=STOP)
    stopped = torch.load("stopped/checkpoint.pt", weights_only=True)

    schgan = load_encoder("models/schgan")
    assert isinstance(schgan, TrainedEncoder)
    rows = (world / "metadata.jsonl").read_text().splitlines()
    captions = sorted({json.loads(row)["text"] for row in rows})
    best = np.argsort(-margins(schgan, captions), kind="stable")[:5]
    texts = [captions[n] for n in sorted(best)]
    expected: dict[str, Any] = {"pictures": pictures, "texts": texts, "encoders": {}}
    expected["stopped"] = stopped["history"][0]
    folders = [*(f"models/{name}" for name in METHODS), "portable"]
    for folder in (*folders, "work/pixels/model", "work/pixels/portable"):
        encoder = load_encoder(folder)
        expected["encoders"][folder.removeprefix("work/")] = codes_of(encoder, pictures, texts) | {
            "confidence": [round(encoder.confidence(distance), 6) for distance in (0, 8, 16)]
        }

    Path("cache").mkdir(exist_ok=True)
    schgan.encode("text", texts, cache=Path("cache"))
    (file,) = Path("cache").glob("*.sqlite")
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode=DELETE")
    database.close()

    shutil.rmtree("compressed", ignore_errors=True)
    shutil.rmtree("index", ignore_errors=True)
    vectors = np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32)
    np.save("work/vectors.npy", vectors)
    small = ["--set", "epochs=2", "--set", "units=16", "--set", "judge_units=8"]
    run("xmodal", "compress", "work/vectors.npy", "--bits", "32", "--out", "compressed", *small)
    compressor = Compressor.load("compressed")
    expected["compressed"] = {
        "fingerprint": compressor.fingerprint,
        "codes": read_codes("compressed").to_hex(),
        "vectors": vectors[:3].tolist(),
        "codes of vectors": compressor.encode(vectors[:3]).to_hex(),
    }

    own = expected["encoders"]["models/schgan"]
    image, text = BinaryCodes.from_hex(own["image"]), BinaryCodes.from_hex(own["text"])
    queries = BinaryCodes.from_hex([*own["text"][:2], "00ff0f55"])
    some = documents(image, text)
    with open_folder("index", bits=32, encoder=own["fingerprint"], create=True) as index:
        fill(index, some)
        expected["index"] = {
            "encoder": own["fingerprint"],
            "documents": len(index),
            "queries": queries.to_hex(),
            "searches": searches(index, queries),
            "fields": index.fields_of([one[0] for one in some]),
            "codes": {
                side: [ids, codes.to_hex()]
                for side in ("image", "text")
                for ids, codes in [index.codes_of([one[0] for one in some], side)]
            },
        }

    dumps = {}
    server = Server(parse_address(f"{node}/any"))
    for way in WAYS:
        name = f"fx-{way}"
        server.request("DELETE", f"/{name}-*", doing="clearing")
        uri = f"{node}/{name}"
        run("xmodal_opensearch", "create", f"{uri}?way={way}", "--model", "models/schgan")
        with open_opensearch(uri, bits=32, encoder=own["fingerprint"]) as there:
            fill(there, some)
            there.refresh()
            assert searches(there, queries) == expected["index"]["searches"], way
        dumps[way] = dump(server, name)
    server.request("DELETE", "/fx-enriched", doing="clearing", ignore_unavailable="true")
    for n, one in enumerate(texts):
        body = {"title": one, "count": n}
        server.request("PUT", f"/fx-enriched/_doc/own-{n}", body, doing="storing", refresh="true")
    model = ["--model", "models/schgan", "--text-field", "title", "--cache", "work/cache"]
    run("xmodal_opensearch", "enrich", "--index", f"{node}/fx-enriched", *model)
    with open_opensearch(f"{node}/fx-enriched", bits=32, encoder=own["fingerprint"]) as there:
        expected["enriched"] = told(there.search(queries, 10, target="text"))
    dumps["enriched"] = dump(server, "fx-enriched")
    server.close()

    def write(name: str, content: Any) -> None:
        Path(name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    write("opensearch.json", dumps)
    write("expected.json", expected)
    shutil.rmtree("work")
    Path("index/lock").unlink()


if __name__ == "__main__":
    main()
