"""Markdown of the methods table: results, and the effect of each method's adversary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.jobs import Plan
from harness.report import table
from harness.results import BASELINES, DIRECTIONS, Results, Section, Values, shown

ARROWS = ("i>t", "t>i")
HEALTH = ("distinct", "largest_bucket", "entropy", "correlation")
EARLIER = {
    "wikipedia-sift-lda-clean-100": ("label codeword", 0.269, 0.207),
    "wikipedia-roph-tfidf-clean-100": ("label codeword", 0.421, 0.367),
    "wikipedia-sift-lda-official-100": ("published SCM, real-valued", 0.277, 0.226),
    "fashion-minilm-names-100": ("CCA + ITQ", 0.626, 0.630),
    "fashion-minilm-removed-100": ("CCA + ITQ", 0.340, 0.339),
}
"""Best mAP at 32 bits before this project, image -> text and text -> image, by task."""


def sections(plan: Plan, results: Results) -> list[Section]:
    """The sections of the report: notes, comparison of each adversary, all results."""
    found = {job.row.name: job.row for job in plan.jobs if job.row}
    widths = sorted({job.bits for job in plan.jobs}, key=lambda bits: (bits != 32, bits))
    tasks = {
        bits: list(dict.fromkeys(j.task.name for j in plan.jobs if j.bits == bits))
        for bits in widths
    }
    count = len({job.seed for job in plan.jobs})
    about = (
        f"Mean ± standard deviation over {count} seeds, which also determine the labelled pairs; "
        "expected mAP over ties; `i>t`: image queries, text database. A task is named by its data "
        "set, features, protocol and percentage of labelled training pairs "
        "(benchmarks/harness/tasks.py). No validation pairs: the last epoch is evaluated."
    )
    rows = [["row", "method", "description"], *([n, r.method, r.about] for n, r in found.items())]
    notes = "\n".join([about, "", *results.notes(), "", table(rows)])
    out = [
        ("How to read", notes),
        ("Effect of each method's adversary", _adversary(found, results, tasks)),
    ]
    if 32 in tasks:
        out.append(
            ("The best row at 32 bits, compared with earlier results", _best(found, results))
        )
    for bits, names in tasks.items():
        out.append((f"mAP at {bits} bits", _maps(names, list(found), bits, results)))
    width = widths[0]
    for task in tasks[width]:
        if task.endswith("-100"):
            body = _health(task, list(found), width, results)
            out.append((f"{task} at {width} bits: codes of the database, time and memory", body))
    out.append(("Columns", LEGEND))
    return out


LEGEND = (
    "`distinct`: distinct codes / items; `largest bucket`: share of items with the most frequent "
    "code; `entropy`: mean entropy of a bit (1: balanced); `correlation`: mean absolute one of two "
    "bits; `i`: image codes, `t`: text codes. `pair R@10`: share of queries whose pair is "
    "among the first ten. `memory`: peak memory of the training process, with data and torch."
)


def _adversary(found: dict[str, Any], results: Results, tasks: dict[int, list[str]]) -> str:
    body = [
        [
            "method",
            "task",
            "bits",
            "on - off, both directions",
            "sd, paired",
            "more than twice both sd",
        ]
    ]
    for method, (on, off) in switches(found).items():
        for bits, names in tasks.items():
            for task in names:
                gaps = results.differences(task, on, off, "both", bits)
                if not len(gaps):
                    continue
                line = [method, task, str(bits), f"{gaps.mean():+.4f}"]
                body.append([*line, *_significance(gaps, task, (on, off), bits, results)])
    return table(body)


def _significance(
    gaps: Values, task: str, pair: tuple[str, str], bits: int, results: Results
) -> list[str]:
    if len(gaps) < 2:
        return ["-", "-"]
    paired = float(gaps.std(ddof=1))
    seeds = [results.values(task, name, "both", bits=bits).std(ddof=1) for name in pair]
    significant = abs(float(gaps.mean())) > 2 * max(paired, *map(float, seeds))
    word = ("yes" if gaps.mean() > 0 else "**worse**") if significant else "no"
    return [f"{paired:.4f}", word]


def switches(found: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """By method, the names of its rows with its adversary on and off: NAME and NAME-off."""
    return {
        row.method: (name, f"{name}-off") for name, row in found.items() if f"{name}-off" in found
    }


def _best(found: dict[str, Any], results: Results) -> str:
    body = [
        ["task", "earlier result", "i>t", "t>i", "best row", *ARROWS, "above in both directions"]
    ]
    for task, (source, *limits) in EARLIER.items():
        values = {name: results.values(task, name, "both") for name in found}
        values = {name: one for name, one in values.items() if len(one)}
        if not values:
            continue
        best = max(values, key=lambda name: float(values[name].mean()))
        ours = [results.values(task, best, direction) for direction in DIRECTIONS]
        above = all(one.mean() > limit for one, limit in zip(ours, limits, strict=True))
        line = [task, source, *(f"{limit:.3f}" for limit in limits), best]
        body.append([*line, *map(shown, ours), "yes" if above else "**no**"])
    return table(body)


def _maps(tasks: Sequence[str], found: Sequence[str], bits: int, results: Results) -> str:
    body = [["row", *(f"{task} {arrow}" for task in tasks for arrow in ARROWS)]]
    for name in [*BASELINES, *found]:
        figures = [
            shown(results.values(task, name, direction, bits=bits))
            for task in tasks
            for direction in DIRECTIONS
        ]
        if any(one != "-" for one in figures):
            body.append([name, *figures])
    return table(body)


def _health(task: str, found: Sequence[str], bits: int, results: Results) -> str:
    heads = [f"{name.replace('_', ' ')} {modality}" for name in HEALTH for modality in ("i", "t")]
    body = [["row", "pair R@10 i>t", "t>i", *heads, "seconds", "processor s", "memory, MB"]]
    for name in found:
        results_of = results.of(task, name, bits)
        if not results_of:
            continue
        line = [name]
        line += [
            shown(results.values(task, name, direction, "pair R@10", bits))
            for direction in DIRECTIONS
        ]
        for figure in HEALTH:
            for modality in ("image", "text"):
                values = [one["health"][modality][figure] for one in results_of]
                line.append(shown(np.array(values)))
        for key in ("seconds", "processor_seconds", "memory"):
            known = [one[key] for one in results_of if one.get(key) is not None]
            line.append(f"{np.mean(known):.0f}" if known else "-")
        body.append(line)
    return table(body)
