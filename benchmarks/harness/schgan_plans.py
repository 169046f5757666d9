"""Which jobs each SCH-GAN table needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from harness import rows
from harness import tasks as sets
from harness.jobs import Job
from harness.rows import Row

TABLES = ("main", "ablation", "faithful", "bits")
SEEDS = {"main": 3, "ablation": 5, "faithful": 3, "bits": 3}
GROUPS = {
    "fashion-minilm-names": "Fashion, names as they are, read by MiniLM",
    "fashion-minilm-removed": "Fashion, label words removed, read by MiniLM",
    "fashion-words-names": "Fashion, names as they are, read by `words`",
    "fashion-words-removed": "Fashion, label words removed, read by `words`",
    "wikipedia-sift-lda": "Wikipedia, SIFT and LDA",
    "wikipedia-roph-tfidf": "Wikipedia, RoPH and TF-IDF",
}
SHARES = (0, 5, 20, 100)
PROTOCOLS = ("clean", "official", "article")
WATCHED = ("random", "policy", "default")
"""Rows whose picks are drawn over the epochs."""
ABLATION_SETS = ("fashion-minilm-names", "wikipedia-roph-tfidf-clean")
ABLATION_SHARES = (5, 10, 25)
SLOW = ("reinforce", "no-pseudo-labels", "alone-random", "alone-semi-hard", "alone-policy")
"""Rows that are measured on the smaller set alone."""
SLOWEST = ("paper", "paper-released")
SLOWEST_CELL = "wikipedia-roph-tfidf-clean-10"
"""Rows that take minutes each, and the one cell of the ablation, at 3 seeds, that has them."""
BITS = (16, 32, 64, 128)
BITS_CELLS = (
    "fashion-minilm-names-5",
    "fashion-minilm-names-100",
    "wikipedia-roph-tfidf-clean-100",
)


@dataclass(frozen=True)
class Plan:
    """The jobs of a table. ``watch``: of those, the ones whose history alone is drawn."""

    table: str
    jobs: tuple[Job, ...]
    watch: tuple[Job, ...] = ()

    @property
    def every(self) -> tuple[Job, ...]:
        """All of them."""
        return self.jobs + self.watch


def plan(table: str, seeds: int | None, quick: bool) -> Plan:
    """The jobs of a table; with ``quick`` a few small ones that show that all of it runs."""
    count = range(1 if quick else seeds or SEEDS[table])
    made = {"main": _main, "ablation": _ablation, "faithful": _faithful, "bits": _bits}
    return made[table](count, quick)


def alone(names: Sequence[Row], cells: Sequence[str], seeds: int, quick: bool) -> Plan:
    """Some rows in some cells, beside the baselines."""
    found = [sets.named(name) for name in cells]
    return Plan("alone", _jobs(found, [None, *names], range(seeds), quick))


def group(cell: sets.Cell) -> str:
    """The part of a cell's name under which the main table has it."""
    return cell.name.rpartition("-")[0] if cell.of == "fashion" else f"{cell.of}-{cell.features}"


def _main(seeds: range, quick: bool) -> Plan:
    fashion = product(list(GROUPS)[:4], SHARES)
    wikipedia = product(list(GROUPS)[4:], PROTOCOLS)
    names = [f"{one}-{share}" for one, share in fashion]
    names += [f"{one}-{protocol}-100" for one, protocol in wikipedia]
    if quick:
        names = ["fashion-minilm-names-5", "wikipedia-sift-lda-clean-100"]
    words = [sets.named(name) for name in names if "-words-" in name]
    others = [sets.named(name) for name in names if "-words-" not in name]
    ours, generator = rows.chosen("default"), rows.chosen("policy")
    jobs = _jobs(others, [None, ours, generator], seeds, quick)
    return Plan("main", jobs + _jobs(words, [None, ours], seeds, quick))


def _ablation(seeds: range, quick: bool) -> Plan:
    names = [f"{one}-{share}" for one in ABLATION_SETS for share in ABLATION_SHARES]
    watched = [sets.named("fashion-minilm-names-5-watched")]
    if quick:
        names = ["wikipedia-roph-tfidf-clean-10"]
    cells = [sets.named(name) for name in names]
    watch = [rows.chosen(name) for name in WATCHED]
    every = rows.records()
    found = {n: row for n, row in every.items() if n not in SLOWEST}
    fast = [row for name, row in found.items() if name not in SLOW]
    small = [cell for cell in cells if cell.of == "wikipedia"]
    large = [cell for cell in cells if cell.of == "fashion"]
    jobs = _jobs(large, [None, *fast], seeds, quick)
    jobs += _jobs(small, [None, *found.values()], seeds, quick)
    slowest = [every[name] for name in SLOWEST]
    jobs += _jobs([sets.named(SLOWEST_CELL)], slowest, range(min(3, len(seeds))), quick)
    return Plan("ablation", jobs, _jobs(watched, watch[1:2] if quick else watch, range(1), quick))


def _faithful(seeds: range, quick: bool) -> Plan:
    official = sets.named("wikipedia-sift-lda-official-100")
    released = sets.named("wikipedia-sift-lda-released-100")
    both = [rows.chosen("paper"), rows.chosen("paper-released")]
    faults = [row for two in rows.one_by_one().values() for row in two]
    small = [rows.smaller(row) for row in [*both, *(faults[:2] if quick else faults)]]
    jobs = _jobs([official], [None, rows.chosen("default"), *both], seeds, quick)
    return Plan("faithful", jobs + _jobs([released], small, seeds, quick))


def _bits(seeds: range, quick: bool) -> Plan:
    cells = [sets.named(name) for name in BITS_CELLS[-1 if quick else 0 :]]
    widths = BITS[:2] if quick else BITS
    found = [rows.chosen("default")]
    jobs = [job for bits in widths for job in _jobs(cells, found, seeds, quick, bits)]
    return Plan("bits", tuple(jobs))


def _jobs(
    cells: Sequence[sets.Cell],
    found: Sequence[Row | None],
    seeds: range,
    quick: bool,
    bits: int = 32,
) -> tuple[Job, ...]:
    """Seeds last, so that a table is filled evenly only cell by cell."""
    return tuple(
        Job(cell, row.quick() if row and quick else row, seed, bits)
        for cell in cells
        for row in found
        for seed in seeds
    )
