"""Plots: mAP by labels and bits, selected negatives by epoch, precision and recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.errors import ExtraMissing

LINES = {
    "default": ("xmodal", "#1b6ca8", "-", "o"),
    "policy": ("xmodal, generator on", "#e08214", "--", "s"),
    "label codeword": ("label codeword", "#4d9221", "-.", "^"),
    "cca + itq": ("CCA + ITQ", "#777777", ":", "D"),
}
SELECTORS = {
    "policy": ("generator", "#1b6ca8"),
    "default": ("default: semi-hard rule", "#4d9221"),
    "random": ("random", "#e08214"),
}
GAP, FALSE, CHANCE = "picks off margin", "picks that match", "others that match"


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise ExtraMissing("plotting", "dev") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
         "grid.color": "#e5e5e5", "axes.axisbelow": True, "legend.frameon": False}
    )  # fmt: skip
    return pyplot


def map_by_share(results: Any, text: str, shares: Sequence[int], path: Path) -> bool:
    """Plot mAP by share of labels, for names with and without label words, both directions.

    Returns False, without a file, if there are no results.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(2, 2, figsize=(8, 6), sharex=True, sharey="row")
    drawn = False
    places = np.arange(len(shares))
    for row, (variant, names) in enumerate(
        (("names", "full names"), ("removed", "label words removed"))
    ):
        for column, direction in enumerate(("image->text", "text->image")):
            axis = axes[row][column]
            for name, (label, colour, style, mark) in LINES.items():
                values = [
                    results.values(f"fashion-{text}-{variant}-{share}", name, direction)
                    for share in shares
                ]
                some = [i for i, one in enumerate(values) if len(one)]
                if not some:
                    continue
                drawn = True
                means = [values[i].mean() for i in some]
                spread = [values[i].std(ddof=1) if len(values[i]) > 1 else 0 for i in some]
                axis.errorbar(
                    places[some], means, spread, label=label, color=colour, linestyle=style,
                    marker=mark, markersize=4, capsize=2,
                )  # fmt: skip
            axis.set_title(f"{direction.replace('->', ' → ')}, {names}", fontsize=9)
            axis.set_xticks(places, [f"{share} %" for share in shares])
            if column == 0:
                axis.set_ylabel("mAP, 32 bits")
            if row == 1:
                axis.set_xlabel("training items with labels")
    if drawn:
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, ncol=4, loc="lower center")
        figure.tight_layout(rect=(0, 0.05, 1, 1))
        _save(figure, path)
    pyplot.close(figure)
    return drawn


def selected_negatives(
    histories: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], path: Path
) -> bool:
    """Plot the selected negatives by epoch; ``histories[row]`` has one history per seed.

    Left: distance to the margin; right: share of false negatives (selected items that match).
    Returns False, without a file, if no history has these figures.
    """
    pyplot = _pyplot()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.4))
    drawn = False
    chance: list[Sequence[Mapping[str, float]]] = []
    for name, many in histories.items():
        label, colour = SELECTORS.get(name, (name, "#555555"))
        drawn |= _curve(left, many, GAP, label, colour)
        drawn |= _curve(right, many, FALSE, label, colour)
        chance = chance or [one for one in many if any(CHANCE in epoch for epoch in one)]
    if chance:
        _curve(right, chance, CHANCE, "a random item", "#777777", ":")
    left.set_ylabel("distance of selected negatives\nto the margin (share of the bits)")
    right.set_ylabel("false negatives")
    right.yaxis.set_major_formatter(pyplot.matplotlib.ticker.PercentFormatter(1.0))
    for axis in (left, right):
        axis.set_xlabel("epoch")
        axis.set_ylim(bottom=0)
    if drawn:
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, ncol=4, loc="lower center")
        figure.tight_layout(rect=(0, 0.07, 1, 1))
        _save(figure, path)
    pyplot.close(figure)
    return drawn


