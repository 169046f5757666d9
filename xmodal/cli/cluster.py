"""xmodal encode --engine ray: all parts of DATA, by processes of one machine or of a cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, redirect_stdout
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmodal.cli.encoder import load_encoder
from xmodal.cli.output import print_problems, progress_bars, status
from xmodal.cli.parts import is_complete, part_header, part_path, print_part
from xmodal.cli.remote_data import GivenData, local_data
from xmodal.cli.sources import Data, is_features
from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.data.sharding import MAX_SHARDS, Shard
from xmodal.encoders.pipeline import chunks_by_shard
from xmodal.errors import ConfigError, require
from xmodal.index.documents import DocumentBatch
from xmodal.index.parts.info import PartInfo
from xmodal.index.parts.writing import write_part

if TYPE_CHECKING:
    from xmodal.encoders.cluster import Cluster, Encoded, Job

PARTS = 16
"""Parts of --engine ray without --parts and --shard."""
LOADING = ("image_backbone", "text_backbone", "trust_remote_code", "provider")
"""Options of the encoder that its workers need."""
LOCAL = "local"
"""Value of --address for processes of this machine."""


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --address, --workers and --parts."""
    for decorate in (
        click.option(
            "--parts",
            type=click.IntRange(1, MAX_SHARDS),
            metavar="N",
            help=f"Number of parts that --engine ray writes [default: {PARTS}].",
        ),
        click.option(
            "--workers",
            type=click.IntRange(1),
            metavar="N",
            help="Processes of --engine ray that encode [default: one for each GPU, without GPUs "
            "one for each CPU].",
        ),
        click.option(
            "--address",
            metavar="ADDRESS",
            help="Ray cluster of --engine ray: HOST:PORT, auto for the one of this machine, or "
            f"{LOCAL}: processes that are started here [default: {LOCAL}].",
        ),
    ):
        command = decorate(command)
    return command


def check_cluster_options(options: Mapping[str, Any], *, cluster: bool) -> None:
    """Raise ConfigError for options that are only for --engine ray, or not for it."""
    if not cluster:
        for name in ("address", "workers", "parts"):
            if options[name] is not None:
                raise ConfigError(f"--{name} is for --engine ray: add it, or leave --{name} out")
        return
    if options["feature_files"]:
        raise ConfigError("--engine ray encodes pictures and texts: leave it out for --features")
    if options["cache"] is not None:
        raise ConfigError("--engine ray uses no feature cache: leave --cache out")
    if options["parts"] is not None and options["shard"] is not None:
        raise ConfigError("--parts and --shard both say which parts are written: leave one out")


def encode_on_cluster(model: Path, data: Data, out: Path, options: Mapping[str, Any]) -> None:
    """Encode all shards of DATA, or that of --shard, unless their parts are complete."""
    require("--engine ray", "ray")
    if is_features(data):
        raise ConfigError(f"{data} is a file of features: leave --engine ray out")
    if options["shard"]:
        shards = [Shard.parse(options["shard"])]
    else:
        count = options["parts"] or PARTS
        shards = [Shard(number, count) for number in range(1, count + 1)]
    if len({part_path(out, shard) for shard in shards}) < len(shards):
        raise ConfigError(
            f"--out {out} is one file for {len(shards):,} parts: name a folder, or put * into the "
            "name, or add --parts 1"
        )
    problems = Problems()
    with local_data(data, options, problems) as given:
        header = part_header(model, given, shards[0], options)
        headers = [replace(header, shard=shard) for shard in shards]
        targets = {one.shard.number: (part_path(out, one.shard), one) for one in headers}
        left = {
            number: (path, one)
            for number, (path, one) in targets.items()
            if not is_complete(path, given, one, options)
        }
        if left:
            _encode(model, given, left, options, problems)


def _encode(
    model: Path,
    data: GivenData,
    targets: Mapping[int, tuple[Path, PartInfo]],
    options: Mapping[str, Any],
    problems: Problems,
) -> None:
    """Encode the shards of ``targets``, by their numbers, into their parts."""
    from xmodal.encoders.cluster import Job

    loading = {name: options[name] for name in LOADING}
    encoder = load_encoder(model, {**loading, "engine": "auto"}, for_queries=True)
    targets = {
        number: (path, replace(one, fingerprint=encoder.fingerprint, bits=encoder.bits))
        for number, (path, one) in targets.items()
    }
    _, header = next(iter(targets.values()))
    job = Job(
        model.resolve(),
        loading,
        encoder.fingerprint,
        encoder.preprocessing,
        header.source,
        header.vectors,
    )
    written: list[tuple[Path, PartInfo]] = []
    try:
        with redirect_stdout(sys.stderr):  # Ray prints messages about killed processes
            for one in _written(job, data, targets, options, problems):
                written.append(one)
    finally:
        for path, part in written:
            print_part(path, part, options, skipped=False)
    print_problems(problems)


def _written(
    job: Job,
    data: GivenData,
    targets: Mapping[int, tuple[Path, PartInfo]],
    options: Mapping[str, Any],
    problems: Problems,
) -> Iterator[tuple[Path, PartInfo]]:
    """Yield the parts one after the other, when they are written."""
    from xmodal.encoders.cluster import connected

    address = None if options["address"] in (None, LOCAL) else options["address"]
    with ExitStack() as stack:
        with status("starting Ray" if address is None else f"connecting to {address}"):
            cluster = stack.enter_context(connected(address, options["workers"]))
        bars = stack.enter_context(progress_bars())
        chunks, items = _put_chunks(cluster, data, targets, problems, bars)
        every = [one for of_shard in chunks.values() for one in of_shard]
        encoded = stack.enter_context(closing(cluster.encode(job, every)))
        advance = _Counter(items, bars).advance
        read = problems.copy()
        for number, (path, header) in targets.items():
            own = read.copy()
            of_shard = islice(encoded, len(chunks[number]))
            documents = _documents(of_shard, (own, problems), advance)
            yield path, write_part(path, header, documents, own)


class _Counter:
    """Shows the number of encoded items of ``total``."""

    def __init__(self, total: int, bars: Progress) -> None:
        self._done, self._total, self._bars = 0, total, bars

    def advance(self, items: int) -> None:
        """Add to the number."""
        self._done += items
        self._bars("encoded", self._done, self._total)


def _put_chunks(
    cluster: Cluster,
    data: GivenData,
    targets: Mapping[int, tuple[Path, PartInfo]],
    problems: Problems,
    bars: Progress,
) -> tuple[dict[int, list[Any]], int]:
    """Read DATA; return references to the chunks of each shard, and the number of items.

    Problems of reading are recorded: each part counts all of them, as with --shard.
    """
    _, header = next(iter(targets.values()))
    chunks: dict[int, list[Any]] = {number: [] for number in targets}
    items = 0
    stream = data.stream(problems)
    read = stream.items()
    for number, chunk in chunks_by_shard(read, header.shard.count, targets.keys(), data.root):
        chunks[number].append(cluster.put(number, chunk))
        items += len(chunk.items)
        bars("read", items, 0)
    return chunks, items


def _documents(
    encoded: Iterable[Encoded], problems: Sequence[Problems], advance: Callable[[int], None]
) -> Iterator[DocumentBatch]:
    """Yield the documents of chunks; ``advance`` is called with their numbers of items."""
    for one in encoded:
        assert one.batch is not None
        for each in problems:
            each.extend(one.problems)
        advance(one.items)
        yield one.batch
