"""Reports: JSON, table, text, and the mean over seeds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from xmodal.evaluation.report import Report, combine

DIRECTION_NAMES = ("image->text", "text->image")


def report_of(value: float) -> Report:
    figures = {"mAP": value, "P@10": value / 2, "pair R@10": 1.0}
    return Report(
        "t",
        {"codes": {name: dict(figures) for name in DIRECTION_NAMES}},
        {"bits": 8},
        {"image": {"e": value}},
    )


def test_combine_returns_mean_and_standard_deviation() -> None:
    combined = combine([report_of(value) for value in (0.2, 0.3, 0.7)])
    figures, spread = (x["codes"]["text->image"] for x in (combined.rows, combined.spread))
    assert figures["mAP"] == pytest.approx((0.2 + 0.3 + 0.7) / 3)
    # Deviations from 0.4: -0.2, -0.1, 0.3; divided by n - 1 = 2
    assert spread["mAP"] == pytest.approx(((0.04 + 0.01 + 0.09) / 2) ** 0.5)
    assert spread["pair R@10"] == 0 and combined.seeds == 3
    assert combined.health["image"]["e"] == pytest.approx(0.4)
    assert "0.400±0.265" in combined.text() and "over 3 seeds" in combined.text()


def test_combine_returns_a_single_report_unchanged() -> None:
    report = report_of(0.5)
    assert combine([report]) is report and "±" not in report.text()


def parse_strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_report_json_has_null_instead_of_nan() -> None:
    figures = {"mAP": float("nan"), "P@10": 0.5}
    report = Report(
        "t", {"codes": dict.fromkeys(DIRECTION_NAMES, figures)}, {"bits": 8}, {"image": {}}
    )
    written = parse_strict_json(report.to_json())
    assert written["rows"]["codes"]["image->text"] == {"mAP": None, "P@10": 0.5}


def test_report_table_and_text() -> None:
    report = report_of(0.5)
    header, *rows = report.table(["mAP", "unknown"])
    assert header == ["method", "mAP i>t", "mAP t>i", "unknown i>t", "unknown t>i"]
    assert rows == [["codes", "0.500", "0.500", "-", "-"]]
    lines = report.text().splitlines()
    assert lines[0] == "t"
    assert "bits: 8" in lines
    assert "code health, image: e 0.500" in lines
