"""The SCH-GAN tables in Markdown: means, spreads, and whether bars and claims hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rows
from jobs import MODEL, Job, Places, known
from plans import GROUPS, Plan, group
from record import table

from xmodal.training.methods.schgan_paper.config import FAULTS

WAYS = ("image->text", "text->image")
METRICS = ("P@10", "P@100", "pair R@10")
BASELINES = ("chance", "sign", "cca + itq", "label codeword", "float cosine (cca)")
BARS = {
    **{f"fashion-{text}-names-0": (0.66, 0.66) for text in ("minilm", "words")},
    **{f"fashion-{text}-names-5": (0.77, 0.78) for text in ("minilm", "words")},
    **{f"fashion-{text}-names-100": (0.86, 0.88) for text in ("minilm", "words")},
    **{f"fashion-{text}-removed-0": (0.37, 0.37) for text in ("minilm", "words")},
    **{f"fashion-{text}-removed-5": (0.45, 0.45) for text in ("minilm", "words")},
    "wikipedia-sift-lda-clean-100": (0.29, 0.23),
    "wikipedia-roph-tfidf-clean-100": (0.45, 0.40),
}
"""mAP image->text and text->image at 32 bits; which text they are for, nobody said."""
GENERATORS = ("policy", "reinforce", "positives", "alone-policy")
RIVALS = ("random", "semi-hard", "plain")
Values = npt.NDArray[np.float64]
Section = tuple[str, str]


class Results:
    """What the jobs of a plan left, by cell, row and bits; seeds in order."""

    def __init__(self, jobs: Iterable[Job], places: Places) -> None:
        self.found: dict[tuple[str, str, int], dict[int, dict[str, Any]]] = {}
        self.missing = 0
        strange: set[str] = set()
        for job in jobs:
            result = known(job, places)
            if result is None:
                self.missing += 1
                continue
            name = job.row.name if job.row else "baselines"
            self.found.setdefault((job.cell.name, name, job.bits), {})[job.seed] = result
            if result["code"] != job.code():
                strange.add(str(job.path(places)))
        self.strange = len(strange)

    def of(self, cell: str, row: str, bits: int = 32) -> list[dict[str, Any]]:
        """Results of a row, or of the baselines, in order of the seeds."""
        kept = self.found.get((cell, "baselines" if row in BASELINES else row, bits), {})
        return [kept[seed] for seed in sorted(kept)]

    def seeds(self, cell: str, row: str, bits: int = 32) -> list[int]:
        """Which there are."""
        return sorted(self.found.get((cell, "baselines" if row in BASELINES else row, bits), {}))

    def values(self, cell: str, row: str, way: str, metric: str = "mAP", bits: int = 32) -> Values:
        """A figure of each seed; ``way`` "both" is the mean of both directions. May be empty."""
        name = row if row in BASELINES else MODEL
        ways = WAYS if way == "both" else (way,)
        each = [
            np.mean([np.nan if (v := one["figures"][name][w][metric]) is None else v for w in ways])
            for one in self.of(cell, row, bits)
            if name in one["figures"]
        ]
        return np.array(each, dtype=np.float64)

    def differences(self, cell: str, row: str, other: str, way: str, bits: int = 32) -> Values:
        """Row minus other, seed by seed where both have it."""
        one, two = (self.values(cell, name, way, bits=bits) for name in (row, other))
        left, right = self.seeds(cell, row, bits), self.seeds(cell, other, bits)
        shared = [seed for seed in left if seed in right]
        return np.array([one[left.index(seed)] - two[right.index(seed)] for seed in shared])

    def notes(self) -> list[str]:
        """What a reader has to know before any figure."""
        lines = []
        if self.missing:
            lines.append(f"- **{self.missing} results are missing**: `-` stands for them")
        if self.strange:
            lines.append(f"- {self.strange} results come from other code than today's (`--fresh`)")
        return lines


def shown(values: Values, sign: str = "") -> str:
    """Mean ± standard deviation (n - 1)."""
    if not len(values):
        return "-"
    mean = f"{values.mean():{sign}.3f}"
    return mean if len(values) < 2 else f"{mean}±{values.std(ddof=1):.3f}"


# ---- A: the main table ---------------------------------------------------------------------------


def main(plan: Plan, results: Results) -> list[Section]:
    """Bars first, then mAP by group, then the other figures."""
    cells = list({job.cell.name: job.cell for job in plan.jobs}.values())
    names = [*BASELINES[:4], "policy", "default", BASELINES[4]]
    called = {"policy": "xmodal, generator on", "default": "**xmodal**"}
    sections = [("Bars: the shipped default at 32 bits", _bars(cells, results))]
    for key, title in GROUPS.items():
        inside = [cell for cell in cells if group(cell) == key]
        if not inside:
            continue
        heads = [f"{c.share} %" if c.of == "fashion" else c.variant for c in inside]
        body = [["mAP", *(f"{head} {arrow}" for head in heads for arrow in ("i>t", "t>i"))]]
        for name in names:
            figures = [shown(results.values(cell.name, name, w)) for cell in inside for w in WAYS]
            body.append([called.get(name, name), *figures])
        what = "share of labels" if inside[0].of == "fashion" else "protocol, all labels"
        sections.append((f"{title}: mAP by {what}", table(body)))
    body = [["cell", "row", *(f"{metric} {a}" for metric in METRICS for a in ("i>t", "t>i"))]]
    for cell in cells:
        for name in names:
            figures = [shown(results.values(cell.name, name, w, m)) for m in METRICS for w in WAYS]
            body.append([cell.name, called.get(name, name), *figures])
    return [*sections, ("The other figures", table(body))]


def _bars(cells: Sequence[Any], results: Results) -> str:
    head = ["cell", "bar i>t / t>i", "xmodal i>t", "t>i", "minus bar", "bar met"]
    body = [[*head, "above cca + itq", "above label codeword", "against generator on (both)"]]
    for cell in cells:
        ours = [results.values(cell.name, "default", way) for way in WAYS]
        bar = BARS.get(cell.name)
        above = [
            _above(ours, [results.values(cell.name, name, way) for way in WAYS])
            for name in ("cca + itq", "label codeword")
        ]
        limits = [np.array([one]) for one in bar] if bar else []
        gap = " / ".join(
            f"{o.mean() - b[0]:+.3f}" for o, b in zip(ours, limits, strict=False) if len(o)
        )
        off = results.differences(cell.name, "default", "policy", "both")
        wanted = f"{bar[0]:.2f} / {bar[1]:.2f}" if bar else "-"
        met = _above(ours, limits).partition(" ")[0] if bar else "-"
        body.append(
            [cell.name, wanted, *map(shown, ours), gap or "-", met, *above, shown(off, "+")]
        )
    return table(body)


def _above(ours: Sequence[Values], other: Sequence[Values]) -> str:
    """Whether the mean is at least the other in both directions, and by how much at least."""
    if not all(map(len, [*ours, *other])):
        return "-"
    gaps = [one.mean() - two.mean() for one, two in zip(ours, other, strict=True)]
    return f"{'yes' if min(gaps) >= 0 else '**no**'} {min(gaps):+.3f}"


# ---- B: the ablation -----------------------------------------------------------------------------


SURE = ("more than twice its sd", "and than twice both rows'")
"""What is asked of a difference."""


def ablation(plan: Plan, results: Results) -> list[Section]:
    """Verdicts first, then the rows of each cell and their differences."""
    cells = list(dict.fromkeys(job.cell.name for job in plan.jobs))
    named = {job.row.name: job.row for job in plan.jobs if job.row}
    leaders = [name for name in GENERATORS if name in named]
    verdicts, sections = [], []
    for cell in cells:
        head = ["row", "mAP i>t", "t>i", "both", "pair R@10 i>t", "t>i"]
        body = [[*head, "epochs", "updates", "seconds", "processor s", ""]]
        for name in [*BASELINES, *named]:
            if not results.of(cell, name):
                continue
            figures = [shown(results.values(cell, name, way)) for way in (*WAYS, "both")]
            figures += [shown(results.values(cell, name, way, "pair R@10")) for way in WAYS]
            about = named[name].about if name in named else "baseline"
            body.append([name, *figures, *_budget(results.of(cell, name)), about])
        paired = [["difference", "way", "mean", "sd of it", "sd over seeds", *SURE]]
        for leader in leaders:
            for rival in (one for one in _rivals(leader) if one in named):
                lines = [_claim(cell, leader, rival, way, results) for way in (*WAYS, "both")]
                if not lines[2]:
                    continue
                paired += lines
                verdicts.append([cell, lines[2][0], *lines[2][2:4], *lines[2][5:]])
        tables = [table(body), *([table(paired)] if len(paired) > 1 else [])]
        sections.append((f"{cell}: mAP at 32 bits", "\n\n".join(tables)))
    head = ["cell", "difference", "mAP, mean of both ways, paired", "sd of it", *SURE]
    note = (
        "\n\nA difference counts if its mean is more than twice the standard deviation of the "
        "paired differences; the last column asks for more than twice that of either row over the "
        "seeds as well. Rows that a cell lacks were not run there."
    )
    return [("Does the adversary pay?", table([head, *verdicts]) + note), *sections]


def _rivals(leader: str) -> tuple[str, ...]:
    """Rows with the same losses."""
    return ("alone-random", "alone-semi-hard") if leader.startswith("alone") else RIVALS


def _claim(cell: str, leader: str, rival: str, way: str, results: Results) -> list[str]:
    gaps = results.differences(cell, leader, rival, way)
    line = [f"{leader} - {rival}", {WAYS[0]: "i>t", WAYS[1]: "t>i"}.get(way, way)]
    if not len(gaps):
        return []
    if len(gaps) < 2:
        return [*line, shown(gaps, "+"), "-", "-", "-", "-"]
    paired = float(gaps.std(ddof=1))
    seeds = max(float(results.values(cell, one, way).std(ddof=1)) for one in (leader, rival))
    gain = float(gaps.mean())
    found = "**better**" if gain > 0 else "**worse**"
    words = [found if abs(gain) > 2 * sd else "no" for sd in (paired, max(paired, seeds))]
    return [*line, f"{gain:+.4f}", f"{paired:.4f}", f"{seeds:.4f}", *words]


def _budget(found: Sequence[dict[str, Any]]) -> list[str]:
    """Epochs, updates of each player (the hash network first), seconds; means over seeds."""
    if not found or "updates" not in found[0]:
        return ["-"] * 4
    players = max(len(one["updates"]) for one in found)
    steps = [
        np.mean([one["updates"][i] if i < len(one["updates"]) else 0 for one in found])
        for i in range(players)
    ]
    means = [np.mean([one[key] for one in found]) for key in ("epochs", "seconds")]
    processor = np.mean([one["processor_seconds"] for one in found])
    updates = " + ".join(f"{one:.0f}" for one in steps)
    return [f"{means[0]:.0f}", updates, f"{means[1]:.0f}", f"{processor:.0f}"]


# ---- C: the faithful mode ------------------------------------------------------------------------


def faithful(plan: Plan, results: Results) -> list[Section]:
    """The release, corrected and not, beside everything else; then fault by fault."""
    official, released = "wikipedia-sift-lda-official-100", "wikipedia-sift-lda-released-100"
    beside = [*BASELINES, "default", "paper", "paper-released"]
    body = [["row", "test pairs train as unlabelled", "mAP i>t", "t>i", *_heads()]]
    for cell, names in ((official, beside), (released, beside[-2:])):
        for name in names:
            figures = [shown(results.values(cell, name, way)) for way in WAYS]
            trains = f"yes ({rows.SMALL} units)" if cell == released else "no"
            body.append([name, trains, *figures, *_budget(results.of(cell, name))[2:]])
    faults = [
        ["", "fault", "alone: i>t", "t>i", "costs", "all others: i>t", "t>i", "correcting it gains"]
    ]
    for number, (name, (alone, without)) in enumerate(rows.one_by_one().items(), 1):
        line = [str(number), name]
        for row, other, sign in ((alone, "paper", -1), (without, "paper-released", 1)):
            line += [shown(results.values(released, row.name, way)) for way in WAYS]
            gaps = results.differences(released, row.name, other, "both")
            line.append(shown(sign * gaps, "+"))
        faults.append(line)
    notes = (
        f"\n\nTowers of {rows.SMALL} units here, of 8192 in the table above. "
        "`costs`: corrected minus corrected with this fault as released; `gains`: as released "
        "without this fault minus as released; mean of both ways, seed by seed. Test pairs train "
        "as unlabelled, as in the release. Corrected means the last epoch: there are no validation "
        "pairs here, and nothing else chooses; fault 5 chooses by the test queries. "
        "Settings of each fault: "
        + "; ".join(
            f"{i} " + ", ".join(f"`{k}={v}`" for k, v in settings.items())
            for i, settings in enumerate(FAULTS.values(), 1)
        )
        + "."
    )
    return [
        ("The release beside baselines and the shipped default", table(body)),
        ("Fault by fault", table(faults) + notes),
    ]


def _heads() -> list[str]:
    return ["seconds", "processor s"]


# ---- D: bits -------------------------------------------------------------------------------------


def bits(plan: Plan, results: Results) -> list[Section]:
    """mAP and code health by bits."""
    health = ("distinct", "largest_bucket", "entropy", "correlation")
    sections = []
    widths = sorted({job.bits for job in plan.jobs})
    for cell in dict.fromkeys(job.cell.name for job in plan.jobs):
        body = [
            ["bits", "mAP i>t", "t>i", "P@10 i>t", "t>i", "pair R@10 i>t", "t>i"]
            + [f"{name.replace('_', ' ')} {side}" for name in health for side in ("i", "t")]
        ]
        for width in widths:
            line = [str(width)]
            for metric in ("mAP", "P@10", "pair R@10"):
                line += [shown(results.values(cell, "default", way, metric, width)) for way in WAYS]
            found = results.of(cell, "default", width)
            for name in health:
                for side in ("image", "text"):
                    line.append(shown(np.array([one["health"][side][name] for one in found])))
            body.append(line)
        sections.append((f"{cell}: the shipped default", table(body)))
    note = (
        "Health is that of the database's codes. `distinct`: share of different codes; `largest "
        "bucket`: share of items on the commonest code; `entropy`: of a bit, 1 is balanced; "
        "`correlation`: mean absolute one of two bits."
    )
    return [*sections, ("What the columns say", note)]


# ---- rows alone ----------------------------------------------------------------------------------


def alone(plan: Plan, results: Results) -> list[Section]:
    """Some rows beside the baselines: those of the ablation's tables, without a claim."""
    return ablation(plan, results)[1:]
