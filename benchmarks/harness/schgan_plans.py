"""Plans of the SCH-GAN tables: the rows, tasks and seeds of each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from harness import rows
from harness.jobs import Job, Plan
from harness.rows import Row
from harness.tasks import Task, find_task

TABLES = ("main", "ablation", "faithful", "bits")
SEEDS = {"main": 3, "ablation": 5, "faithful": 3, "bits": 3}
GROUPS = {
    "fashion-minilm-names": "Fashion, full names, encoded by MiniLM",
    "fashion-minilm-removed": "Fashion, label words removed, encoded by MiniLM",
    "fashion-words-names": "Fashion, full names, encoded by `words`",
    "fashion-words-removed": "Fashion, label words removed, encoded by `words`",
    "wikipedia-sift-lda": "Wikipedia, SIFT and LDA",
    "wikipedia-roph-tfidf": "Wikipedia, RoPH and TF-IDF",
}
SHARES = (0, 5, 20, 100)
PROTOCOLS = ("clean", "official", "article")
WATCHED = ("random", "policy", "default")
"""Rows whose selected negatives are plotted over the epochs."""
ABLATION_SETS = ("fashion-minilm-names", "wikipedia-roph-tfidf-clean")
ABLATION_SHARES = (5, 10, 25)
SLOW = ("reinforce", "no-pseudo-labels", "alone-random", "alone-semi-hard", "alone-policy")
"""Rows that are measured on the smaller data set only."""
SLOWEST = ("paper", "paper-released")
SLOWEST_TASK = "wikipedia-roph-tfidf-clean-10"
"""Rows that take minutes each; they are measured on this task only, with 3 seeds."""
BITS = (16, 32, 64, 128)
BITS_TASKS = (
    "fashion-minilm-names-5",
    "fashion-minilm-names-100",
    "wikipedia-roph-tfidf-clean-100",
)


def plan(table: str, seeds: int | None, quick: bool) -> Plan:
    """The plan of a table; with ``quick``, few small jobs that use all of its code."""
    count = range(1 if quick else seeds or SEEDS[table])
    plans = {"main": _main, "ablation": _ablation, "faithful": _faithful, "bits": _bits}
    return plans[table](count, quick)


def single(chosen: Sequence[Row], names: Sequence[str], seeds: int, quick: bool) -> Plan:
    """The plan of some rows and of the baselines in some tasks."""
    tasks = [find_task(name) for name in names]
    return Plan("single", _jobs(tasks, [None, *chosen], range(seeds), quick))


def group(task: Task) -> str:
    """The key in ``GROUPS`` of a task of the main table."""
    return task.name.rpartition("-")[0] if task.of == "fashion" else f"{task.of}-{task.features}"


def _main(seeds: range, quick: bool) -> Plan:
    fashion = product(list(GROUPS)[:4], SHARES)
    wikipedia = product(list(GROUPS)[4:], PROTOCOLS)
    names = [f"{one}-{share}" for one, share in fashion]
    names += [f"{one}-{protocol}-100" for one, protocol in wikipedia]
    if quick:
        names = ["fashion-minilm-names-5", "wikipedia-sift-lda-clean-100"]
    words = [find_task(name) for name in names if "-words-" in name]
    others = [find_task(name) for name in names if "-words-" not in name]
    ours, generator = rows.find_row("default"), rows.find_row("policy")
    jobs = _jobs(others, [None, ours, generator], seeds, quick)
    return Plan("main", jobs + _jobs(words, [None, ours], seeds, quick))


def _ablation(seeds: range, quick: bool) -> Plan:
    names = [f"{one}-{share}" for one in ABLATION_SETS for share in ABLATION_SHARES]
    watched = [find_task("fashion-minilm-names-5-watched")]
    if quick:
        names = ["wikipedia-roph-tfidf-clean-10"]
    tasks = [find_task(name) for name in names]
    watch = [rows.find_row(name) for name in WATCHED]
    known = rows.read_all()
    found = {n: row for n, row in known.items() if n not in SLOWEST}
    fast = [row for name, row in found.items() if name not in SLOW]
    small = [task for task in tasks if task.of == "wikipedia"]
    large = [task for task in tasks if task.of == "fashion"]
    jobs = _jobs(large, [None, *fast], seeds, quick)
    jobs += _jobs(small, [None, *found.values()], seeds, quick)
    slowest = [known[name] for name in SLOWEST]
    jobs += _jobs([find_task(SLOWEST_TASK)], slowest, range(min(3, len(seeds))), quick)
    return Plan("ablation", jobs, _jobs(watched, watch[1:2] if quick else watch, range(1), quick))


def _faithful(seeds: range, quick: bool) -> Plan:
    official = find_task("wikipedia-sift-lda-official-100")
    released = find_task("wikipedia-sift-lda-released-100")
    both = [rows.find_row("paper"), rows.find_row("paper-released")]
    faults = [row for pair in rows.fault_rows().values() for row in pair]
    small = [rows.smaller(row) for row in [*both, *(faults[:2] if quick else faults)]]
    jobs = _jobs([official], [None, rows.find_row("default"), *both], seeds, quick)
    return Plan("faithful", jobs + _jobs([released], small, seeds, quick))


def _bits(seeds: range, quick: bool) -> Plan:
    tasks = [find_task(name) for name in BITS_TASKS[-1 if quick else 0 :]]
    widths = BITS[:2] if quick else BITS
    found = [rows.find_row("default")]
    jobs = [job for bits in widths for job in _jobs(tasks, found, seeds, quick, bits)]
    return Plan("bits", tuple(jobs))


def _jobs(
    tasks: Sequence[Task],
    found: Sequence[Row | None],
    seeds: range,
    quick: bool,
    bits: int = 32,
) -> tuple[Job, ...]:
    """All combinations; seeds vary fastest, tasks slowest."""
    return tuple(
        Job(task, row.quick() if row and quick else row, seed, bits)
        for task in tasks
        for row in found
        for seed in seeds
    )
