"""Code health against values by hand."""

from __future__ import annotations

from math import isnan, log2

import pytest

from xmodal.codes import BinaryCodes
from xmodal.evaluation.code_health import code_health


def test_code_health_by_hand() -> None:
    # Bits 1 and 2 balanced and independent, bit 3 equal to bit 1; the other five constant.
    made = code_health(BinaryCodes.from_hex(["00", "40", "a0", "e0"]))
    assert made["distinct"] == 4 / 4
    assert made["largest_bucket"] == 1 / 4
    assert made["entropy"] == pytest.approx(3 / 8, abs=1e-9)
    assert made["correlation"] == pytest.approx(2 / (8 * 7), abs=1e-9)  # one pair, both ways
    equal = code_health(BinaryCodes.from_hex(["ff", "ff", "ff", "0f"]))
    assert (equal["distinct"], equal["largest_bucket"]) == (2 / 4, 3 / 4)
    quarter = -(0.25 * log2(0.25) + 0.75 * log2(0.75))
    assert equal["entropy"] == pytest.approx(4 * quarter / 8, abs=1e-9)
    assert equal["correlation"] == pytest.approx(4 * 3 / (8 * 7), abs=1e-9)
    assert all(isnan(value) for value in code_health(BinaryCodes.empty(8)).values())
