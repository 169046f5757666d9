"""Settings and mappings of an index with codes: pure functions that build and read them.

A document with one code of a modality has it in the field ``image_code`` or ``text_code``. One with
several has them as nested objects of ``image_codes`` or ``text_codes``, in order; these fields are
added to the mapping with the first such document. Besides the user's own fields a document has
``xmodal.id``, a keyword copy of its id by which ties are sorted, and in an enriched index
``xmodal.encoder``, the fingerprint of its encoder. ``_meta.xmodal`` of the mapping contains bits,
bit order, fingerprint (key ``encoder``) and the version of this format.

Each code may have a vector: in ``image_vector`` or ``text_vector`` of a document with one code, in
``vector`` of a nested object. These fields are added with the first documents that have vectors,
and ``_meta.xmodal.dim`` contains their dimension. ``xmodal.words`` contains the words of the
document (see :mod:`xmodal.index.words`), separated by spaces; enriched indexes do not have it.
``xmodal.source`` and ``xmodal.origin`` contain the origin of a document that ``xmodal index``
stored (see :mod:`xmodal.index.origins`). They are added to the mapping with the first such
document.

Fields without a mapping become keywords, with ``.number`` for ranges of numbers and, for text,
``.words`` for BM25, so that a document with values of mixed types is not refused.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, IndexMismatch
from xmodal.index.words import VERSION as WORDS_VERSION
from xmodal.modality import MODALITIES, Modality
from xmodal.vectors import Int8
from xmodal_opensearch.index import codec

VERSION = 1
BIT_ORDER = "most significant first"
ID, ENCODER, WORDS = "xmodal.id", "xmodal.encoder", "xmodal.words"
INCOMPLETE = "xmodal.incomplete"
"""Field of an enriched index: true in a document of which a picture was not available."""
SOURCE, ORIGIN = "xmodal.source", "xmodal.origin"
ORIGIN_PROPERTIES: dict[str, Any] = {
    "source": {"type": "keyword"},
    "origin": {"type": "keyword", "index": False, "doc_values": False},
}
"""Fields of a document's origin: its source, and the text of :mod:`xmodal.index.origins`."""
RESERVED_FIELDS = (
    "xmodal",
    *(f"{modality}_code" for modality in MODALITIES),
    *(f"{modality}_codes" for modality in MODALITIES),
    *(f"{modality}_vector" for modality in MODALITIES),
    "self_test_code",
)
"""Top-level fields of a document that xmodal writes; the user's fields have other names."""
SELF_TEST_FIELD, SELF_TEST_ID = "self_test_code", "xmodal-self-test"
M, EF_CONSTRUCTION = 16, 100  # parameters of HNSW graphs
MAX_KEYWORD_LENGTH = 8191
"""In characters: Lucene's limit is 32,766 bytes, and a character has up to 4 bytes in UTF-8."""


def is_reserved(name: str) -> bool:
    """Return whether a field is reserved, or with dots (``xmodal.id``) is inside one that is."""
    return name.partition(".")[0] in RESERVED_FIELDS


