"""The artefacts of corruption.py: how they are made, and a small use of each."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness.mutations import Artefact
from xmodal.encoders.calibration import STAGES
from xmodal.encoders.compressor import Compressor, read_codes, read_report
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.index_model import find_model, record_model
from xmodal.encoders.load import load_encoder
from xmodal.index.contract import WordsQuery
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import open_folder
from xmodal.index.origins import Origin
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import MODALITIES

TEXTS = ("a red circle", "two blue squares above", "a green star number 7")
BITS, DIM, DOCUMENTS = 32, 32, 600


# ---- uses ------------------------------------------------------------------------------------


def use_encoder(folder: Path) -> Any:
    """Encode texts and pictures, and return codes, confidence, split, and description."""
    return _encoded(load_encoder(folder, engine="auto"))


def use_trained(folder: Path) -> Any:
    """Encode by torch; see :func:`use_encoder`."""
    return _encoded(load_encoder(folder, engine="torch"))


def _encoded(encoder: Encoder, cache: Path | None = None, texts: tuple[str, ...] = TEXTS) -> Any:
    codes = []
    for modality, sources in (("image", pictures()), ("text", list(texts))):
        found = encoder.encode(modality, sources, cache=cache)  # type: ignore[arg-type]
        codes.append([found.codes.to_hex(), found.features.tobytes(), found.usable.tolist()])
    confidence = [
        encoder.confidence.hits_confidence(kind, [0.7, 0.2], 99, distances=[3, 9])
        for kind in STAGES
    ]
    split = {role: list(ids) for role, ids in encoder.split.items()}
    known = [encoder.has_known_token(text) for text in TEXTS]
    return codes, confidence, split, known, encoder.fingerprint, repr(encoder.about)


def use_compressor(folder: Path) -> Any:
    """Return codes, report, and codes of other vectors."""
    compressor = Compressor.load(folder)
    vectors = np.random.default_rng(5).standard_normal((4, compressor.dim))
    codes = read_codes(folder).to_hex(), compressor.encode(vectors).to_hex()
    return codes, read_report(folder), compressor.fingerprint


def use_index(folder: Path) -> Any:
    """Search both targets by codes, vectors, words and filters, and return all documents.

    The recorded model is a path that ends in its fingerprint.
    """
    model = find_model(str(folder))
    assert model is not None
    index = open_folder(folder, bits=BITS, fingerprint=model.name)
    rng = np.random.default_rng(3)
    outputs = rng.standard_normal((3, BITS)).astype(np.float32)
    full = QueryCodes.of(outputs)
    queries = (full.codes, QueryCodes(full.codes, full.weights), full)
    wheres = (None, {"colour": "red"}, {"price": {"gte": 20}})
    words = [WordsQuery(text) for text in TEXTS]
    found: list[Any] = [model, len(index), index.fingerprint]
    for target in MODALITIES:
        for where in wheres:
            found += [index.search(query, 5, target=target, where=where) for query in queries]
            found.append(index.search_words(words, 5, target=target, where=where))
            found.append(index.count(target, where))
    documents = index.get([f"d{number:04}" for number in range(0, DOCUMENTS, 7)])
    found += [documents.ids, documents.fields, documents.origins]
    found += [documents.packed[m].tobytes() + documents.vectors[m].tobytes() for m in MODALITIES]
    found += [list(index.entries()), index.facets()]
    for batch in index.batches():
        found.append([batch.packed[m].tobytes() + batch.vectors[m].tobytes() for m in MODALITIES])
    return repr(found).replace(str(folder), "FOLDER")


def use_cache(encoder: Encoder) -> Callable[[Path], Any]:
    """Return the use of a cache: features of pictures and texts, some of them not in it."""
    texts = (*cached_texts(), *TEXTS)
    return lambda folder: _encoded(encoder, folder, texts)


def cached_texts() -> tuple[str, ...]:
    """Return texts whose features fill several pages of the cache."""
    return tuple(f"{text} {number}" for text in TEXTS for number in range(150))


def pictures() -> list[Any]:
    """Return pictures of noise."""
    from PIL import Image

    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)) for _ in range(3)]


# ---- making ----------------------------------------------------------------------------------


def make_all(folder: Path) -> None:
    """Write all artefacts, and others of the same shapes, below ``folder``."""
    for number, part in enumerate(("one", "other")):
        _make(folder / part, seed=number)
    (folder / "complete").touch()


def _make(folder: Path, seed: int) -> None:
    import xmodal
    from xmodal.config import Options
    from xmodal.data.synthetic import write_synthetic_data
    from xmodal.export import Check, export

    data = xmodal.read(write_synthetic_data(folder / "data", 120), label_column="labels")
    settings = {"epochs": 1, "batch": 32, "hidden": 32}
    small = Options(bits=BITS, image_backbone="small-cnn", text_backbone="words", seed=seed)
    xmodal.train(data, folder / "model", small, settings)
    clip = str(_clip(folder / "clip"))
    on_clip = Options(bits=BITS, image_backbone=clip, text_backbone=clip, seed=seed)
    xmodal.train(data, folder / "on-clip", on_clip, settings)
    check = Check(items=20)
    export(folder / "on-clip", folder / "float32", check=check)
    _move_weights(folder / "float32")
    export(folder / "on-clip", folder / "int8", int8=True, check=check)
    vectors = np.random.default_rng(seed).standard_normal((300, 24)).astype(np.float32)
    xmodal.compress(vectors, BITS, folder / "codes", {"epochs": 1}, seed=seed)
    _encoded(load_encoder(folder / "float32"), folder / "cache", cached_texts())
    make_index(folder / "index", seed)


def _clip(folder: Path) -> Path:
    """Save a small CLIP with random weights."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
    from support.tiny_models import save_clip

    return save_clip(folder)


