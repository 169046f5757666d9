"""Settings and mappings: what is sent by equality, what is read back, and what is refused."""

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
def test_a_layout_is_written_out_and_read_back(layout: Layout) -> None:
    field, settings = EXPECTED[layout.name]
    assert layout.mapping(64) == field
    assert layout.settings() == settings
    # As the server tells it: everything in text, the type of data in capitals.
    told = field | ({"data_type": "BINARY"} if "data_type" in field else {})
    mappings = {"properties": {"image_code": told, "text_code": told}}
    flat = {name: str(value).lower() for name, value in settings.items()}
    assert read_layout("x", 64, mappings, flat) is layout


def test_a_code_of_words_takes_one_field_a_word() -> None:
    word = {"type": "long", "index": False}
    assert LAYOUTS["long"].mapping(72) == {"properties": {"w0": word, "w1": word}}
    codes = BinaryCodes.from_hex(["0000000000000001" + "80"])
    assert LAYOUTS["long"].values(codes) == [{"w0": 1, "w1": -(2**63)}]
    assert LAYOUTS["long"].codes([{"w0": 1, "w1": -(2**63)}], 72) == codes


def test_a_code_of_bytes_may_come_back_as_doubles() -> None:
    assert LAYOUTS["faiss"].codes([[-128.0, 1.0]], 16) == BinaryCodes.from_hex(["8001"])


def test_documents_with_a_code_are_found_by_a_field_that_each_has() -> None:
    assert LAYOUTS["flat"].present("text_code") == {"exists": {"field": "text_code"}}
    assert LAYOUTS["long"].present("text_code") == {"exists": {"field": "text_code.w0"}}


def test_the_body_of_a_new_index() -> None:
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
        alias="photos",
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
                }
            },
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
                    "properties": {"id": {"type": "keyword"}, "encoder": {"type": "keyword"}}
                },
                "image_code": field,
                "text_code": field,
                "self_test_code": field,
            },
        },
        "aliases": {"photos": {"is_write_index": True}},
    }


def test_copies_are_made_as_soon_as_another_node_can_hold_them() -> None:
    settings = mapping.new_index(8, None, LAYOUTS["long"])["settings"]
    assert settings == {
        "index.number_of_shards": 1,
        "index.auto_expand_replicas": "0-1",
        "index.mapping.total_fields.limit": 4000,
    }


def test_a_field_that_the_user_describes() -> None:
    assert mapping.user_field("day", "date") == {"type": "date"}
    assert mapping.user_field("caption", "text") == {
        "type": "text",
        "fields": {"keyword": {"type": "keyword", "ignore_above": 8191}},
    }
    for name in ("xmodal", "image_code", "text_code", "self_test_code", "xmodal.id"):
        with pytest.raises(ConfigError, match=f"field name '{name}' is ours"):
            mapping.user_field(name, "keyword")
    with pytest.raises(ConfigError, match="type of field 'day' is 'a date', expected one such as"):
        mapping.user_field("day", "a date")


def meta(**change: Any) -> dict[str, Any]:
    """Mappings whose ``_meta.xmodal`` is as we write it, but for the change."""
    return {"_meta": {"xmodal": mapping.meta(64, "e1")["xmodal"] | change, "theirs": 1}}


def test_bits_and_encoder_are_read_back() -> None:
    assert read_meta("x", meta()) == (64, "e1")
    assert read_meta("x", meta(fingerprint=None)) == (64, None)


@pytest.mark.parametrize(
    ("mappings", "words"),
    [
        ({}, "index x holds no codes of ours .* add codes with xmodal-opensearch enrich"),
        ({"_meta": {"other": 1}}, "holds no codes of ours"),
        ({"_meta": {"xmodal": "yes"}}, "holds no codes of ours"),
        (meta(mapping_version=2), "has mapping version 2, .* reads 1"),
        (meta(mapping_version=None), "has mapping version None"),
        (meta(bit_order="least significant first"), "bit order 'least significant first'; this"),
        (meta(bits="64"), "remembers '64' bits"),
        (meta(encoder=7), "remembers 64 bits and encoder 7"),
    ],
)
def test_an_unknown_meta_is_refused(mappings: dict[str, Any], words: str) -> None:
    with pytest.raises(IndexMismatch, match=words) as refused:
        read_meta("x", mappings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "fields",
    [
        (None, None),
        (FLAT, None),  # one side only
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
def test_fields_that_are_no_codes_of_64_bits_are_refused(fields: tuple[Any, Any]) -> None:
    names = ("image_code", "text_code")
    properties = {name: one for name, one in zip(names, fields, strict=True) if one is not None}
    with pytest.raises(IndexMismatch, match=r"index x: .* expected bit vectors of 64 bits") as no:
        read_layout("x", 64, {"properties": properties}, {})
    assert "\n" not in str(no.value)


@pytest.mark.parametrize(
    ("threshold", "name"), [("-1", "faiss"), ("0", "faiss-hnsw"), (None, "faiss-hnsw")]
)
def test_only_a_threshold_of_minus_one_makes_faiss_exact(threshold: str | None, name: str) -> None:
    field = EXPECTED["faiss"][0]
    mappings = {"properties": {"image_code": field, "text_code": field}}
    settings = {} if threshold is None else {THRESHOLD: threshold}
    assert read_layout("x", 64, mappings, settings).name == name


def test_every_field_has_a_type_under_its_path() -> None:
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


def test_the_self_test_by_hand() -> None:
    # Ones at the squares 0, 1, 4, 9, 16, 25: 11001000 01000000 10000000 01000000
    assert mapping.self_test_code(32).to_hex() == ["c8408040"]


@pytest.mark.parametrize("bits", [8, 40, 64, 128, 256, 512, 2048])
def test_the_self_test_shows_every_other_way_to_pack(bits: int) -> None:
    ours = mapping.self_test_code(bits).packed
    squares = np.zeros(bits, np.uint8)
    squares[[n * n for n in range(bits) if n * n < bits]] = 1
    assert np.array_equal(ours[0], np.packbits(squares))
    others = [
        np.packbits(squares, bitorder="little")[None],  # least significant bit first
        np.packbits(squares[::-1])[None],  # last bit first
        255 - ours,  # ones and zeros exchanged
    ]
    if bits > 8:
        others.append(ours[:, ::-1])  # last byte first
    for other in others:
        assert not np.array_equal(other, ours)


@pytest.mark.parametrize("layout", ["faiss", "lucene-hnsw", "flat", "long"])
def test_the_real_server_tells_a_mapping_that_we_read_back(
    address: Callable[..., str], rest: Callable[..., Any], layout: str
) -> None:
    name = address().rpartition("/")[2]
    fields = {"day": {"type": "date"}, "a.b": {"type": "long"}}
    rest("PUT", f"/{name}", mapping.new_index(72, "e1", LAYOUTS[layout], fields=fields))
    told = rest("GET", f"/{name}?flat_settings=true")[name]
    assert read_meta(name, told["mappings"]) == (72, "e1")
    assert read_layout(name, 72, told["mappings"], told["settings"]).name == layout
    types = mapping.field_types(told["mappings"])
    assert (types["day"], types["a.b"], types["xmodal.id"]) == ("date", "long", "keyword")
    field = "image_code" if layout != "long" else f"image_code.w{codec.word_count(72) - 1}"
    assert field in types
