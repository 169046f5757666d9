"""Tables of the results of :mod:`harness.caption_jobs`, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from harness import caption_sets
from harness.caption_jobs import CaptionJob
from harness.jobs import Environment, load_result
from harness.report import table
from harness.results import Section, Values

CUTS = (1, 5, 10)
DIRECTIONS = ("image_to_text", "text_to_image")
HEADER = (
    *(f"i>t R@{k}" for k in CUTS), *(f"t>i R@{k}" for k in CUTS), "rsum", "median rank",
)  # fmt: skip
HEADINGS = {
    caption_sets.DEV: "flickr8k, split dev",
    caption_sets.EMOJI_WORDS: "Emoji, trained without labels, small-cnn and words",
    caption_sets.EMOJI_MINILM: "Emoji, trained without labels, MobileNetV2 and MiniLM",
}
CODES, OUTPUTS, CHANCE = "codes", "outputs", "chance"
STAGES = {"weighted": "weighted", "vectors": "int8 vectors"}
"""Stages of a search after the Hamming distance, and their names."""
FLOAT_CCA, CCA_ITQ = "float cosine (cca)", "cca + itq"
Captions = dict[str, Any]
Figure = Callable[[Captions], float]
"""Reads one figure of ``captions.query`` of a report."""


class CaptionResults:
    """The results of jobs, by data set, row and bits, in order of the seeds."""

    def __init__(self, jobs: Iterable[CaptionJob], environment: Environment) -> None:
        self.found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
        self.missing = self.other_code = 0
        for job in sorted(jobs, key=lambda job: job.seed):
            key = job.data_set, job.row.name, job.bits
            kept = self.found.setdefault(key, [])
            result = load_result(job, environment)
            if result is None:
                self.missing += 1
                continue
            kept.append(result)
            self.other_code += result["code"] != job.code()

    @property
    def seeds(self) -> int:
        """The largest number of seeds of a row."""
        return max(map(len, self.found.values()), default=0)

    def rows(self, data_set: str) -> list[tuple[str, int]]:
        """Names and bits of the rows of a data set, in order of the jobs."""
        return [(row, bits) for of, row, bits in self.found if of == data_set]

    def sizes(self, data_set: str) -> str:
        """Numbers of measured pictures and captions, as the end of a heading."""
        for (of, _, _), found in self.found.items():
            if of == data_set and found:
                one = found[0]["captions"]
                return f": {one['pictures']:,} pictures, {one['captions']:,} captions"
        return ""

    def values(self, key: tuple[str, str, int], figure: Figure) -> Values:
        """A figure of each seed."""
        return np.array([figure(one["captions"]) for one in self.found[key]], np.float64)

    def numbers(self, key: tuple[str, str, int], name: str) -> Values:
        """A number of each result, such as ``processor_seconds``."""
        found = [one[name] for one in self.found[key] if one[name] is not None]
        return np.array(found, np.float64)


def of_row(captions: Captions, row: str) -> dict[str, Any]:
    """The figures of the codes, of a stage, of the float outputs, or of a baseline."""
    if row == CODES:
        return captions
    own = row in STAGES or row == OUTPUTS
    found: dict[str, Any] = captions[row] if own else captions["baselines"][row]
    return found


def rsum(row: str = CODES) -> Figure:
    """The sum of R@1, R@5 and R@10 of both directions, in percent."""
    return lambda captions: float(of_row(captions, row)["rsum"])


def recall(direction: str, k: int, row: str = CODES) -> Figure:
    """R@k of a direction, in percent."""
    return lambda captions: 100 * float(of_row(captions, row)[direction][f"r{k}"])


def _median_rank(direction: str, row: str) -> Figure:
    return lambda captions: float(of_row(captions, row)[direction]["median_rank"])


def shown(values: Values) -> str:
    """Mean ± standard deviation (n - 1), or "-" without values."""
    if not len(values):
        return "-"
    mean = f"{values.mean():.1f}"
    return mean if len(values) < 2 else f"{mean}±{values.std(ddof=1):.1f}"


def sections(results: CaptionResults, default_bits: int) -> list[Section]:
    """All sections of the report."""
    found = [("How to read", _about(results))]
    found.append(("What the bits cost and bring", _widths(results)))
    for name, words in HEADINGS.items():
        if results.rows(name):
            heading = f"{words}{results.sizes(name)}"
            found.append((heading, _comparison(results, name, default_bits)))
    return found


def _about(results: CaptionResults) -> str:
    notes = ""
    spread = f"Mean ± standard deviation over {results.seeds} seeds"
    if results.seeds == 1:
        spread = "**One seed**"
    if results.missing:
        notes += f" **Missing results, shown as `-`: {results.missing}.**"
    if results.other_code:
        notes += f" {results.other_code} results come from other code (`--fresh` repeats them)."
    return (
        f"{spread}, in percent. i>t: a picture ranks the captions, any of its own captions is "
        "right; t>i: a caption ranks the pictures. R@k is the expectation over all orders of tied "
        "items. rsum: sum of the six R@k. The last epoch is measured. "
        "`weighted`: the query's outputs in 4 bits with the codes, the whole scan. `int8 vectors`: "
        "the first 300 of it by the cosine of int8 vectors, the default of a search. `float "
        "outputs`: the cosine of the same vectors in float, the whole scan. "
        "Baselines are fitted to the same features and training pairs. CPU s: processor seconds of "
        "the training; with evaluation: also of the evaluation with its baselines and bootstrap. "
        "Peak MB: of the process, which may hold data of earlier jobs. Bytes: of one picture (or "
        "of one caption) in the index; 4 bytes a float." + notes
    )


def _widths(results: CaptionResults) -> str:
    """Bytes, R@10 and rsum of the default method at each width, beside the baselines."""
    header = ["bits", "bytes a picture", "i>t R@10", "t>i R@10", "rsum", "rsum, weighted"]
    header += ["rsum, int8 vectors", "rsum of CCA + ITQ", "rsum of float CCA"]
    body = [header]
    dev = caption_sets.DEV
    for bits in sorted(bits for row, bits in results.rows(dev) if row == "contrastive"):
        key = dev, "contrastive", bits
        figures = [recall(direction, 10) for direction in DIRECTIONS]
        figures += [rsum(row) for row in (CODES, *STAGES, CCA_ITQ, FLOAT_CCA)]
        cells = [shown(results.values(key, figure)) for figure in figures]
        body.append([str(bits), str(bits // 8), *cells])
    return table(body)


def _comparison(results: CaptionResults, data_set: str, default_bits: int) -> str:
    """All rows of a data set: chance, then baselines, codes and outputs at each width."""
    costs = ("CPU s", "with evaluation", "peak MB")
    body: list[list[str]] = [["row", "bits", "bytes", *HEADER, *costs]]
    rows = results.rows(data_set)
    names = list(dict.fromkeys(row for row, _ in rows))
    first = data_set, names[0], default_bits
    body.append(["chance", "-", "0", *_figures(results, first, CHANCE), *["-"] * 3])
    for bits in sorted({bits for row, bits in rows if row == names[0]}):
        key = data_set, names[0], bits
        size = str(bits // 8), str(bits * 4)
        free = ["-"] * 3
        body.append(["CCA + ITQ", str(bits), size[0], *_figures(results, key, CCA_ITQ), *free])
        body.append([names[0], str(bits), size[0], *_figures(results, key), *_costs(results, key)])
        for stage, words in STAGES.items():
            more = size[0] if stage == "weighted" else str(bits // 8 + bits)
            cells = _figures(results, key, stage)
            body.append([f"{names[0]}, {words}", str(bits), more, *cells, *free])
        floats = _figures(results, key, OUTPUTS)
        body.append([f"{names[0]}, float outputs", f"{bits} d", size[1], *floats, *free])
        floats = _figures(results, key, FLOAT_CCA)
        body.append(["float CCA", f"{bits} d", size[1], *floats, *free])
    for name in names[1:]:
        key = data_set, name, default_bits
        line = [name, str(default_bits), str(default_bits // 8)]
        body.append([*line, *_figures(results, key), *_costs(results, key)])
    return table(body)


def _figures(results: CaptionResults, key: tuple[str, str, int], row: str = CODES) -> list[str]:
    figures = [recall(direction, k, row) for direction in DIRECTIONS for k in CUTS]
    cells = [shown(results.values(key, figure)) for figure in [*figures, rsum(row)]]
    ranks = [results.values(key, _median_rank(direction, row)) for direction in DIRECTIONS]
    medians = [f"{one.mean():.0f}" if len(one) else "-" for one in ranks]
    return [*cells, " / ".join(medians)]


def _costs(results: CaptionResults, key: tuple[str, str, int]) -> list[str]:
    names = ("processor_seconds", "total_processor_seconds", "memory")
    found = [results.numbers(key, name) for name in names]
    return [f"{one.mean():.0f}" if len(one) else "-" for one in found]
