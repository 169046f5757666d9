"""Progress of a training: a line for each epoch on standard error, and the baselines at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from xmodal.cli.output import info, print_table

if TYPE_CHECKING:
    from xmodal.evaluation.report import Report

LEGEND = {
    "R@1": "share of validation queries whose own match is the first hit",
    "R@10": "share of validation queries whose own match is among the first ten hits",
    "mAP": "mean average precision by labels, validation queries in the training data",
    "pair mAP": "mean average precision of the own matches of validation queries",
}
"""Figures of an epoch that are printed, and what they mean; all are in history.jsonl."""
MAX_LOSSES = 2
"""Losses that are printed where nothing is validated."""


class EpochLines:
    """Callback after each epoch: prints validation figures, seconds and the time left.

    Before the first line it prints the meaning of the figures.
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def __call__(self, epoch: int, epochs: int, figures: Mapping[str, float]) -> None:
        """Print the line of one epoch."""
        measured = {name: figures[name] for name in LEGEND if name in figures}
        losses = {
            name: value
            for name, value in list(figures.items())[: MAX_LOSSES + 1]
            if name not in ("epoch", "seconds")
        }
        if not self._seconds:
            meanings = [f"{name}: {LEGEND[name]}" for name in measured]
            for line in meanings or [f"losses: {', '.join(losses)}; nothing is validated"]:
                info(line)
        self._seconds.append(figures["seconds"])
        recent = self._seconds[-5:]
        left = (epochs - epoch) * sum(recent) / len(recent)
        shown = "  ".join(f"{name} {value:.3f}" for name, value in (measured or losses).items())
        time = f"{figures['seconds']:.1f} s"
        if epoch < epochs:
            time += f", at most {duration(left)} left"
        info(f"epoch {epoch:>3}/{epochs}  {shown}  ({time})")


def duration(seconds: float) -> str:
    """Return seconds as text: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def print_baselines(report: Report) -> None:
    """Print the encoder beside the baselines: the held-out captions and labels, as far as known."""
    if "query" in report.captions:
        title = "held-out captions, R@k in % and median rank (i>t: from pictures to captions)"
        print_table(report.caption_table("query"), title)
    if report.rows:
        print_table(report.table(("mAP",)), "held-out pictures and texts, mAP by labels")
