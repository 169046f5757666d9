"""Settings and mappings: bodies by equality, reading back, and rejection of unknown ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, IndexMismatch
from xmodal_opensearch.index import codec, mapping
from xmodal_opensearch.index.mapping import LAYOUTS, Layout, read_layout, read_meta

FLAT = {"type": "knn_vector", "dimension": 64, "data_type": "binary", "space_type": "hamming"}
METHOD = {
    "name": "hnsw",
    "space_type": "hamming",
    "parameters": {"m": 16, "ef_construction": 100},
}
THRESHOLD = "index.knn.advanced.approximate_threshold"
EXPECTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "faiss": (FLAT | {"method": METHOD | {"engine": "faiss"}}, {"index.knn": True, THRESHOLD: -1}),
    "faiss-hnsw": (
        FLAT | {"method": METHOD | {"engine": "faiss"}},
        {"index.knn": True, THRESHOLD: 0},
    ),
    "lucene-hnsw": (
        FLAT | {"method": METHOD | {"engine": "lucene"}},
        {"index.knn": True, THRESHOLD: 0},
    ),
    "flat": (FLAT, {}),
    "long": ({"properties": {"w0": {"type": "long", "index": False}}}, {}),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_layout_round_trip(layout: Layout) -> None:
    field, settings = EXPECTED[layout.name]
    assert layout.mapping(64) == field
    assert layout.settings() == settings
    # The server returns all settings as text, and data_type in capitals.
    returned = field | ({"data_type": "BINARY"} if "data_type" in field else {})
    mappings = {"properties": {"image_code": returned, "text_code": returned}}
    flat = {name: str(value).lower() for name, value in settings.items()}
    assert read_layout("x", 64, mappings, flat) is layout


def test_layout_long_has_one_field_per_word() -> None:
    word = {"type": "long", "index": False}
    assert LAYOUTS["long"].mapping(72) == {"properties": {"w0": word, "w1": word}}
    codes = BinaryCodes.from_hex(["0000000000000001" + "80"])
    assert LAYOUTS["long"].values(codes) == [{"w0": 1, "w1": -(2**63)}]
    assert LAYOUTS["long"].codes([{"w0": 1, "w1": -(2**63)}], 72) == codes


def test_bytes_may_be_returned_as_doubles() -> None:
    assert LAYOUTS["faiss"].codes([[-128.0, 1.0]], 16) == BinaryCodes.from_hex(["8001"])


def test_present_query_uses_a_field_of_every_code() -> None:
    assert LAYOUTS["flat"].present("text_code") == {"exists": {"field": "text_code"}}
    assert LAYOUTS["long"].present("text_code") == {"exists": {"field": "text_code.w0"}}


def test_body_of_a_new_index() -> None:
    plain = {
        "type": "keyword",
        "ignore_above": 8191,
        "fields": {"number": {"type": "double", "ignore_malformed": True}},
    }
    text = plain | {"fields": plain["fields"] | {"words": {"type": "text"}}}  # type: ignore[operator]
    field = EXPECTED["faiss"][0]
    body = mapping.new_index(
        64,
        "e1",
        LAYOUTS["faiss"],
        shards=3,
        replicas=2,
        fields={"day": {"type": "date"}},
        meta={"filled_from": "a"},
    )
    assert body == {
        "settings": {
            "index.number_of_shards": 3,
            "index.number_of_replicas": 2,
            "index.mapping.total_fields.limit": 4000,
            "index.knn": True,
            THRESHOLD: -1,
        },
        "mappings": {
            "_meta": {
                "xmodal": {
                    "mapping_version": 1,
                    "bits": 64,
                    "bit_order": "most significant first",
                    "encoder": "e1",
                    "words": "1",
                },
                "filled_from": "a",
            },
            "dynamic": "true",
            "date_detection": False,
            "numeric_detection": False,
            "dynamic_templates": [
                {"strings": {"match_mapping_type": "string", "mapping": text}},
                {"longs": {"match_mapping_type": "long", "mapping": plain}},
                {"doubles": {"match_mapping_type": "double", "mapping": plain}},
                {"booleans": {"match_mapping_type": "boolean", "mapping": plain}},
            ],
            "properties": {
                "day": {"type": "date"},
                "xmodal": {
                    "properties": {
                        "id": {"type": "keyword"},
                        "encoder": {"type": "keyword"},
                        "words": {
                            "type": "text",
                            "analyzer": "whitespace",
                            "index_options": "freqs",
                        },
                    }
                },
                "image_code": field,
                "text_code": field,
                "self_test_code": field,
            },
        },
    }


def test_default_replicas_expand_to_a_second_node() -> None:
    settings = mapping.new_index(8, None, LAYOUTS["long"])["settings"]
    assert settings == {
        "index.number_of_shards": 1,
        "index.auto_expand_replicas": "0-1",
        "index.mapping.total_fields.limit": 4000,
    }


def test_user_field_mapping_and_rejection() -> None:
    assert mapping.user_field("day", "date") == {"type": "date"}
    assert mapping.user_field("caption", "text") == {
        "type": "text",
        "fields": {"keyword": {"type": "keyword", "ignore_above": 8191}},
    }
    for name in ("xmodal", "image_code", "text_code", "self_test_code", "xmodal.id"):
        with pytest.raises(ConfigError, match=f"'{name}' is reserved"):
            mapping.user_field(name, "keyword")
    with pytest.raises(ConfigError, match="'day' is 'a date'"):
        mapping.user_field("day", "a date")


def meta(**change: Any) -> dict[str, Any]:
    """Return mappings with a valid ``_meta.xmodal`` except for the change."""
    return {"_meta": {"xmodal": mapping.build_meta(64, "e1")["xmodal"] | change, "other": 1}}


def test_read_meta_returns_bits_and_fingerprint() -> None:
    assert read_meta("x", meta()) == (64, "e1")
    assert read_meta("x", meta(encoder=None)) == (64, None)


@pytest.mark.parametrize(
    ("mappings", "message"),
    [
        ({}, "index x has no codes"),
        ({"_meta": {"other": 1}}, "has no codes"),
        ({"_meta": {"xmodal": "yes"}}, "has no codes"),
        (meta(mapping_version=2), "mapping version 2"),
        (meta(mapping_version=None), "mapping version None"),
        (meta(bit_order="least significant first"), "bit order 'least significant first'"),
        (meta(bits="64"), "'64' bits"),
        (meta(encoder=7), "encoder 7"),
    ],
)
def test_read_meta_rejects_unknown_formats(mappings: dict[str, Any], message: str) -> None:
    with pytest.raises(IndexMismatch, match=message) as raised:
        read_meta("x", mappings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "fields",
    [
        (None, None),
        (FLAT, None),  # one modality only
        (None, FLAT),
        (FLAT | {"dimension": 128}, FLAT | {"dimension": 128}),
        (FLAT | {"data_type": "byte"}, FLAT | {"data_type": "byte"}),
        ({"type": "knn_vector", "dimension": 64}, {"type": "knn_vector", "dimension": 64}),
        ({"type": "keyword"}, {"type": "keyword"}),
        (LAYOUTS["long"].mapping(128), LAYOUTS["long"].mapping(128)),
        (LAYOUTS["long"].mapping(64), LAYOUTS["long"].mapping(128)),
        (LAYOUTS["long"].mapping(64), FLAT),
        (FLAT, LAYOUTS["lucene-hnsw"].mapping(64)),
    ],
)
def test_read_layout_rejects_other_fields(fields: tuple[Any, Any]) -> None:
    names = ("image_code", "text_code")
    properties = {name: one for name, one in zip(names, fields, strict=True) if one is not None}
    with pytest.raises(IndexMismatch, match="64 bits") as raised:
        read_layout("x", 64, {"properties": properties}, {})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("threshold", "name"), [("-1", "faiss"), ("0", "faiss-hnsw"), (None, "faiss-hnsw")]
)
def test_threshold_of_minus_one_is_the_exact_layout(threshold: str | None, name: str) -> None:
    field = EXPECTED["faiss"][0]
    mappings = {"properties": {"image_code": field, "text_code": field}}
    settings = {} if threshold is None else {THRESHOLD: threshold}
    assert read_layout("x", 64, mappings, settings).name == name


def test_field_types_by_path() -> None:
    assert mapping.field_types(
        {
            "properties": {
                "price": {"type": "keyword", "fields": {"number": {"type": "double"}}},
                "maker": {"properties": {"name": {"type": "text"}}},
                "parts": {"type": "nested", "properties": {"size": {"type": "long"}}},
            }
        }
    ) == {
        "price": "keyword",
        "price.number": "double",
        "maker.name": "text",
        "parts": "nested",
        "parts.size": "long",
    }
    assert mapping.field_types({}) == {}


def test_self_test_code_by_hand() -> None:
    # Ones at the squares 0, 1, 4, 9, 16, 25: 11001000 01000000 10000000 01000000
    assert mapping.self_test_code(32).to_hex() == ["c8408040"]


@pytest.mark.parametrize("bits", [8, 40, 64, 128, 256, 512, 2048])
def test_self_test_code_differs_in_every_other_bit_order(bits: int) -> None:
    packed = mapping.self_test_code(bits).packed
    squares = np.zeros(bits, np.uint8)
    squares[[n * n for n in range(bits) if n * n < bits]] = 1
    assert np.array_equal(packed[0], np.packbits(squares))
    others = [
        np.packbits(squares, bitorder="little")[None],  # least significant bit first
        np.packbits(squares[::-1])[None],  # last bit first
        255 - packed,  # ones and zeros exchanged
    ]
    if bits > 8:
        others.append(packed[:, ::-1])  # last byte first
    for other in others:
        assert not np.array_equal(other, packed)


@pytest.mark.parametrize("layout", ["faiss", "lucene-hnsw", "flat", "long"])
def test_mapping_round_trip_on_a_server(
    address: Callable[..., str], rest: Callable[..., Any], layout: str
) -> None:
    name = address().rpartition("/")[2]
    fields = {"day": {"type": "date"}, "a.b": {"type": "long"}}
    rest("PUT", f"/{name}", mapping.new_index(72, "e1", LAYOUTS[layout], fields=fields))
    content = rest("GET", f"/{name}?flat_settings=true")[name]
    assert read_meta(name, content["mappings"]) == (72, "e1")
    assert read_layout(name, 72, content["mappings"], content["settings"]).name == layout
    types = mapping.field_types(content["mappings"])
    assert (types["day"], types["a.b"], types["xmodal.id"]) == ("date", "long", "keyword")
    field = "image_code" if layout != "long" else f"image_code.w{codec.word_count(72) - 1}"
    assert field in types
