"""Documents to load, and what an index holds afterwards, asked without the plugin."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.index.documents import DocumentBatch

BITS = 64


def random_codes(n: int, seed: int = 0, bits: int = BITS) -> BinaryCodes:
    """``n`` codes without any pattern."""
    drawn = np.random.default_rng(seed).integers(0, 256, (n, bits // 8), dtype=np.uint8)
    return BinaryCodes(drawn, bits)


def batch(n: int, *, start: int = 0, seed: int = 0, name: str = "d") -> DocumentBatch:
    """Documents d00000 and so on with both codes and a field."""
    numbers = range(start, start + n)
    return DocumentBatch.of(
        [f"{name}{number:05}" for number in numbers],
        image=random_codes(n, 2 * seed + 1000 * start),
        text=random_codes(n, 2 * seed + 1 + 1000 * start),
        fields=[{"number": number, "seed": seed} for number in numbers],
    )


def wanted(one: DocumentBatch) -> dict[str, dict[str, Any]]:
    """The documents of a batch, as the server stores them."""
    rows = zip(
        one.ids,
        map(json.loads, one.fields),
        one.packed["image"].view(np.int8).tolist(),
        one.packed["text"].view(np.int8).tolist(),
        strict=True,
    )
    return {
        id_: {**fields, "xmodal": {"id": id_}, "image_code": image, "text_code": text}
        for id_, fields, image, text in rows
    }


def kept(rest: Callable[..., Any], name: str) -> dict[str, dict[str, Any]]:
    """Every document of an index but the self-test; an id that comes twice is an error."""
    out: dict[str, dict[str, Any]] = {}
    for page in _pages(rest, name):
        for hit in page:
            assert hit["_id"] not in out, f"{hit['_id']} is there twice"
            out[hit["_id"]] = hit["_source"]
    del out["xmodal-self-test"]
    return out


def settings_of(rest: Callable[..., Any], name: str) -> dict[str, Any]:
    """The settings that a load touches, as they are now."""
    ((_, answer),) = rest("GET", f"/{name}/_settings?flat_settings=true").items()
    names = ("refresh_interval", "number_of_replicas", "auto_expand_replicas")
    return {one: answer["settings"].get(f"index.{one}") for one in names}


def _pages(rest: Callable[..., Any], name: str) -> Iterator[list[dict[str, Any]]]:
    rest("POST", f"/{name}/_refresh")
    found = rest("POST", f"/{name}/_search?scroll=1m", {"size": 10_000, "sort": ["_doc"]})
    while found["hits"]["hits"]:
        yield found["hits"]["hits"]
        found = rest("POST", "/_search/scroll", {"scroll": "1m", "scroll_id": found["_scroll_id"]})
    rest("DELETE", "/_search/scroll", {"scroll_id": [found["_scroll_id"]]})
