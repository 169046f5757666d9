"""The report in words: figures, the baseline that is ahead, advice and warnings."""

from __future__ import annotations

from typing import Any

import pytest

from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.data.split import Split
from xmodal.evaluation.explain import explain, labels_notice
from xmodal.evaluation.report import Report, few_measured


def row(r10: float, rsum: float) -> dict[str, Any]:
    figures = {name: {"r10": r10} for name in ("image_to_text", "text_to_image")}
    return figures | {"rsum": rsum, "rsum_interval": [rsum - 8, rsum + 8]}


def report_of(units: int = 1000, *, itq: float = 180, cca: float = 220) -> Report:
    baselines = {"chance": row(0.002, 3), "cca + itq": row(0.4, itq), "sign": row(0.2, 60)}
    baselines["float cosine (cca)"] = row(0.6, cca)
    found = {"units": units, "pictures": units, "captions": 5000, "bits": 128, **row(0.49, 200)}
    captions = {"query": found | {"baselines": baselines}}
    return Report("t", {}, {}, {}, captions=captions, name="xmodal schgan")


def test_figures_are_told_as_counts_of_hundred_beside_chance() -> None:
    lines = explain(report_of(), trained=6000, builtin=False)
    assert lines[:2] == [
        "of 100 pictures, 49 find one of their captions among the first ten of 5,000 captions; by "
        "chance 0.2",
        "of 100 captions, 49 find their picture among the first ten of 1,000 pictures; by chance "
        "0.2",
    ]


@pytest.mark.parametrize(
    ("itq", "state"), [(180, "ahead of"), (205, "about as good"), (230, "behind")]
)
def test_the_best_baseline_of_equal_size_is_compared(itq: float, state: str) -> None:
    lines = explain(report_of(itq=itq), trained=6000, builtin=False)
    [line] = [line for line in lines if "cca + itq" in line]
    assert state in line and f"200.0 against {itq}.0" in line and "128 bits" in line


def test_advice_fits_the_figures() -> None:
    def advice(**options: Any) -> str:
        values = {"trained": 6000, "builtin": False} | options
        report = report_of(cca=values.pop("cca", 220))
        lines = explain(report, **values)
        return "\n".join(line for line in lines if line.startswith("  - "))

    assert "--bits 256" in advice() and "more data" not in advice()
    assert advice(cca=150) == ""
    assert "--image-backbone" in advice(builtin=True)
    assert "more data: 90 pictures" in advice(trained=90)
    assert "--label-column kind" in advice(label_columns=["kind"])


def test_figures_of_few_pictures_are_a_warning() -> None:
    lines = explain(report_of(2), trained=10, builtin=True)
    assert lines[0].startswith("warning: the query part has only 2 pictures")
    assert not any("of 100" in line or "baseline" in line for line in lines)
    assert few_measured(1, "validation")[0].count("1 picture with") == 1
    assert few_measured(20, "query") == []


def test_labels_that_measured_nothing_are_told() -> None:
    report = Report("t", {}, {"labels": "no query shares a label"}, {})
    assert explain(report, trained=5000, builtin=False) == ["by labels: no query shares a label"]


def test_labels_are_told_beside_chance_and_the_best_baseline() -> None:
    def figures(value: float) -> dict[str, dict[str, float]]:
        return {way: {"mAP": value, "P@10": value} for way in ("image->text", "text->image")}

    rows = {"chance": figures(0.1), "xmodal": figures(0.5), "label codeword": figures(0.6)}
    lines = explain(Report("t", rows, {}, {}), trained=5000, builtin=False)
    assert lines[0].startswith("by labels: of 100 pictures among the first ten of a text, 50 share")
    assert "behind the best baseline, label codeword: mAP 0.500 against 0.600" in lines[2]


def test_labels_that_measure_nothing_are_noticed_before_training() -> None:
    def split_of(query: list[str | None], others: list[str | None]) -> Split:
        def items(prefix: str, labels: list[str | None]) -> Dataset:
            return Dataset(
                tuple(
                    Item(f"{prefix}{number}", labels=None if label is None else (label,))
                    for number, label in enumerate(labels)
                )
            )

        return Split(items("t", others), items("v", []), items("q", query), items("g", []))

    notice = labels_notice(split_of(["a", "b"], ["c", "d"]))
    assert notice is not None and "none of 2 queries" in notice
    assert labels_notice(split_of(["a", "c"], ["c", "d"])) is None
    assert labels_notice(split_of([None], ["c"])) is not None
    assert labels_notice(split_of([None], [None])) is None  # no labels: nothing to notice
    assert labels_notice(split_of([], ["c"])) is None
