"""Markdown of the SCH-GAN tables: means, standard deviations, comparisons with target values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness import rows
from harness.jobs import Plan
from harness.report import table
from harness.results import BASELINES, DIRECTIONS, Results, Section, Values, shown
from harness.schgan_plans import GROUPS, group
from xmodal.training.methods.schgan_paper.config import FAULTS

METRICS = ("P@10", "P@100", "pair R@10")
TARGETS = {
    **{f"fashion-{text}-names-0": (0.66, 0.66) for text in ("minilm", "words")},
    **{f"fashion-{text}-names-5": (0.77, 0.78) for text in ("minilm", "words")},
    **{f"fashion-{text}-names-100": (0.86, 0.88) for text in ("minilm", "words")},
    **{f"fashion-{text}-removed-0": (0.37, 0.37) for text in ("minilm", "words")},
    **{f"fashion-{text}-removed-5": (0.45, 0.45) for text in ("minilm", "words")},
    "wikipedia-sift-lda-clean-100": (0.29, 0.23),
    "wikipedia-roph-tfidf-clean-100": (0.45, 0.40),
}
"""Target mAP image->text and text->image at 32 bits; the text encoder is not specified."""
WITH_GENERATOR = ("policy", "reinforce", "positives", "alone-policy")
WITHOUT_GENERATOR = ("random", "semi-hard", "plain")


# ---- A: the main table ---------------------------------------------------------------------------


def main(plan: Plan, results: Results) -> list[Section]:
    """Comparison with the targets, then mAP by group, then the other metrics."""
    tasks = list({job.task.name: job.task for job in plan.jobs}.values())
    names = [*BASELINES[:4], "policy", "default", BASELINES[4]]
    labels = {"policy": "xmodal, generator on", "default": "**xmodal**"}
    sections = [("Targets: the default settings at 32 bits", _targets(tasks, results))]
    for key, title in GROUPS.items():
        inside = [task for task in tasks if group(task) == key]
        if not inside:
            continue
        heads = [f"{c.share} %" if c.of == "fashion" else c.variant for c in inside]
        body = [["mAP", *(f"{head} {arrow}" for head in heads for arrow in ("i>t", "t>i"))]]
        for name in names:
            figures = [
                shown(results.values(task.name, name, w)) for task in inside for w in DIRECTIONS
            ]
            body.append([labels.get(name, name), *figures])
        heading = "share of labels" if inside[0].of == "fashion" else "protocol, all labels"
        sections.append((f"{title}: mAP by {heading}", table(body)))
    body = [["task", "row", *(f"{metric} {a}" for metric in METRICS for a in ("i>t", "t>i"))]]
    for task in tasks:
        for name in names:
            figures = [
                shown(results.values(task.name, name, w, m)) for m in METRICS for w in DIRECTIONS
            ]
            body.append([task.name, labels.get(name, name), *figures])
    return [*sections, ("Other metrics", table(body))]


def _targets(tasks: Sequence[Any], results: Results) -> str:
    head = ["task", "target i>t / t>i", "xmodal i>t", "t>i", "minus target", "target met"]
    body = [[*head, "above cca + itq", "above label codeword", "minus generator on (both)"]]
    for task in tasks:
        ours = [results.values(task.name, "default", direction) for direction in DIRECTIONS]
        target = TARGETS.get(task.name)
        above = [
            _above(ours, [results.values(task.name, name, direction) for direction in DIRECTIONS])
            for name in ("cca + itq", "label codeword")
        ]
        limits = [np.array([one]) for one in target] if target else []
        gap = " / ".join(
            f"{o.mean() - b[0]:+.3f}" for o, b in zip(ours, limits, strict=False) if len(o)
        )
        off = results.differences(task.name, "default", "policy", "both")
        expected = f"{target[0]:.2f} / {target[1]:.2f}" if target else "-"
        met = _above(ours, limits).partition(" ")[0] if target else "-"
        body.append(
            [task.name, expected, *map(shown, ours), gap or "-", met, *above, shown(off, "+")]
        )
    return table(body)


def _above(ours: Sequence[Values], other: Sequence[Values]) -> str:
    """Whether the mean is at least the other in both directions, and the smaller difference."""
    if not all(map(len, [*ours, *other])):
        return "-"
    gaps = [one.mean() - two.mean() for one, two in zip(ours, other, strict=True)]
    return f"{'yes' if min(gaps) >= 0 else '**no**'} {min(gaps):+.3f}"


# ---- B: the ablation -----------------------------------------------------------------------------


SIGNIFICANCE = ("more than twice its sd", "and than twice both rows'")
"""Conditions on a difference."""


def ablation(plan: Plan, results: Results) -> list[Section]:
    """Effect of the generator, then the rows of each task and their differences."""
    tasks = list(dict.fromkeys(job.task.name for job in plan.jobs))
    named = {job.row.name: job.row for job in plan.jobs if job.row}
    generators = [name for name in WITH_GENERATOR if name in named]
    summary, sections = [], []
    for task in tasks:
        head = ["row", "mAP i>t", "t>i", "both", "pair R@10 i>t", "t>i"]
        body = [[*head, "epochs", "updates", "seconds", "processor s", ""]]
        for name in [*BASELINES, *named]:
            if not results.of(task, name):
                continue
            figures = [
                shown(results.values(task, name, direction)) for direction in (*DIRECTIONS, "both")
            ]
            figures += [
                shown(results.values(task, name, direction, "pair R@10"))
                for direction in DIRECTIONS
            ]
            about = named[name].about if name in named else "baseline"
            body.append([name, *figures, *_budget(results.of(task, name)), about])
        paired = [["difference", "direction", "mean", "sd of it", "sd over seeds", *SIGNIFICANCE]]
        for generator in generators:
            for other in (one for one in _without_generator(generator) if one in named):
                lines = [
                    _difference(task, generator, other, direction, results)
                    for direction in (*DIRECTIONS, "both")
                ]
                if not lines[2]:
                    continue
                paired += lines
                summary.append([task, lines[2][0], *lines[2][2:4], *lines[2][5:]])
        tables = [table(body), *([table(paired)] if len(paired) > 1 else [])]
        sections.append((f"{task}: mAP at 32 bits", "\n\n".join(tables)))
    head = ["task", "difference", "mAP, mean of both directions, paired", "sd of it", *SIGNIFICANCE]
    note = (
        "\n\nA difference is significant if its mean is more than twice the standard deviation of "
        "the paired differences; in the last column, also more than twice that of either row over "
        "the seeds. Rows that a task lacks were not run on it."
    )
    return [("Effect of the generator", table([head, *summary]) + note), *sections]


def _without_generator(generator: str) -> tuple[str, ...]:
    """Rows without a generator that have the same losses."""
    return (
        ("alone-random", "alone-semi-hard") if generator.startswith("alone") else WITHOUT_GENERATOR
    )


def _difference(
    task: str, generator: str, other: str, direction: str, results: Results
) -> list[str]:
    gaps = results.differences(task, generator, other, direction)
    line = [
        f"{generator} - {other}",
        {DIRECTIONS[0]: "i>t", DIRECTIONS[1]: "t>i"}.get(direction, direction),
    ]
    if not len(gaps):
        return []
    if len(gaps) < 2:
        return [*line, shown(gaps, "+"), "-", "-", "-", "-"]
    paired = float(gaps.std(ddof=1))
    seeds = max(
        float(results.values(task, one, direction).std(ddof=1)) for one in (generator, other)
    )
    gain = float(gaps.mean())
    found = "**better**" if gain > 0 else "**worse**"
    words = [found if abs(gain) > 2 * sd else "no" for sd in (paired, max(paired, seeds))]
    return [*line, f"{gain:+.4f}", f"{paired:.4f}", f"{seeds:.4f}", *words]


def _budget(found: Sequence[dict[str, Any]]) -> list[str]:
    """Epochs, updates of each network (the hash network first), seconds; means over seeds."""
    if not found or "updates" not in found[0]:
        return ["-"] * 4
    networks = max(len(one["updates"]) for one in found)
    steps = [
        np.mean([one["updates"][i] if i < len(one["updates"]) else 0 for one in found])
        for i in range(networks)
    ]
    means = [np.mean([one[key] for one in found]) for key in ("epochs", "seconds")]
    processor = np.mean([one["processor_seconds"] for one in found])
    updates = " + ".join(f"{one:.0f}" for one in steps)
    return [f"{means[0]:.0f}", updates, f"{means[1]:.0f}", f"{processor:.0f}"]


# ---- C: the paper mode ---------------------------------------------------------------------------


_TIMES = ("seconds", "processor s")


def faithful(plan: Plan, results: Results) -> list[Section]:
    """The release, with and without its faults, with all baselines; then each fault."""
    official, released = "wikipedia-sift-lda-official-100", "wikipedia-sift-lda-released-100"
    names_official = [*BASELINES, "default", "paper", "paper-released"]
    body = [["row", "test pairs in training, unlabelled", "mAP i>t", "t>i", *_TIMES]]
    for task, names in ((official, names_official), (released, names_official[-2:])):
        for name in names:
            figures = [shown(results.values(task, name, direction)) for direction in DIRECTIONS]
            trains = f"yes ({rows.SMALL} units)" if task == released else "no"
            body.append([name, trains, *figures, *_budget(results.of(task, name))[2:]])
    faults = [["", "fault", "only this: i>t", "t>i", "loss", "all but this: i>t", "t>i", "gain"]]
    for number, (name, (alone, without)) in enumerate(rows.fault_rows().items(), 1):
        line = [str(number), name]
        for row, other, sign in ((alone, "paper", -1), (without, "paper-released", 1)):
            line += [
                shown(results.values(released, row.name, direction)) for direction in DIRECTIONS
            ]
            gaps = results.differences(released, row.name, other, "both")
            line.append(shown(sign * gaps, "+"))
        faults.append(line)
    notes = (
        f"\n\nTowers of {rows.SMALL} units, of 8192 in the table above. "
        "`loss`: corrected minus corrected except this fault; `gain`: as released except this "
        "fault minus as released; mean of both directions, paired by seed. Test pairs are in the "
        "training data without labels, as in the release. Without fault 5 the last epoch is "
        "evaluated, as there are no validation pairs; fault 5 selects it by the test queries. "
        "Settings of each fault: "
        + "; ".join(
            f"{i} " + ", ".join(f"`{k}={v}`" for k, v in settings.items())
            for i, settings in enumerate(FAULTS.values(), 1)
        )
        + "."
    )
    return [
        ("The release, baselines and the default settings", table(body)),
        ("Each fault", table(faults) + notes),
    ]


# ---- D: bits -------------------------------------------------------------------------------------


def bits(plan: Plan, results: Results) -> list[Section]:
    """mAP and code health by bits."""
    health = ("distinct", "largest_bucket", "entropy", "correlation")
    sections = []
    widths = sorted({job.bits for job in plan.jobs})
    for task in dict.fromkeys(job.task.name for job in plan.jobs):
        body = [
            ["bits", "mAP i>t", "t>i", "P@10 i>t", "t>i", "pair R@10 i>t", "t>i"]
            + [f"{name.replace('_', ' ')} {modality}" for name in health for modality in ("i", "t")]
        ]
        for width in widths:
            line = [str(width)]
            for metric in ("mAP", "P@10", "pair R@10"):
                line += [
                    shown(results.values(task, "default", direction, metric, width))
                    for direction in DIRECTIONS
                ]
            found = results.of(task, "default", width)
            for name in health:
                for modality in ("image", "text"):
                    line.append(shown(np.array([one["health"][modality][name] for one in found])))
            body.append(line)
        sections.append((f"{task}: the default settings", table(body)))
    note = (
        "Of the codes of the database. `distinct`: distinct codes / items; `largest bucket`: share "
        "of items with the most frequent code; `entropy`: mean entropy of a bit (1: balanced); "
        "`correlation`: mean absolute correlation of two bits."
    )
    return [*sections, ("Columns", note)]


# ---- single rows ---------------------------------------------------------------------------------


def single(plan: Plan, results: Results) -> list[Section]:
    """Some rows and the baselines: the tables of the ablation, without the summary."""
    return ablation(plan, results)[1:]
