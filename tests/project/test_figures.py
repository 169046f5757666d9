"""Figures of the pages about results: each decimal number is in a report of benchmarks/results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\([^)]*\)")
DECIMAL = re.compile(r"(?<![\w.])\d*\.\d+(?![\w.])")


def decimals(text: str) -> set[str]:
    """Return the decimal numbers of a text outside of links, without a leading 0."""
    return {number.lstrip("0") for number in DECIMAL.findall(LINK.sub("]", text))}


@pytest.mark.parametrize("page", ["results.md", "adversary.md"])
def test_every_decimal_number_is_in_a_report(page: str) -> None:
    reports = sorted((ROOT / "benchmarks/results").glob("*.md"))
    printed = set().union(*(decimals(report.read_text(encoding="utf-8")) for report in reports))
    found = decimals((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert len(found) > 20
    assert not sorted(found - printed)