def _move_weights(folder: Path) -> None:
    """Move the weights of a graph into a file of external data, as those of a large model are."""
    import onnx

    from xmodal.checksums import DIGEST_KEY, file_record
    from xmodal.encoders.folder import FILES_KEY, write_config

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    graph = folder / "image.onnx"
    model = onnx.load(graph)
    graph.unlink()
    onnx.save(
        model,
        graph,
        save_as_external_data=True,
        location=f"{graph.name}.data",
        size_threshold=1024,
    )
    config[FILES_KEY] |= {path.name: file_record(path) for path in folder.glob("image.onnx*")}
    write_config(folder, {name: value for name, value in config.items() if name != DIGEST_KEY})


def make_index(folder: Path, seed: int = 0) -> None:
    """Write an index with codes, vectors, fields, origins, words and a record of its model."""
    rng = np.random.default_rng(seed)
    counts = {"image": np.ones(DOCUMENTS, int), "text": rng.integers(0, 4, DOCUMENTS)}
    vectors = {m: rng.integers(-127, 128, (sum(n), DIM), dtype=np.int8) for m, n in counts.items()}
    words = random.Random(seed)
    colours = ("red", "green", "blue")
    documents = DocumentBatch(
        [f"d{number:04}" for number in range(DOCUMENTS)],
        {m: np.packbits(rows > 0, axis=1) for m, rows in vectors.items()},  # type: ignore[misc]
        {m: np.concatenate([[0], np.cumsum(n)]) for m, n in counts.items()},  # type: ignore[misc]
        [
            json.dumps(
                {
                    "text": f"{words.choice(TEXTS)} {words.randrange(99)}",
                    "colour": words.choice(colours),
                    "price": words.randrange(100) / 2,
                }
            )
            for _ in range(DOCUMENTS)
        ],
        vectors,  # type: ignore[arg-type]
        [Origin("/data", f"d{n:04}", f"{n:x}", f"{n:x}").to_text() for n in range(DOCUMENTS)],
    )
    with open_folder(folder, bits=BITS, fingerprint=f"{seed:016x}", create=True) as index:
        index.add(documents)
    record_model(str(folder), Path("/models") / f"{seed:016x}", f"{seed:016x}")


def artefacts(folder: Path) -> list[Artefact]:
    """Return the artefacts of :func:`make_all`."""
    os.environ["OMP_NUM_THREADS"] = "1"
    uses: dict[str, Callable[[Path], Any]] = {
        "model": use_trained,
        "float32": use_encoder,
        "int8": use_encoder,
        "codes": use_compressor,
        "cache": lambda copy: use_cache(load_encoder(folder / "one" / "float32"))(copy),
        "index": use_index,
    }
    return [
        Artefact(name, folder / "one" / name, folder / "other" / name, use)
        for name, use in uses.items()
    ]
