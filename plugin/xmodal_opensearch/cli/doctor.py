"""xmodal-opensearch doctor"""

from __future__ import annotations

from typing import Any

import click

from xmodal.cli.options import json_option
from xmodal.cli.output import info, print_json, print_line, print_table, progress_bars
from xmodal_opensearch import diagnostics
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.diagnostics import DiagnosticsReport
from xmodal_opensearch.index.store import open_opensearch


@click.command()
@click.argument("uri", metavar="INDEX")
@click.option(
    "--repair",
    is_flag=True,
    help="First restore a lost self-test document and settings changed by a killed load.",
)
@json_option
def doctor(uri: str, repair: bool, as_json: bool) -> None:
    """Measure code collisions, graph recall and latencies, and give advice.

    \b
    Example:
      xmodal-opensearch doctor opensearch://localhost:9200/photos
    """
    if repair:
        address = parse_address(uri)
        for line in diagnostics.repair(Server(address), address):
            info(line)
    with open_opensearch(uri) as index, progress_bars() as bars:
        report = diagnostics.diagnose(index, progress=bars)
    if as_json:
        print_json(_to_json(report))
    else:
        _print(report)


def _to_json(report: DiagnosticsReport) -> dict[str, Any]:
    """The report as JSON; "side" and "way" are the former names of "modality" and "strategy"."""
    return {
        "index": report.index,
        "sides": [
            {
                "modality": stats.modality,
                "side": stats.modality,
                "codes": stats.codes,
                "read": stats.read,
                "distinct": stats.distinct,
                "largest": stats.largest_group,
            }
            for stats in report.modalities
        ],
        "recalls": [
            {"target": target, "value": recall.value, "k": recall.k, "queries": recall.queries}
            for target, recall in report.recalls
        ],
        "latencies": [
            {
                "strategy": latency.strategy,
                "way": latency.strategy,
                "modality": latency.modality,
                "side": latency.modality,
                "milliseconds": latency.milliseconds,
            }
            for latency in report.latencies
        ],
        "advice": report.advice,
    }


def _print(report: DiagnosticsReport) -> None:
    print_line(report.index)
    codes = [["modality", "codes", "distinct", "largest group of equal codes"]]
    for stats in report.modalities:
        part = "" if stats.read == stats.codes else f" (of the first {stats.read:,})"
        codes.append(
            [
                stats.modality,
                f"{stats.codes:,}",
                f"{stats.distinct:.1%}{part}",
                f"{stats.largest_group:,}",
            ]
        )
    print_table(codes, "codes")
    times = [["strategy", "modality", "median of one query, ms"]]
    times += [[one.strategy, one.modality, f"{one.milliseconds:.1f}"] for one in report.latencies]
    print_table(times, f"latency of whole requests, k = {diagnostics.K}")
    for target, recall in report.recalls:
        print_line(
            f"the graph finds {recall.value:.1%} of the {recall.k} nearest {target} codes "
            f"({recall.queries} stored codes as queries)"
        )
    for line in report.advice:
        print_line(f"- {line}")
