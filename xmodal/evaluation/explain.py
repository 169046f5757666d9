"""A report in words: what the figures mean, which baseline is ahead, and what to try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.data.split import Split
from xmodal.evaluation.report import MIN_MEASURED, Report, few_measured
from xmodal.modality import DIRECTIONS

FEW_TRAINED = 2000
"""Training units below which more data is proposed."""
MAX_USEFUL_BITS = 512
"""Width from which more bits are not proposed."""


def explain(
    report: Report, *, trained: int, builtin: bool, label_columns: Sequence[str] = ()
) -> list[str]:
    """Return lines about the query part of a report for readers who are new to the field.

    ``trained``: number of units in training. ``builtin``: whether a backbone is one of the built-in
    small ones. ``label_columns``: columns that could be read as labels.
    """
    lines = []
    found = report.captions.get("query")
    if found is not None:
        lines += few_measured(found["units"], "query")
        if found["units"] >= MIN_MEASURED:
            lines += [_hits_in_words(report, source) for source, _ in DIRECTIONS]
            lines += _comparisons(report)
    if report.rows:
        lines += _labels_in_words(report)
    if "labels" in report.facts:
        lines.append(f"by labels: {report.facts['labels']}")
    advice = _advice(report, trained, builtin, label_columns)
    return [*lines, *(["what to try:"] if advice else []), *(f"  - {line}" for line in advice)]


def labels_notice(split: Split) -> str | None:
    """Return a line if labels of this split cannot measure anything, else None.

    That is the case if there are labels, but no query shares one with another part. Training is
    possible nevertheless.
    """
    queries = [item for item in split.query if item.labels]
    others = {
        label
        for part in (split.train, split.validation, split.gallery)
        for item in part
        for label in item.labels or ()
    }
    if not others or not len(split.query):
        return None
    if any(others.intersection(item.labels or ()) for item in queries):
        return None
    return (
        f"nothing can be measured by labels: none of {len(split.query):,} queries has a label that "
        "also occurs outside of the queries; captions are measured"
    )


def _hits_in_words(report: Report, source: str) -> str:
    """Return a sentence about R@10 of one direction."""
    found = report.captions["query"]
    key = "image_to_text" if source == "image" else "text_to_image"
    share, chance = (100 * row[key]["r10"] for row in (found, found["baselines"]["chance"]))
    query, own, items = (
        ("pictures", "one of their captions", f"{found['captions']:,} captions")
        if source == "image"
        else ("captions", "their picture", f"{found['pictures']:,} pictures")
    )
    return (
        f"of 100 {query}, {share:.0f} find {own} among the first ten of {items}; by chance "
        f"{_small(chance)}"
    )


def _comparisons(report: Report) -> list[str]:
    """Return sentences about the best baseline with codes and the best without binarisation."""
    found, baselines = report.captions["query"], dict(report.captions["query"]["baselines"])
    baselines.pop("chance", None)
    lines = []
    for kind, is_float in ((f"codes of {found['bits']} bits", False), ("real numbers", True)):
        rows = {n: row for n, row in baselines.items() if n.startswith("float") == is_float}
        if rows:
            best = max(rows, key=lambda name: float(rows[name]["rsum"]))
            lines.append(_comparison(report.name, found, best, rows[best], kind))
    return lines


def _comparison(
    name: str, found: Mapping[str, Any], best: str, row: Mapping[str, Any], kind: str
) -> str:
    """Return a sentence that compares the sum of the six R@k with that of a baseline."""
    difference = found["rsum"] - row["rsum"]
    low, high = found["rsum_interval"]
    if low <= row["rsum"] <= high:
        state = "about as good as"
    else:
        state = "ahead of" if difference > 0 else "behind"
    return (
        f"{name} is {state} the best baseline with {kind}, {best}: {found['rsum']:.1f} against "
        f"{row['rsum']:.1f} (sum of R@1, R@5 and R@10 in both directions; 95 % interval "
        f"{low:.1f} to {high:.1f})"
    )


def _labels_in_words(report: Report) -> list[str]:
    """Return sentences about P@10 by labels, and about the baseline with the highest mAP."""
    if report.name not in report.rows:
        return []
    lines = []
    for direction, query, items in (
        ("text->image", "a text", "pictures"),
        ("image->text", "a picture", "texts"),
    ):
        own, chance = (100 * report.rows[row][direction]["P@10"] for row in (report.name, "chance"))
        lines.append(
            f"by labels: of 100 {items} among the first ten of {query}, {own:.0f} share a label "
            f"with it; by chance {_small(chance)}"
        )
    means = {
        name: sum(figures["mAP"] for figures in row.values()) / len(row)
        for name, row in report.rows.items()
        if name != "chance"
    }
    own_mean = means.pop(report.name)
    if means:
        best = max(means, key=means.__getitem__)
        state = "ahead of" if own_mean > means[best] else "behind"
        lines.append(
            f"by labels: {report.name} is {state} the best baseline, {best}: mAP {own_mean:.3f} "
            f"against {means[best]:.3f}"
        )
    return lines


def _advice(report: Report, trained: int, builtin: bool, label_columns: Sequence[str]) -> list[str]:
    """Return proposals that fit the figures, most useful first."""
    advice = []
    found = report.captions.get("query")
    if builtin:
        advice.append(
            "pretrained backbones instead of small-cnn and words: --image-backbone NAME "
            "--text-backbone NAME"
        )
    if trained < FEW_TRAINED:
        advice.append(f"more data: {trained:,} pictures in training are few")
    if found is not None and found["units"] >= MIN_MEASURED:
        real = [row for name, row in found["baselines"].items() if name.startswith("float")]
        real += [found["outputs"]] if "outputs" in found else []
        ahead = any(row["rsum"] > found["rsum_interval"][1] for row in real)
        if ahead and found["bits"] < MAX_USEFUL_BITS:
            advice.append(
                f"more bits: --bits {min(2 * found['bits'], MAX_USEFUL_BITS)} (real numbers find "
                "more than these codes)"
            )
    advice += [f"labels: --label-column {name}" for name in label_columns]
    return advice


def _small(percent: float) -> str:
    """Return a number with as many digits as tell it from 0."""
    return f"{percent:.0f}" if percent >= 0.95 else f"{percent:.1g}"
