"""Codec: codes and distances are unchanged by storage on a server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError, IndexFailure
from xmodal.vectors import MAX_KEY
from xmodal_opensearch.index import codec
from xmodal_opensearch.index.store import open_opensearch

MAX_BITS = 2048
STRATEGIES = ("script", "knn", "long", "lucene-hnsw")


@st.composite
def some_codes(draw: st.DrawFn) -> BinaryCodes:
    """Zero to four codes of any valid width."""
    width = draw(st.integers(1, MAX_BITS // 8))
    rows = draw(st.lists(st.binary(min_size=width, max_size=width), max_size=4))
    return BinaryCodes(np.frombuffer(b"".join(rows), np.uint8).reshape(-1, width), 8 * width)


@given(codes=some_codes())
def test_signed_bytes_round_trip(codes: BinaryCodes) -> None:
    signed = codes.to_signed()
    assert all(-128 <= value <= 127 for row in signed for value in row)
    assert codec.from_signed(signed, codes.bits) == codes


@given(codes=some_codes())
def test_words_round_trip(codes: BinaryCodes) -> None:
    words = codec.to_words(codes)
    assert all(-(2**63) <= word < 2**63 for row in words for word in row)
    assert all(len(row) == codec.word_count(codes.bits) for row in words)
    assert codec.from_words(words, codes.bits) == codes


@given(codes=some_codes())
def test_words_have_the_distances_of_the_codes(codes: BinaryCodes) -> None:
    words = np.array(codec.to_words(codes), np.int64).reshape(-1, codec.word_count(codes.bits))
    distances = np.bitwise_count((words[:, None] ^ words[None]).view(np.uint64)).sum(axis=2)
    assert np.array_equal(distances, codes.distances(codes))


@pytest.mark.parametrize(
    ("text", "signed"),
    [
        ("00", [0]),
        ("01", [1]),
        ("7f", [127]),
        ("80", [-128]),  # 128 - 256
        ("ff", [-1]),  # 255 - 256
        ("8001", [-128, 1]),
    ],
)
def test_signed_bytes_by_hand(text: str, signed: list[int]) -> None:
    assert BinaryCodes.from_hex([text]).to_signed() == [signed]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("80", [-(2**63)]),  # the first bit is the sign
        ("01", [1 << 56]),  # the eighth bit: 7 bytes of zeros behind it
        ("00000000000000ff", [255]),
        ("ffffffffffffffff" + "40", [-1, 1 << 62]),
    ],
)
def test_words_by_hand(text: str, words: list[int]) -> None:
    assert codec.to_words(BinaryCodes.from_hex([text])) == [words]


@pytest.mark.parametrize(("bits", "words"), [(8, 1), (64, 1), (72, 2), (128, 2), (2048, 32)])
def test_a_word_holds_64_bits(bits: int, words: int) -> None:
    assert codec.word_count(bits) == words


@pytest.mark.parametrize("rows", [[[128]], [[-129]], [[1, 2]], [[1], [1, 2]], [[1], []]])
def test_from_signed_rejects_invalid_rows(rows: list[list[int]]) -> None:
    with pytest.raises(CodeError, match="not 1 signed bytes"):
        codec.from_signed(rows, 8)


@pytest.mark.parametrize("rows", [[[1, 2]], [[1], []]])
def test_from_words_rejects_another_number_of_words(rows: list[list[int]]) -> None:
    with pytest.raises(CodeError, match="not 1 words"):
        codec.from_words(rows, 64)


def test_to_key_inverts_float32_scores() -> None:
    keys = [*range(MAX_BITS + 1), *range(MAX_KEY - 5000, MAX_KEY)]
    scores = [codec.SCALE * float(np.float32(1) / np.float32(1 + key)) for key in keys]
    assert [codec.to_key(score) for score in scores] == keys
    # The digits of an answer are the shortest that mean the float32.
    assert [codec.to_key(float(str(np.float32(score)))) for score in scores] == keys


@pytest.mark.parametrize("roles", [1, 2, 1000])
def test_scores_do_not_change_when_security_adds_to_them(roles: int) -> None:
    keys = [*range(0, MAX_BITS + 1, 7), MAX_KEY - 2, MAX_KEY - 1]
    for key in keys:
        score = np.float32(codec.SCALE) * (np.float32(1) / np.float32(1 + key))
        assert np.float32(float(score) + roles) == score  # the server adds doubles


@pytest.mark.parametrize("score", [0.0, -1.0, 0.5, 1.5, codec.SCALE * 0.4, codec.SCALE * 1.5])
def test_to_key_rejects_other_scores(score: float) -> None:
    with pytest.raises(IndexFailure, match=re.escape(f"{score:g}")):
        codec.to_key(score)


def test_least_score_is_between_two_distances() -> None:
    for distance in range(MAX_BITS):
        score, beyond = (np.float32(1 / (1 + d)) for d in (distance, distance + 1))
        assert beyond < codec.least_score(distance) < score


def test_score_of_a_radius_separates_distances() -> None:
    scores = np.float32(1) / np.arange(1, MAX_BITS + 2, dtype=np.float32)
    for radius in range(MAX_BITS + 1):
        bound = np.float32(codec.to_score(radius))  # min_score is a float32 on the server
        assert (scores[: radius + 1] >= bound).all()
        assert (scores[radius + 1 :] < bound).all()


@pytest.mark.parametrize("strategy", ["script", "long"])
@pytest.mark.parametrize("bits", [8, 64, 128, 256, 512])
def test_server_returns_the_stored_codes(
    address: Callable[..., str], bits: int, strategy: str
) -> None:
    random = np.random.default_rng(bits).integers(256, size=(40, bits // 8), dtype=np.uint8)
    edges = np.array([[0], [255], [128], [1]], np.uint8).repeat(bits // 8, axis=1)
    codes = BinaryCodes(np.concatenate([random, edges]), bits)
    ids = [str(number) for number in range(len(codes))]
    with open_opensearch(address(strategy=strategy), bits=bits, create=True) as index:
        index.add(ids, image=codes)
        assert index.get(ids).codes("image") == (ids, codes)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_server_returns_every_distance_from_0_to_512(
    address: Callable[..., str], strategy: str
) -> None:
    bits = 512
    # Document d has d ones at random positions: its distance to the code of zeros is d.
    order = np.random.default_rng(7).permutation(bits)
    ones = np.zeros((bits + 1, bits), np.float32)
    for distance in range(bits + 1):
        ones[distance, order[:distance]] = 1
    codes = BinaryCodes.from_relaxed(ones)
    zeros = codes[:1]
    with open_opensearch(address(strategy=strategy), bits=bits, create=True) as index:
        index.add([f"{d:03d}" for d in range(bits + 1)], text=codes)
        [nearest] = index.search(zeros, bits + 1, target="text")
        assert [(hit.id, hit.distance) for hit in nearest] == [
            (f"{d:03d}", d) for d in range(bits + 1)
        ]
        for radius in (0, 1, 255, 256, 511):
            [within] = index.search(zeros, bits + 1, target="text", radius=radius)
            assert [hit.distance for hit in within] == list(range(radius + 1))


@given(numbers=st.lists(st.lists(st.integers(-128, 127), min_size=3, max_size=3), max_size=4))
def test_json_arrays_of_vectors(numbers: list[list[int]]) -> None:
    vectors = np.array(numbers, np.int8).reshape(len(numbers), 3)
    texts = codec.to_json_arrays(vectors)
    assert [json.loads(text) for text in texts] == numbers
    # Inside of other values it has no quotes.
    assert all(repr({"vector": text}) == f"{{'vector': {text}}}" for text in texts)
