"""The table of all methods in Markdown: figures, and whether each adversary pays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.report import table
from harness.schgan_plans import Plan
from harness.schgan_tables import BASELINES, WAYS, Results, Section, Values, shown

ARROWS = ("i>t", "t>i")
HEALTH = ("distinct", "largest_bucket", "entropy", "correlation")
FIGURES = {
    "wikipedia-sift-lda-clean-100": ("label codeword", 0.269, 0.207),
    "wikipedia-roph-tfidf-clean-100": ("label codeword", 0.421, 0.367),
    "wikipedia-sift-lda-official-100": ("published SCM, real-valued", 0.277, 0.226),
    "fashion-minilm-names-100": ("CCA + ITQ", 0.626, 0.630),
    "fashion-minilm-removed-100": ("CCA + ITQ", 0.340, 0.339),
}
"""mAP over all points at 32 bits that others reached, before this project: figures to beat."""


def sections(plan: Plan, results: Results) -> list[Section]:
    """How to read them, then verdicts, then all figures."""
    found = {job.row.name: job.row for job in plan.jobs if job.row}
    widths = sorted({job.bits for job in plan.jobs}, key=lambda bits: (bits != 32, bits))
    cells = {
        bits: list(dict.fromkeys(j.cell.name for j in plan.jobs if j.bits == bits))
        for bits in widths
    }
    count = len({job.seed for job in plan.jobs})
    about = (
        f"Mean ± standard deviation over {count} seeds, which also say who is labelled; expected "
        "mAP; `i>t`: a picture asks, texts are searched. A cell is named by its set, features and "
        "protocol (harness/tasks.py), the share of labels in training last. No validation pairs: "
        "the last epoch counts, nothing is chosen on anything."
    )
    rows = [["row", "method", "what"], *([n, r.method, r.about] for n, r in found.items())]
    notes = "\n".join([about, "", *results.notes(), "", table(rows)])
    out = [("How to read", notes), ("Does its own adversary pay?", _pays(found, results, cells))]
    if 32 in cells:
        out.append(("The best at 32 bits against figures to beat", _best(found, results)))
    for bits, names in cells.items():
        out.append((f"mAP at {bits} bits", _maps(names, list(found), bits, results)))
    width = widths[0]
    for cell in cells[width]:
        if cell.endswith("-100"):
            body = _health(cell, list(found), width, results)
            out.append((f"{cell} at {width} bits: codes of the database, and their price", body))
    out.append(("What the columns say", LEGEND))
    return out


LEGEND = (
    "`distinct`: share of different codes; `largest bucket`: share of items on the commonest code; "
    "`entropy`: of a bit, 1 is balanced; `correlation`: mean absolute one of two bits; `i`: of "
    "pictures, `t`: of texts. `pair R@10`: a query's own other half is among the first ten. "
    "`memory`: the most that the process used while it trained, the data and torch included."
)


def _pays(found: dict[str, Any], results: Results, cells: dict[int, list[str]]) -> str:
    body = [
        ["method", "cell", "bits", "on - off, both ways", "sd, paired", "more than twice both sd"]
    ]
    for method, (on, off) in switches(found).items():
        for bits, names in cells.items():
            for cell in names:
                gaps = results.differences(cell, on, off, "both", bits)
                if not len(gaps):
                    continue
                line = [method, cell, str(bits), f"{gaps.mean():+.4f}"]
                body.append([*line, *_verdict(gaps, cell, (on, off), bits, results)])
    return table(body)


def _verdict(
    gaps: Values, cell: str, pair: tuple[str, str], bits: int, results: Results
) -> list[str]:
    if len(gaps) < 2:
        return ["-", "-"]
    paired = float(gaps.std(ddof=1))
    seeds = [results.values(cell, name, "both", bits=bits).std(ddof=1) for name in pair]
    sure = abs(float(gaps.mean())) > 2 * max(paired, *map(float, seeds))
    word = ("yes" if gaps.mean() > 0 else "**worse**") if sure else "no"
    return [f"{paired:.4f}", word]


def switches(found: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """By method, its rows with its own adversary on and off: NAME and NAME-off."""
    return {
        row.method: (name, f"{name}-off") for name, row in found.items() if f"{name}-off" in found
    }


def _best(found: dict[str, Any], results: Results) -> str:
    body = [["cell", "figure of", "i>t", "t>i", "best row", *ARROWS, "above both ways"]]
    for cell, (whose, *limits) in FIGURES.items():
        values = {name: results.values(cell, name, "both") for name in found}
        values = {name: one for name, one in values.items() if len(one)}
        if not values:
            continue
        best = max(values, key=lambda name: float(values[name].mean()))
        ours = [results.values(cell, best, way) for way in WAYS]
        above = all(one.mean() > limit for one, limit in zip(ours, limits, strict=True))
        line = [cell, whose, *(f"{limit:.3f}" for limit in limits), best]
        body.append([*line, *map(shown, ours), "yes" if above else "**no**"])
    return table(body)


def _maps(cells: Sequence[str], found: Sequence[str], bits: int, results: Results) -> str:
    body = [["row", *(f"{cell} {arrow}" for cell in cells for arrow in ARROWS)]]
    for name in [*BASELINES, *found]:
        figures = [
            shown(results.values(cell, name, way, bits=bits)) for cell in cells for way in WAYS
        ]
        if any(one != "-" for one in figures):
            body.append([name, *figures])
    return table(body)


def _health(cell: str, found: Sequence[str], bits: int, results: Results) -> str:
    heads = [f"{name.replace('_', ' ')} {side}" for name in HEALTH for side in ("i", "t")]
    body = [["row", "pair R@10 i>t", "t>i", *heads, "seconds", "processor s", "memory, MB"]]
    for name in found:
        results_of = results.of(cell, name, bits)
        if not results_of:
            continue
        line = [name]
        line += [shown(results.values(cell, name, way, "pair R@10", bits)) for way in WAYS]
        for what in HEALTH:
            for side in ("image", "text"):
                line.append(shown(np.array([one["health"][side][what] for one in results_of])))
        for key in ("seconds", "processor_seconds", "memory"):
            known = [one[key] for one in results_of if one.get(key) is not None]
            line.append(f"{np.mean(known):.0f}" if known else "-")
        body.append(line)
    return table(body)
