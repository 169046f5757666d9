"""Reports: JSON, table, text, and the mean over seeds."""

from __future__ import annotations

import json
from dataclasses import replace
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
    assert lines[0] == "t, labels"
    assert "bits: 8" in lines
    assert "code health, image: e 0.500" in lines


# ---- captions ---------------------------------------------------------------------------------


def caption_row(r10: float, rank: float = 3.0) -> dict[str, Any]:
    """Figures of one method; all but R@10 and the rank are fixed."""
    figures = {"r1": 0.1, "r5": 0.2, "r10": r10, "median_rank": rank}
    intervals = {f"{name}_interval": [value / 2, value * 2] for name, value in figures.items()}
    directions = {name: figures | intervals for name in ("image_to_text", "text_to_image")}
    rsum = 200 * (0.3 + r10)
    return directions | {"rsum": rsum, "rsum_interval": [rsum - 5, rsum + 5]}


def caption_report(r10: float) -> Report:
    baselines = {"float cosine (cca)": caption_row(0.6), "chance": caption_row(0.01, 50.5)}
    found = {"units": 60, "pictures": 60, "captions": 1200, "bits": 8, **caption_row(r10)}
    captions = {"query": found | {"outputs": caption_row(0.7), "baselines": baselines}}
    return replace(report_of(0.5), rows={}, captions=captions, name="xmodal schgan")


def test_caption_table_is_in_percent_with_float_rows_behind_the_codes() -> None:
    [(title, table)] = caption_report(0.4).tables()
    assert "query part" in title and "1,200 captions" in title
    arrows = [
        f"{name} {arrow}" for arrow in ("i>t", "t>i") for name in ("R@1", "R@5", "R@10", "rank")
    ]
    assert table[0] == ["method", *arrows, "rsum"]
    names = ["chance", "xmodal schgan", "xmodal schgan, float outputs", "float cosine (cca)"]
    assert [row[0] for row in table[1:]] == names
    assert table[2][1:] == ["10.0", "20.0", "40.0", "3.0"] * 2 + ["140.0"]
    assert table[1][4] == "50.5"


def test_caption_figures_of_seeds_are_combined_with_deviations_beside_them() -> None:
    combined = combine([caption_report(0.4), caption_report(0.6)])
    found = combined.captions["query"]
    assert (found["pictures"], combined.seeds, combined.name) == (60, 2, "xmodal schgan")
    assert found["text_to_image"]["r10"] == pytest.approx(0.5)
    assert found["text_to_image"]["r10_sd"] == pytest.approx(0.02**0.5)
    assert found["text_to_image"]["r10_interval"] == pytest.approx([0.25, 1.0])
    assert found["baselines"]["chance"]["image_to_text"]["r10_sd"] == 0
    assert combined.caption_table("query")[2][3] == "50.0±14.1"
    json.loads(combined.to_json())


def test_report_has_both_tables_and_the_interval_as_a_note() -> None:
    report = replace(report_of(0.5), captions=caption_report(0.4).captions)
    assert [title.split(",")[1] for title, _ in report.tables()] == [
        " captions of the query part",
        " labels",
    ]
    assert (
        "95 % intervals of xmodal, query: R@10 20.0 to 80.0 | 20.0 to 80.0, rsum 135.0 to 145.0"
        in report.notes()
    )


def test_headline_has_both_measures_and_leaves_out_few_units() -> None:
    report = replace(report_of(0.5), captions=caption_report(0.4).captions, name="codes")
    assert report.headline() == {
        "R@10 image->text": 0.4,
        "mAP image->text": 0.5,
        "R@10 text->image": 0.4,
        "mAP text->image": 0.5,
    }
    few = caption_report(1.0)
    few.captions["query"]["units"] = 2
    assert few.headline() == {}
    assert few.notes()[0].startswith("warning: the query part has only 2")