def user_fields(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that are not reserved of a document, or of a mapping's properties."""
    return {name: value for name, value in document.items() if name not in RESERVED_FIELDS}


def field_of(modality: Modality) -> str:
    """Return the name of the code field of a modality."""
    return f"{modality}_code"


def nested_path(modality: Modality) -> str:
    """Return the name of the nested field of documents with several codes of a modality."""
    return f"{modality}_codes"


def vector_field(modality: Modality) -> str:
    """Return the name of the vector field of documents with one code of a modality."""
    return f"{modality}_vector"


@dataclass(frozen=True)
class Layout:
    """Storage format of codes and vectors in an index.

    ``engine``: of a bit vector's graph, or None. ``threshold``: setting
    ``approximate_threshold`` of k-NN; 0 builds graphs, -1 never does, None leaves the default.
    The layout "long" stores 64-bit words instead of a bit vector.

    int8 vectors are ``knn_vector`` fields where k-NN builds no graph for them. Elsewhere they are
    base64 text in ``binary`` fields, which only the client can compare: k-NN would build a Faiss
    graph in an index with graphs, which ends a node without the native library.
    """

    name: str
    engine: str | None = None
    threshold: int | None = None

    @property
    def is_vector(self) -> bool:
        """Whether codes are stored as ``knn_vector``."""
        return self.name != "long"

    @property
    def has_graph(self) -> bool:
        """Whether a graph for approximate search is built."""
        return self.threshold == 0

    @property
    def compares_vectors(self) -> bool:
        """Whether int8 vectors are stored as ``knn_vector``, which the server can compare."""
        return self.is_vector and not self.has_graph

    def mapping(self, bits: int) -> dict[str, Any]:
        """Return the mapping of one code field."""
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

    def nested_mapping(self, bits: int, dim: int | None = None) -> dict[str, Any]:
        """Return the mapping of one field of nested codes, with vectors of ``dim`` numbers."""
        code = {"code": self.mapping(bits)} if self.is_vector else self.mapping(bits)["properties"]
        vector = {} if dim is None else {"vector": self.vector_mapping(dim)}
        return {"type": "nested", "properties": {**code, **vector}}

    def vector_mapping(self, dim: int) -> dict[str, Any]:
        """Return the mapping of one field of int8 vectors."""
        if not self.compares_vectors:
            return {"type": "binary"}
        # Without a method: index.knn with threshold -1, or no index.knn, builds no graph.
        return {"type": "knn_vector", "dimension": dim, "data_type": "byte"}

    def nested_field(self, path: str) -> str:
        """Return the code field inside the nested field ``path``."""
        return f"{path}.code" if self.is_vector else path

    def settings(self) -> dict[str, Any]:
        """Return the settings that an index with this layout needs."""
        settings: dict[str, Any] = {"index.knn": True} if self.engine else {}
        if self.threshold is not None:
            settings["index.knn.advanced.approximate_threshold"] = self.threshold
        return settings

    def values(self, codes: BinaryCodes) -> list[Any]:
        """Return the value of the code field for each code."""
        if self.is_vector:
            return list(codes.to_signed())
        return [{f"w{n}": word for n, word in enumerate(row)} for row in codec.to_words(codes)]

    def codes(self, values: Sequence[Any], bits: int) -> BinaryCodes:
        """Return the codes of values of the code field; raise CodeError for invalid ones."""
        if self.is_vector:
            return codec.from_signed([[int(byte) for byte in value] for value in values], bits)
        rows = [[value[f"w{n}"] for n in range(codec.word_count(bits))] for value in values]
        return codec.from_words(rows, bits)

    def vector_values(self, vectors: Int8) -> list[Any]:
        """Return the value of the vector field for each vector."""
        if self.compares_vectors:
            values: list[Any] = vectors.tolist()
            return values
        return [b64encode(vector.tobytes()).decode() for vector in vectors]

    def vector_json(self, vectors: Int8) -> list[Any]:
        """Return the same as ``vector_values`` for lines of bulk requests."""
        is_list = self.compares_vectors
        return codec.to_json_arrays(vectors) if is_list else self.vector_values(vectors)

    def vectors(self, values: Sequence[Any], dim: int) -> Int8:
        """Return the vectors (n, dim) of values of the vector field."""
        if self.compares_vectors:
            return np.array(values, np.int8).reshape(len(values), dim)
        stored = b"".join(map(b64decode, values))
        return np.frombuffer(stored, np.int8).reshape(len(values), dim)

    def objects(self, values: Sequence[Any]) -> list[dict[str, Any]]:
        """Return the nested objects of the codes with these values of a code field."""
        return [{"code": value} for value in values] if self.is_vector else list(values)

    def object_codes(self, objects: Sequence[Mapping[str, Any]], bits: int) -> BinaryCodes:
        """Return the codes of nested objects; raise CodeError for invalid ones."""
        values = [one["code"] for one in objects] if self.is_vector else objects
        return self.codes(values, bits)

    def present(self, field: str) -> dict[str, Any]:
        """Return the query of the documents that have a code in ``field``."""
        return {"exists": {"field": field if self.is_vector else f"{field}.w0"}}


LAYOUTS = {
    layout.name: layout
    for layout in (
        # With threshold -1 no graph is built: exact search, without the native Faiss library.
        Layout("faiss", "faiss", threshold=-1),
        Layout("faiss-hnsw", "faiss", threshold=0),
        Layout("lucene-hnsw", "lucene", threshold=0),
        Layout("flat"),  # can be added to an existing index
        Layout("long"),
    )
}


def build_meta(bits: int, fingerprint: str | None, *, enriched: bool = False) -> dict[str, Any]:
    """Return ``_meta`` of a new mapping; ``enriched``: codes are added to existing documents."""
    meta: dict[str, Any] = {
        "mapping_version": VERSION,
        "bits": bits,
        "bit_order": BIT_ORDER,
        "encoder": fingerprint,
    }
    return {"xmodal": meta | ({"added": True} if enriched else {"words": WORDS_VERSION})}


def with_meta(meta: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return ``_meta`` of a mapping with changed entries of xmodal."""
    return {**meta, "xmodal": {**meta.get("xmodal", {}), **changes}}


def is_enriched(mappings: Mapping[str, Any]) -> bool:
    """Return whether codes were added to existing documents of the user."""
    return bool(mappings.get("_meta", {}).get("xmodal", {}).get("added"))


def code_properties(bits: int, layout: Layout, *, words: bool = False) -> dict[str, Any]:
    """Return the mapping of the reserved fields, of a new index or to add to an existing one.

    ``words``: the documents have their tokens for BM25.
    """
    names = [*map(field_of, MODALITIES), SELF_TEST_FIELD]
    # Positions are of no use without phrases. Norms, the lengths, are part of BM25.
    tokens = {"words": {"type": "text", "analyzer": "whitespace", "index_options": "freqs"}}
    own = {"id": {"type": "keyword"}, "encoder": {"type": "keyword"}, **(tokens if words else {})}
    return {
        "xmodal": {"properties": own},
        **{name: layout.mapping(bits) for name in names},
    }


def enriched_properties(bits: int, layout: Layout) -> dict[str, Any]:
    """Return the mapping of the reserved fields to add to an index of the user's documents."""
    properties = code_properties(bits, layout)
    properties["xmodal"]["properties"]["incomplete"] = {"type": "boolean"}
    return properties


def nested_properties(
    bits: int, layout: Layout, modalities: Iterable[Modality], dim: int | None = None
) -> dict[str, Any]:
    """Return the mapping of the fields of nested codes, to add to an existing index."""
    return {nested_path(modality): layout.nested_mapping(bits, dim) for modality in modalities}


def vector_properties(layout: Layout, dim: int) -> dict[str, Any]:
    """Return the mapping of the fields of vectors, to add to an existing index."""
    return {vector_field(modality): layout.vector_mapping(dim) for modality in MODALITIES}


def new_index(
    bits: int,
    fingerprint: str | None,
    layout: Layout,
    *,
    shards: int = 1,
    replicas: int | None = None,
    fields: Mapping[str, Any] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the body that creates an index.

    ``fields``: mapping of the user's own fields. ``replicas``: their number; by default one as soon
    as the cluster has a second node. ``meta``: further entries of ``_meta``.
    """
    copies: dict[str, Any] = (
        {"index.auto_expand_replicas": "0-1"}
        if replicas is None
        else {"index.number_of_replicas": replicas}
    )
    return {
        "settings": {
            "index.number_of_shards": shards,
            "index.mapping.total_fields.limit": 4000,
            **copies,
            **layout.settings(),
        },
        "mappings": {
            "_meta": {**build_meta(bits, fingerprint), **(meta or {})},
            "dynamic": "true",  # an index template may have another value
            "date_detection": False,
            "numeric_detection": False,
            "dynamic_templates": [
                {f"{kind}s": {"match_mapping_type": kind, "mapping": _keyword(kind == "string")}}
                for kind in ("string", "long", "double", "boolean")
            ],
            "properties": {
                **(fields or {}),
                **code_properties(bits, layout, words=True),
            },
        },
    }


def user_field(name: str, kind: str) -> dict[str, Any]:
    """Return the mapping of a user's field of type ``kind``, such as "date".

    Raises ConfigError for a reserved name or an invalid type.
    """
    if is_reserved(name):
        raise ConfigError(f"the field name {name!r} is reserved in an index with codes: rename it")
    if kind == "text":
        keyword = {"type": "keyword", "ignore_above": MAX_KEYWORD_LENGTH}
        return {"type": "text", "fields": {"keyword": keyword}}
    if not re.fullmatch(r"[a-z_]+", kind):
        raise ConfigError(f"the type of field {name!r} is {kind!r}, expected one such as date")
    return {"type": kind}


def read_meta(index: str, mappings: Mapping[str, Any]) -> tuple[int, str | None]:
    """Return bits and fingerprint from the mapping of an index.

    Raises IndexMismatch for an index without codes or of an unknown format.
    """
    found = mappings.get("_meta", {}).get("xmodal")
    if not isinstance(found, Mapping):
        raise IndexMismatch(f"index {index} " + _why_no_meta(mappings.get("properties", {})))
    version, order = found.get("mapping_version"), found.get("bit_order")
    bits, fingerprint = found.get("bits"), found.get("encoder")
    if (version, order) != (VERSION, BIT_ORDER):
        raise IndexMismatch(
            f"index {index} has mapping version {version!r}, bit order {order!r}; this version "
            f"reads {VERSION!r}, {BIT_ORDER!r}: load it again, or use the version that wrote it"
        )
    if not isinstance(bits, int) or not (fingerprint is None or isinstance(fingerprint, str)):
        raise IndexMismatch(
            f"index {index} stores {bits!r} bits and encoder {fingerprint!r}, expected a number "
            "and text or null: load it again"
        )
    return bits, fingerprint


def read_dim(mappings: Mapping[str, Any]) -> int | None:
    """Return the dimension of the stored vectors, or None for an index without vectors."""
    dim = mappings.get("_meta", {}).get("xmodal", {}).get("dim")
    return dim if isinstance(dim, int) else None


def has_vector_fields(mappings: Mapping[str, Any]) -> bool:
    """Return whether the mapping has fields for vectors of xmodal; a user may have equal names."""
    return "dim" in mappings.get("_meta", {}).get("xmodal", {})


def has_words(mappings: Mapping[str, Any]) -> bool:
    """Return whether documents have their words, by the rules of this version."""
    return bool(mappings.get("_meta", {}).get("xmodal", {}).get("words") == WORDS_VERSION)


def check_visible(index: str, mappings: Mapping[str, Any]) -> None:
    """Raise IndexMismatch if field-level security hides fields that searches use from the user."""
    needed = [ID, *map(field_of, MODALITIES)]
    needed += [ENCODER] if is_enriched(mappings) else []
    needed += [WORDS] if has_words(mappings) else []
    needed += [] if read_dim(mappings) is None else map(vector_field, MODALITIES)
    visible = {*mappings.get("properties", {}), *field_types(mappings)}
    hidden = [name for name in needed if name not in visible]
    if hidden:
        raise IndexMismatch(
            f"index {index} shows no field {', '.join(hidden)} to this user, expected by its "
            "description: field-level security of a role hides fields of xmodal: let the role see "
            "xmodal.*, image_* and text_*"
        )


def read_layout(
    index: str, bits: int, mappings: Mapping[str, Any], settings: Mapping[str, Any]
) -> Layout:
    """Return the layout of an index from its mapping and flat settings.

    Raises IndexMismatch if the code fields have no known layout of ``bits`` bits.
    """
    properties = mappings.get("properties", {})
    fields = [properties.get(field_of(modality), {}) for modality in MODALITIES]
    field = fields[0]
    if "w0" in field.get("properties", {}):
        layout = LAYOUTS["long"]
        words = {len(other.get("properties", {})) for other in fields}
        fits = words == {codec.word_count(bits)}
    else:
        engine = (field.get("method") or {}).get("engine")
        exact = str(settings.get("index.knn.advanced.approximate_threshold")) == "-1"
        name = {"faiss": "faiss" if exact else "faiss-hnsw", "lucene": "lucene-hnsw", None: "flat"}
        layout = LAYOUTS[name.get(engine, "flat")]
        kind = field.get("type"), str(field.get("data_type")).lower(), field.get("dimension")
        fits = kind == ("knn_vector", "binary", bits) and all(other == field for other in fields)
    if not fits:
        raise IndexMismatch(
            f"index {index}: the fields {field_of('image')} and {field_of('text')} are mapped as "
            f"{fields!r:.150}, expected bit vectors of {bits} bits: choose a new index"
        )
    return layout


def self_test_code(bits: int) -> BinaryCodes:
    """Return the code of the self-test document: bit n is set where n is a square number.

    Reversed or inverted bits, bytes or words give another code, so a search detects them.
    """
    squares = {n * n for n in range(bits)}
    text = "".join("1" if n in squares else "0" for n in range(bits))
    return BinaryCodes.from_hex([f"{int(text, 2):0{bits // 4}x}"])


def field_types(mappings: Mapping[str, Any]) -> dict[str, str]:
    """Return the type of every field and sub-field of a mapping, by path (``price.number``)."""
    types: dict[str, str] = {}

    def walk(properties: Mapping[str, Any], prefix: str) -> None:
        for name, field in properties.items():
            path = prefix + name
            if "type" in field:
                types[path] = str(field["type"])
            walk(field.get("properties", {}), f"{path}.")
            walk(field.get("fields", {}), f"{path}.")

    walk(mappings.get("properties", {}), "")
    return types


def _why_no_meta(properties: Mapping[str, Any]) -> str:
    """Return why an index with these fields has no ``_meta.xmodal``, and what to do."""
    field = properties.get(field_of("image"), {})
    if "xmodal" not in properties or not field:
        return (
            "has no codes (its mapping has no _meta.xmodal): add codes with xmodal-opensearch "
            "enrich, or choose a new index"
        )
    if field.get("type") == "knn_vector" or "w0" in field.get("properties", {}):
        return (
            "has lost _meta.xmodal of its mapping: copy _meta from the index that it was made of "
            "(GET /SOURCE/_mapping, then PUT /NAME/_mapping), see docs/operations.md"
        )
    return (
        f"was filled without the mapping of codes ({field_of('image')} is {field.get('type')}), as "
        "by a reindex: delete it, create it with the mapping of its source, and reindex again, see "
        "docs/operations.md"
    )


def _keyword(text: bool) -> dict[str, Any]:
    """Return the mapping of a field that the user did not describe."""
    fields: dict[str, Any] = {"number": {"type": "double", "ignore_malformed": True}}
    if text:
        fields["words"] = {"type": "text"}
    return {"type": "keyword", "ignore_above": MAX_KEYWORD_LENGTH, "fields": fields}