def _curve(
    axis: Any,
    many: Sequence[Sequence[Mapping[str, float]]],
    key: str,
    label: str,
    colour: str,
    style: str = "-",
) -> bool:
    """Plot the mean of ``key`` over seeds by epoch, with a band from minimum to maximum."""
    epochs = sorted({int(one["epoch"]) for seed in many for one in seed if key in one})
    if not epochs:
        return False
    by_epoch = [
        [one[key] for seed in many for one in seed if int(one["epoch"]) == epoch and key in one]
        for epoch in epochs
    ]
    axis.plot(epochs, [np.mean(one) for one in by_epoch], style, color=colour, label=label)
    low, high = ([bound(one) for one in by_epoch] for bound in (min, max))
    axis.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
    return True


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def reliability(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]], path: Path
) -> None:
    """Plot the share of right hits by mean confidence of a bin, one panel a data set and size.

    ``panels``: for each title, lines by name; a line is (confidences, shares), a point a bin.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(
        2, -(-len(panels) // 2), squeeze=False, figsize=(3 * -(-len(panels) // 2), 6.4)
    )
    for axis, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        axis.plot((1e-3, 1), (1e-3, 1), ":", color="#777777")
        for (label, (x, y)), colour in zip(lines.items(), COLOURS, strict=False):
            axis.plot(
                np.maximum(x, 1e-3), np.maximum(y, 1e-3), "o-", color=colour, markersize=3,
                label=label,
            )  # fmt: skip
        axis.set(xscale="log", yscale="log", xlim=(1e-3, 1.1), ylim=(1e-3, 1.1))
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("confidence")
        axis.set_ylabel("share of right hits")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncol=len(labels), loc="lower center")
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    _save(figure, path)
    pyplot.close(figure)


# ---- all methods ---------------------------------------------------------------------------------

COLOURS = ("#1b6ca8", "#e08214", "#4d9221", "#8e44ad", "#c0392b", "#17a2a2", "#777777")
CODEWORD = "label codeword"


def methods(plan: Any, results: Any, on: Mapping[str, str], folder: Path) -> list[tuple[Path, str]]:
    """Plot mAP by bits and by share of labels, and precision and recall by radius.

    ``on``: by method, the row to plot. Returns the path and the caption of each plot.
    """
    tasks = list(dict.fromkeys(job.task.name for job in plan.jobs))
    data_sets = list(dict.fromkeys(task.rpartition("-")[0] for task in tasks))
    widths = sorted({job.bits for job in plan.jobs})
    shares = sorted({job.task.share for job in plan.jobs})
    drawn = []

    def lines(name: str, points: Sequence[tuple[str, int]]) -> list[float]:
        return [_mean(results.values(task, name, "both", bits=bits)) for task, bits in points]

    rows = {**on, CODEWORD: CODEWORD}
    if len(widths) > 1:
        wide = [
            one for one in data_sets if any(j.bits != 32 and one in j.task.name for j in plan.jobs)
        ]
        curves = {
            one: {
                label: (widths, lines(name, [(f"{one}-100", bits) for bits in widths]))
                for label, name in rows.items()
            }
            for one in wide
        }
        drawn.append(
            _panels(curves, "bits", folder / "methods-bits.png", "mAP by bits, all labels")
        )
    if len(shares) > 1:
        shared = [one for one in data_sets if f"{one}-{shares[0]}" in tasks]
        curves = {
            one: {
                label: (shares, lines(name, [(f"{one}-{share}", 32) for share in shares]))
                for label, name in rows.items()
            }
            for one in shared
        }
        drawn.append(
            _panels(curves, "% labelled", folder / "methods-shares.png", "mAP by share of labels")
        )
    curves = {
        one: {label: _by_radius(results, f"{one}-100", name) for label, name in on.items()}
        for one in data_sets
    }
    caption = "Precision and recall by radius, 32 bits, all labels, seed 0, i>t"
    drawn.append(_panels(curves, "recall", folder / "methods-radius.png", caption, "precision"))
    return [one for one in drawn if one]


def _mean(values: Any) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _by_radius(results: Any, task: str, name: str) -> tuple[list[float], list[float]]:
    """Recall and precision of the first seed, for radii with at least one hit."""
    found = results.of(task, name)
    if not found:
        return [], []
    curve = found[0]["by radius"]["image->text"]
    both = zip(curve["recall"], curve["precision"], strict=True)
    points = [(recall, precision) for recall, precision in both if precision is not None]
    return [one for one, _ in points], [one for _, one in points]


def _panels(
    curves: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    across: str,
    path: Path,
    caption: str,
    up: str = "mAP, mean of both directions",
) -> tuple[Path, str] | None:
    """One panel per data set, one curve per row; None if there are no results."""
    some = {title: lines for title, lines in curves.items() if any(x for x, _ in lines.values())}
    if not some:
        return None
    pyplot = _pyplot()
    columns = min(3, len(some))
    legend_columns = 2 * columns
    below = 0.25 * -(-max(map(len, some.values())) // legend_columns) + 0.2
    height = 2.7 * -(-len(some) // columns) + below
    figure, axes = pyplot.subplots(
        -(-len(some) // columns), columns, squeeze=False,
        figsize=(3.2 * columns, height),
    )  # fmt: skip
    for axis in axes.flat[len(some) :]:
        axis.set_visible(False)
    for axis, (title, lines) in zip(axes.flat, some.items(), strict=False):
        for (label, (x, y)), colour in zip(lines.items(), COLOURS, strict=False):
            mark = "o" if len(x) < 8 else None
            style = ":" if label == CODEWORD else "-"
            axis.plot(x, y, style, color=colour, marker=mark, markersize=3, label=label)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(across)
        axis.set_ylabel(up)
        if across == "bits":
            axis.set_xscale("log", base=2)
            axis.set_xticks(x, [str(one) for one in x])
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncol=min(legend_columns, len(labels)), loc="lower center")
    figure.tight_layout(rect=(0, below / height, 1, 1))
    _save(figure, path)
    pyplot.close(figure)
    return path, caption
