"""xmodal-opensearch doctor"""

from __future__ import annotations

from dataclasses import asdict

import click

from xmodal.cli.options import json_option
from xmodal.cli.output import info, print_json, print_line, print_table, progress_bars
from xmodal_opensearch import diagnostics as examination
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.store import open_opensearch


@click.command()
@click.argument("uri", metavar="INDEX")
@click.option("--repair", is_flag=True, help="Mend what a killed load or a lost document left.")
@json_option
def doctor(uri: str, repair: bool, as_json: bool) -> None:
    """Measure an index: collisions of codes, recall of a graph, latency of each way; advise.

    \b
    Example:
      xmodal-opensearch doctor opensearch://localhost:9200/photos
    """
    if repair:
        address = parse_address(uri)
        for line in examination.repair(Server(address), address):
            info(line)
    with open_opensearch(uri) as index:
        with progress_bars() as bars:
            found = examination.examine(index, progress=bars)
        if as_json:
            told = asdict(found) | {
                "sides": [one._asdict() for one in found.sides],
                "recalls": [{"target": t} | one._asdict() for t, one in found.recalls],
                "latencies": [one._asdict() for one in found.latencies],
            }
            print_json(told)
            return
        print_line(found.index)
        codes = [["side", "codes", "distinct", "largest group of equal ones"]]
        for side in found.sides:
            of = "" if side.read == side.codes else f" (of the first {side.read:,})"
            codes.append(
                [side.side, f"{side.codes:,}", f"{side.distinct:.1%}{of}", f"{side.largest:,}"]
            )
        print_table(codes, "codes")
        times = [["way", "side", "median of one query, ms"]]
        times += [[one.way, one.side, f"{one.milliseconds:.1f}"] for one in found.latencies]
        print_table(times, "latency, k = 10, whole requests")
        for target, recall in found.recalls:
            print_line(
                f"the graph finds {recall.value:.1%} of the {recall.k} nearest {target} codes "
                f"({recall.queries} stored codes asked)"
            )
        for line in found.advice:
            print_line(f"- {line}")
