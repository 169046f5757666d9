"""BinaryCodes: sign rule, bit order, packing, Hamming distance, invalid input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xmodal.codes import MAX_BITS, BinaryCodes, check_bits
from xmodal.errors import CodeError

QUICK = settings(deadline=None, max_examples=40)
WIDTHS = st.sampled_from([8, 16, 24, 32, 40, 64, 72, 128, 136])


def packed_rows(bits: int, max_rows: int = 6) -> st.SearchStrategy[Any]:
    """Return a strategy of 0 to ``max_rows`` packed codes of one width."""
    return st.integers(0, max_rows).flatmap(lambda n: arrays(np.uint8, (n, bits // 8)))


PACKED = WIDTHS.flatmap(packed_rows)


def codes(*rows: str) -> BinaryCodes:
    return BinaryCodes.from_hex(rows)


def test_bit_is_one_for_values_above_zero_most_significant_first() -> None:
    values = [[0.1, -0.1, 0.0, -0.0, np.inf, -np.inf, 1e-45, 2.0]]
    #           1     0    0     0     1       0       1     1   = 0b10001011 = 0x8b
    assert BinaryCodes.from_relaxed(np.array(values, np.float32)).to_hex() == ["8b"]


def test_signs_and_bits_have_the_order_of_the_values() -> None:
    values = np.array([[1.0, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 1]])
    made = BinaryCodes.from_relaxed(values)
    assert made.packed.tolist() == [[0b10000000, 0b00000001]]
    assert made.to_signs().tolist() == values.tolist()
    assert made.to_bits().tolist() == [[1, *[0] * 14, 1]]
    assert (made.to_bits().dtype, made.to_signs().dtype) == (np.uint8, np.float32)


@QUICK
@given(WIDTHS.flatmap(lambda bits: arrays(np.bool_, st.tuples(st.integers(0, 5), st.just(bits)))))
def test_bits_survive_packing(bits: np.ndarray) -> None:
    made = BinaryCodes.from_relaxed(np.where(bits, 0.5, -0.5))
    assert np.array_equal(made.to_bits(), bits)
    assert BinaryCodes.from_relaxed(made.to_signs()) == made
    assert BinaryCodes.from_relaxed(bits) == made
    assert BinaryCodes.from_relaxed(bits.astype(np.int8)) == made


@QUICK
@given(PACKED)
def test_codes_survive_hexadecimal(packed: np.ndarray) -> None:
    made = BinaryCodes(packed, packed.shape[1] * 8)
    assert BinaryCodes.from_hex(made.to_hex(), made.bits) == made
    assert BinaryCodes.from_hex([one.upper() for one in made.to_hex()], made.bits) == made


def test_distance_counts_differing_bits() -> None:
    # f0 ^ ff = 0f: 4 bits; 00 ^ 01 = 01: 1 bit; 4 + 1 = 5
    assert codes("f000").distances(codes("ff01", "f000", "0fff")).tolist() == [[4 + 1, 0, 8 + 8]]


@QUICK
@given(WIDTHS.flatmap(lambda bits: st.tuples(packed_rows(bits), packed_rows(bits))))
def test_distance_equals_a_count_bit_by_bit(pair: tuple[np.ndarray, np.ndarray]) -> None:
    bits = pair[0].shape[1] * 8
    first, second = (BinaryCodes(packed, bits) for packed in pair)
    naive = [
        [sum(a != b for a, b in zip(x, y, strict=True)) for y in second.to_bits().tolist()]
        for x in first.to_bits().tolist()
    ]
    distance = first.distances(second)
    assert distance.tolist() == naive
    assert (distance.dtype, distance.shape) == (np.uint16, (len(first), len(second)))


@QUICK
@given(WIDTHS.flatmap(packed_rows))
def test_distance_is_a_metric(packed: np.ndarray) -> None:
    made = BinaryCodes(packed, packed.shape[1] * 8)
    d = made.distances(made).astype(int)
    assert np.array_equal(d, d.T)
    assert not d.diagonal().any()
    same = (packed[:, None] == packed[None]).all(axis=2)
    assert np.array_equal(d == 0, same)
    assert (d[:, None, :] <= d[:, :, None] + d[None, :, :]).all()


def test_distances_in_chunks_equal_products_of_signs() -> None:
    rng = np.random.default_rng(0)
    few = BinaryCodes.from_relaxed(rng.standard_normal((90, 24)))
    many = BinaryCodes.from_relaxed(rng.standard_normal((7000, 24)))  # 37 rows a chunk
    assert np.array_equal(few.distances(many), (24 - few.to_signs() @ many.to_signs().T) / 2)


def test_distance_of_the_widest_codes() -> None:
    zeros, ones = (BinaryCodes.from_relaxed(np.full((1, MAX_BITS), v)) for v in (-1, 1))
    assert zeros.distances(ones).tolist() == [[MAX_BITS]]


def test_getitem_selects_rows() -> None:
    made = codes("00", "01", "02", "03")
    assert made[1:3] == codes("01", "02")
    assert made[::2] == codes("00", "02")
    assert made[[3, 0]] == codes("03", "00")
    assert made[np.array([False, True, False, True])] == codes("01", "03")
    assert made[[]] == BinaryCodes.empty(8)
    assert made[::2].distances(made[1::2]).tolist() == [[1, 2], [2, 1]]
    for row in (2, np.int64(2)):
        with pytest.raises(CodeError, match=r"codes\[2\] is one row; write codes\[2:3\]"):
            made[row]  # type: ignore[index]


def test_concatenate_joins_codes_of_one_width() -> None:
    assert BinaryCodes.concatenate([codes("0a"), BinaryCodes.empty(8), codes("0b", "0c")]) == codes(
        "0a", "0b", "0c"
    )
    with pytest.raises(CodeError, match=r"cannot join codes of \[8, 16\] bits"):
        BinaryCodes.concatenate([codes("00"), codes("0000")])
    with pytest.raises(CodeError, match="expected one width"):
        BinaryCodes.concatenate([])


def test_codes_are_equal_by_content_and_read_only() -> None:
    made = codes("00", "ff")
    assert made == codes("00", "ff")
    assert made != codes("00", "fe")
    assert made != codes("00")
    assert codes("0000") != codes("00", "00")
    assert made != "00ff"
    assert repr(made) == "BinaryCodes(2 codes of 8 bits)"
    with pytest.raises(TypeError, match="unhashable"):
        hash(made)
    with pytest.raises(ValueError, match="read-only"):
        made.packed[0] = 1
    with pytest.raises(AttributeError):
        made.bits = 16  # type: ignore[misc]


def test_input_array_stays_writeable() -> None:
    packed = np.zeros((1, 1), np.uint8)
    BinaryCodes(packed, 8)
    packed[0, 0] = 1
    assert packed.tolist() == [[1]]


def test_empty_codes() -> None:
    none = BinaryCodes.empty(16)
    assert (len(none), none.bits, none.to_hex()) == (0, 16, [])
    assert none.to_bits().shape == none.to_signs().shape == (0, 16)
    assert none.distances(codes("0000")).shape == (0, 1)
    assert codes("0000").distances(none).shape == (1, 0)
    assert BinaryCodes.from_hex([], 16) == none
    assert BinaryCodes.from_relaxed(np.zeros((0, 16))) == none


@pytest.mark.parametrize("bits", [0, -8, 7, 12, MAX_BITS + 8])
def test_check_bits_rejects_invalid_widths(bits: int) -> None:
    with pytest.raises(CodeError, match=f"bits is {bits}, expected a multiple of 8 between 8 and"):
        check_bits(bits)


@pytest.mark.parametrize("bits", [True, 8.0, "8", None])
def test_check_bits_rejects_other_types(bits: Any) -> None:
    with pytest.raises(CodeError, match="expected a whole number"):
        check_bits(bits)


def test_check_bits_returns_a_python_integer() -> None:
    assert type(check_bits(np.int64(16))) is int  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (np.zeros((2, 3), np.uint8), r"shape \(2, 3\), expected \(n, 2\) for 16 bits"),
        (np.zeros(2, np.uint8), r"shape \(2,\), expected \(n, 2\)"),
        (np.zeros((1, 2), np.int8), "are int8, expected a numpy array of uint8"),
        ([[0, 0]], "are list, expected a numpy array of uint8"),
    ],
)
def test_constructor_rejects_invalid_arrays(packed: Any, message: str) -> None:
    with pytest.raises(CodeError, match=message):
        BinaryCodes(packed, 16)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(8), r"shape \(8,\), expected \(n, bits\)"),
        (np.zeros((1, 2, 8)), r"shape \(1, 2, 8\)"),
        (np.zeros((3, 12)), "bits is 12, expected a multiple of 8"),
        (np.zeros((3, 0)), "bits is 0"),
        ([[0.0] * 8, [np.nan] * 8, [np.nan] * 8], r"2 relaxed codes .*NaN \(first in row 1\)"),
    ],
)
def test_from_relaxed_rejects_invalid_values(values: Any, message: str) -> None:
    with pytest.raises(CodeError, match=message):
        BinaryCodes.from_relaxed(values)


@pytest.mark.parametrize(
    ("texts", "bits", "message"),
    [
        (["0g"], None, "not hexadecimal"),
        (["000"], None, "not hexadecimal"),
        (["00", "0000"], None, "code '0000' has 16 bits, expected 8"),
        (["00"], 16, "code '00' has 8 bits, expected 16"),
        ([], None, "bits is 0"),
    ],
)
def test_from_hex_rejects_invalid_text(texts: list[str], bits: int | None, message: str) -> None:
    with pytest.raises(CodeError, match=message):
        BinaryCodes.from_hex(texts, bits)


def test_distances_rejects_two_widths() -> None:
    with pytest.raises(CodeError, match="cannot compare codes of 8 and 16 bits"):
        codes("00").distances(codes("0000"))
