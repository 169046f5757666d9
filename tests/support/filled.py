"""Documents for tests of loading, and the documents and settings of an index, read by REST."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.index.documents import DocumentBatch
from xmodal.index.words import document_words

BITS = 64


def random_codes(n: int, seed: int = 0, bits: int = BITS) -> BinaryCodes:
    """Return ``n`` random codes."""
    drawn = np.random.default_rng(seed).integers(0, 256, (n, bits // 8), dtype=np.uint8)
    return BinaryCodes(drawn, bits)


def batch(n: int, *, start: int = 0, seed: int = 0, name: str = "d") -> DocumentBatch:
    """Return documents d00000, d00001, ... with both codes and two fields."""
    numbers = range(start, start + n)
    return DocumentBatch.of(
        [f"{name}{number:05}" for number in numbers],
        image=random_codes(n, 2 * seed + 1000 * start),
        text=random_codes(n, 2 * seed + 1 + 1000 * start),
        fields=[{"number": number, "seed": seed} for number in numbers],
    )


def as_stored(documents: DocumentBatch) -> dict[str, dict[str, Any]]:
    """Return the documents of a batch with both codes by id, as the server stores them."""
    rows = zip(
        documents.ids,
        map(json.loads, documents.fields),
        documents.packed["image"].view(np.int8).tolist(),
        documents.packed["text"].view(np.int8).tolist(),
        strict=True,
    )
    return {
        id_: {
            **fields,
            "xmodal": {"id": id_, "words": " ".join(document_words(fields, id_))},
            "image_code": image,
            "text_code": text,
        }
        for id_, fields, image, text in rows
    }


def stored_documents(rest: Callable[..., Any], name: str) -> dict[str, dict[str, Any]]:
    """Return all documents of an index except the self-test document; ids must be unique."""
    out: dict[str, dict[str, Any]] = {}
    for page in _pages(rest, name):
        for hit in page:
            assert hit["_id"] not in out, f"{hit['_id']} is stored twice"
            out[hit["_id"]] = hit["_source"]
    del out["xmodal-self-test"]
    return out


def settings_of(rest: Callable[..., Any], name: str) -> dict[str, Any]:
    """Return the present values of the settings that a load changes."""
    ((_, answer),) = rest("GET", f"/{name}/_settings?flat_settings=true").items()
    names = ("refresh_interval", "number_of_replicas", "auto_expand_replicas")
    return {key: answer["settings"].get(f"index.{key}") for key in names}


def _pages(rest: Callable[..., Any], name: str) -> Iterator[list[dict[str, Any]]]:
    rest("POST", f"/{name}/_refresh")
    found = rest("POST", f"/{name}/_search?scroll=1m", {"size": 10_000, "sort": ["_doc"]})
    while found["hits"]["hits"]:
        yield found["hits"]["hits"]
        found = rest("POST", "/_search/scroll", {"scroll": "1m", "scroll_id": found["_scroll_id"]})
    rest("DELETE", "/_search/scroll", {"scroll_id": [found["_scroll_id"]]})
