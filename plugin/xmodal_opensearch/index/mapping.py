"""Settings and mappings of an index with codes: pure, and read back the same way.

A code field is called ``image_code`` or ``text_code``. Beside the user's own fields a document has
``xmodal.id``, a keyword copy of its id (ties are sorted by it), and where codes were added to
somebody's documents ``xmodal.encoder``. ``_meta.xmodal`` of the mapping says bits, bit order,
encoder and version of all this.

Fields that nobody mapped become keywords, with ``.number`` for ranges of numbers and, for text,
``.words`` for BM25: mixed values then never refuse a document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, IndexMismatch
from xmodal.modality import MODALITIES, Modality
from xmodal_opensearch.index import codec

VERSION = 1
BIT_ORDER = "most significant first"
ID, ENCODER = "xmodal.id", "xmodal.encoder"
RESERVED_FIELDS = ("xmodal", *(f"{side}_code" for side in MODALITIES), "self_test_code")
"""Top-level names that belong to us in a document."""
SELF_TEST_FIELD, SELF_TEST_ID = "self_test_code", "xmodal-self-test"
M, EF_CONSTRUCTION = 16, 100


def is_reserved(name: str) -> bool:
    """Whether a field's name is ours, or with dots (``xmodal.id``) lies in what is."""
    return name.partition(".")[0] in RESERVED_FIELDS


def field_of(side: Modality) -> str:
    """The name of the code field of a side."""
    return f"{side}_code"


@dataclass(frozen=True)
class Layout:
    """How codes lie in an index: as a bit vector of some engine, or as 64-bit words."""

    name: str
    engine: str | None = None
    threshold: int | None = None

    @property
    def is_vector(self) -> bool:
        """Whether it is a ``knn_vector``."""
        return self.name != "long"

    @property
    def has_graph(self) -> bool:
        """Whether documents are put into a graph that can be asked for the nearest."""
        return self.threshold == 0

    def mapping(self, bits: int) -> dict[str, Any]:
        """The mapping of one code field."""
        if not self.is_vector:
            word = {"type": "long", "index": False}
            return {"properties": {f"w{n}": word for n in range(codec.word_count(bits))}}
        vector: dict[str, Any] = {
            "type": "knn_vector",
            "dimension": bits,
            "data_type": "binary",
            "space_type": "hamming",
        }
        if self.engine:
            vector["method"] = {
                "name": "hnsw",
                "engine": self.engine,
                "space_type": "hamming",
                "parameters": {"m": M, "ef_construction": EF_CONSTRUCTION},
            }
        return vector

    def settings(self) -> dict[str, Any]:
        """What the index needs beside it."""
        out: dict[str, Any] = {"index.knn": True} if self.engine else {}
        if self.threshold is not None:
            out["index.knn.advanced.approximate_threshold"] = self.threshold
        return out

    def values(self, codes: BinaryCodes) -> list[Any]:
        """What a document holds in the field, for each code."""
        if self.is_vector:
            return list(codes.to_signed())
        return [{f"w{n}": word for n, word in enumerate(row)} for row in codec.to_words(codes)]

    def codes(self, values: Sequence[Any], bits: int) -> BinaryCodes:
        """The codes of what documents hold."""
        if self.is_vector:
            return codec.from_signed([[int(one) for one in value] for value in values], bits)
        rows = [[value[f"w{n}"] for n in range(codec.word_count(bits))] for value in values]
        return codec.from_words(rows, bits)

    def present(self, field: str) -> dict[str, Any]:
        """The query for documents that have a code in ``field``."""
        return {"exists": {"field": field if self.is_vector else f"{field}.w0"}}


LAYOUTS = {
    one.name: one
    for one in (
        # No native library is touched below the threshold, and -1 is below for ever: exact search.
        Layout("faiss", "faiss", threshold=-1),
        Layout("faiss-hnsw", "faiss", threshold=0),
        Layout("lucene-hnsw", "lucene", threshold=0),
        Layout("flat"),  # what an index that already exists can be given
        Layout("long"),
    )
}


def meta(bits: int, fingerprint: str | None, *, added: bool = False) -> dict[str, Any]:
    """What ``_meta`` of the mapping says of us; ``added``: to documents that are not ours."""
    told: dict[str, Any] = {
        "mapping_version": VERSION,
        "bits": bits,
        "bit_order": BIT_ORDER,
        "encoder": fingerprint,
    }
    return {"xmodal": told | ({"added": True} if added else {})}


def is_enriched(mappings: Mapping[str, Any]) -> bool:
    """Whether the documents are somebody's own and only their codes are ours."""
    return bool(mappings.get("_meta", {}).get("xmodal", {}).get("added"))


def code_properties(bits: int, layout: Layout) -> dict[str, Any]:
    """The properties that are ours: what an existing index is given, and a new one has."""
    names = [*(field_of(side) for side in MODALITIES), SELF_TEST_FIELD]
    return {
        "xmodal": {"properties": {"id": {"type": "keyword"}, "encoder": {"type": "keyword"}}},
        **{name: layout.mapping(bits) for name in names},
    }


