"""xmodal-opensearch doctor"""

from __future__ import annotations

from typing import Any

import click

from xmodal.cli.options import json_option
from xmodal.cli.output import info, print_json, print_line, print_table, progress_bars
from xmodal.errors import IndexFailure
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.diagnostics import measurements
from xmodal_opensearch.diagnostics.findings import Finding
from xmodal_opensearch.diagnostics.inspection import Inspection, inspect, repair
from xmodal_opensearch.diagnostics.measurements import DiagnosticsReport
from xmodal_opensearch.index.store import OpenSearchIndex


@click.command()
@click.argument("uri", metavar="INDEX")
@click.option(
    "--repair",
    "repairs",
    is_flag=True,
    help="First repair what is safe: a lost self-test document, settings of a killed load.",
)
@json_option
def doctor(uri: str, repairs: bool, as_json: bool) -> None:
    """Find what is wrong with an index and its cluster, measure searches, and give advice.

    Exit status: 0, 1 if something is wrong, 2 if nothing could be found out.

    \b
    Example:
      xmodal-opensearch doctor opensearch://localhost:9200/photos
    """
    address = parse_address(uri)
    server = Server(address)
    inspection = inspect(server, address)
    if repairs:
        for line in repair(inspection) or ["found nothing to repair"]:
            info(line)
        inspection = inspect(server, address)
    report = DiagnosticsReport(address.index)
    try:
        index = OpenSearchIndex(server, address, bits=None, fingerprint=None)
        with progress_bars() as bars:
            report = measurements.diagnose(index, progress=bars)
    except IndexFailure as error:
        _add_failure(inspection, error)
    server.close()
    if as_json:
        print_json(_to_json(report, inspection))
    else:
        _print(report, inspection)
    if inspection.is_wrong:
        raise click.exceptions.Exit(1)


def _add_failure(inspection: Inspection, error: IndexFailure) -> None:
    """Add the error of an index that cannot be searched, unless a finding is its cause."""
    if not inspection.is_wrong:
        found, _, repair_ = str(error).partition(": ")
        inspection.findings.append(Finding("unusable", "it cannot be searched", found, repair_))


def _to_json(report: DiagnosticsReport, inspection: Inspection) -> dict[str, Any]:
    """The report as JSON; "side" and "way" are the former names of "modality" and "strategy"."""
    return {
        "index": report.index,
        "wrong": inspection.is_wrong,
        "findings": [
            {
                "kind": finding.kind,
                "found": finding.found,
                "meaning": finding.meaning,
                "repair": finding.repair,
                "wrong": finding.is_wrong,
                "safe_repair": finding.fix is not None,
            }
            for finding in inspection.findings
        ],
        "not_checked": inspection.not_checked,
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
        "comparisons": report.comparisons,
        "advice": report.advice,
    }


def _print(report: DiagnosticsReport, inspection: Inspection) -> None:
    print_line(report.index)
    for finding in inspection.findings:
        print_line(f"{'wrong' if finding.is_wrong else 'note'}: {finding}")
    for line in inspection.not_checked:
        print_line(f"not checked: {line}")
    if not inspection.findings:
        part = " in what was checked" if inspection.not_checked else ""
        print_line(f"nothing is wrong{part}")
    if report.modalities:
        _print_measurements(report)
    for line in report.advice:
        print_line(f"- {line}")


def _print_measurements(report: DiagnosticsReport) -> None:
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
    print_table(times, f"latency of whole requests, k = {measurements.K}")
    for line in report.comparisons:
        print_line(line)
    for target, recall in report.recalls:
        print_line(
            f"the graph finds {recall.value:.1%} of the {recall.k} nearest {target} codes "
            f"({recall.queries} stored codes as queries)"
        )