def new_index(
    bits: int,
    fingerprint: str | None,
    layout: Layout,
    *,
    shards: int = 1,
    replicas: int | None = None,
    fields: Mapping[str, Any] | None = None,
    alias: str | None = None,
) -> dict[str, Any]:
    """The body that creates an index. ``fields`` is the mapping of fields that the user described.

    Without ``replicas`` there is one copy as soon as there is a second node to hold it.
    """
    copies: dict[str, Any] = (
        {"index.auto_expand_replicas": "0-1"}
        if replicas is None
        else {"index.number_of_replicas": replicas}
    )
    body: dict[str, Any] = {
        "settings": {
            "index.number_of_shards": shards,
            "index.mapping.total_fields.limit": 4000,
            **copies,
            **layout.settings(),
        },
        "mappings": {
            "_meta": meta(bits, fingerprint),
            "date_detection": False,
            "numeric_detection": False,
            "dynamic_templates": [
                {f"{kind}s": {"match_mapping_type": kind, "mapping": _plain(kind == "string")}}
                for kind in ("string", "long", "double", "boolean")
            ],
            "properties": {
                **(fields or {}),
                **code_properties(bits, layout),
            },
        },
    }
    if alias is not None:
        body["aliases"] = {alias: {"is_write_index": True}}
    return body


def user_field(name: str, kind: str) -> dict[str, Any]:
    """The mapping of a field that the user describes: a type's name."""
    if is_reserved(name):
        raise ConfigError(f"the field name {name!r} is ours in an index with codes: rename it")
    if kind == "text":
        keyword = {"type": "keyword", "ignore_above": _LONGEST_KEYWORD}
        return {"type": "text", "fields": {"keyword": keyword}}
    if not re.fullmatch(r"[a-z_]+", kind):
        raise ConfigError(f"the type of field {name!r} is {kind!r}, expected one such as date")
    return {"type": kind}


def read_meta(index: str, mappings: Mapping[str, Any]) -> tuple[int, str | None]:
    """Bits and encoder that an index remembers. Raises IndexMismatch for anything unknown."""
    found = mappings.get("_meta", {}).get("xmodal")
    if not isinstance(found, Mapping):
        raise IndexMismatch(
            f"index {index} holds no codes of ours (its mapping has no _meta.xmodal): add codes "
            "with xmodal-opensearch enrich, or name a new index"
        )
    version, order = found.get("mapping_version"), found.get("bit_order")
    bits, fingerprint = found.get("bits"), found.get("encoder")
    if (version, order) != (VERSION, BIT_ORDER):
        raise IndexMismatch(
            f"index {index} has mapping version {version!r}, bit order {order!r}; this version "
            f"reads {VERSION!r}, {BIT_ORDER!r}: load it again, or use the version that made it"
        )
    if not isinstance(bits, int) or not (fingerprint is None or isinstance(fingerprint, str)):
        raise IndexMismatch(f"index {index} stores {bits!r} bits and encoder {fingerprint!r}")
    return bits, fingerprint


def read_layout(
    index: str, bits: int, mappings: Mapping[str, Any], settings: Mapping[str, Any]
) -> Layout:
    """How the code fields of an index lie, from its mapping and flat settings.

    Raises IndexMismatch.
    """
    fields = [mappings.get("properties", {}).get(field_of(side), {}) for side in MODALITIES]
    field = fields[0]
    if "w0" in field.get("properties", {}):
        layout = LAYOUTS["long"]
        words = {len(one.get("properties", {})) for one in fields}
        fits = words == {codec.word_count(bits)}
    else:
        engine = (field.get("method") or {}).get("engine")
        exact = str(settings.get("index.knn.advanced.approximate_threshold")) == "-1"
        name = {"faiss": "faiss" if exact else "faiss-hnsw", "lucene": "lucene-hnsw", None: "flat"}
        layout = LAYOUTS[name.get(engine, "flat")]
        kind = field.get("type"), str(field.get("data_type")).lower(), field.get("dimension")
        fits = kind == ("knn_vector", "binary", bits) and all(one == field for one in fields)
    if not fits:
        raise IndexMismatch(
            f"index {index}: the fields {field_of('image')} and {field_of('text')} are mapped as "
            f"{fields!r:.150}, expected bit vectors of {bits} bits: name a new index"
        )
    return layout


def self_test(bits: int) -> BinaryCodes:
    """A code whose bits, bytes and words are all told apart: bit n is set where n is a square.

    Whoever made the index packed these bits in his own order; we look for them in ours.
    """
    squares = {n * n for n in range(bits)}
    text = "".join("1" if n in squares else "0" for n in range(bits))
    return BinaryCodes.from_hex([f"{int(text, 2):0{bits // 4}x}"])


def field_types(mappings: Mapping[str, Any]) -> dict[str, str]:
    """The type of every field and sub-field of a mapping by its path, such as ``price.number``."""
    out: dict[str, str] = {}

    def walk(parts: Mapping[str, Any], before: str) -> None:
        for name, one in parts.items():
            path = before + name
            if "type" in one:
                out[path] = str(one["type"])
            walk(one.get("properties", {}), f"{path}.")
            walk(one.get("fields", {}), f"{path}.")

    walk(mappings.get("properties", {}), "")
    return out


_LONGEST_KEYWORD = 8191  # characters; Lucene takes 32,766 bytes, and a character may need four


def _plain(text: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {"number": {"type": "double", "ignore_malformed": True}}
    if text:
        fields["words"] = {"type": "text"}
    return {"type": "keyword", "ignore_above": _LONGEST_KEYWORD, "fields": fields}
