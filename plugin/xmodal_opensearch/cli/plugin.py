"""xmodal-opensearch plugin build, check"""

from __future__ import annotations

from pathlib import Path

import click

from xmodal.cli.output import info, print_line
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.node.artifacts import VERSION
from xmodal_opensearch.server_plugin.build import build as build_plugin
from xmodal_opensearch.server_plugin.check import check as check_server


@click.group()
def plugin() -> None:
    """Build or check the optional server plugin: exact search at memory speed (hamming query).

    \b
    Example:
      xmodal-opensearch plugin build --server 3.6.0 --out hamming-3.6.0.zip
      xmodal-opensearch plugin check opensearch://localhost:9200
    """


@plugin.command()
@click.option(
    "--server", "version", default=VERSION, show_default=True, help="Exact server version."
)
@click.option("--out", type=click.Path(path_type=Path), help="[default: hamming-VERSION.zip]")
def build(version: str, out: Path | None) -> None:
    """Compile the plugin for the exact version of a server, without JDK and Maven.

    The build is reproducible: the same sources and version give the same bytes.

    \b
    Example:
      xmodal-opensearch plugin build --server 3.6.0 --out hamming-3.6.0.zip
      bin/opensearch-plugin install file:///path/to/hamming-3.6.0.zip
    """
    target = out or Path(f"hamming-{version}.zip")
    digest = build_plugin(version, target, show=info)
    print_line(f"{target}  sha256 {digest}")
    info("install on every node: bin/opensearch-plugin install file://" + str(target.resolve()))
    info("restart the nodes, then: xmodal-opensearch plugin check opensearch://host:9200")


@plugin.command()
@click.argument("server", metavar="SERVER")
def check(server: str) -> None:
    """Check that the plugin is on every node and its distances equal those of numpy.

    \b
    Example:
      xmodal-opensearch plugin check opensearch://localhost:9200
    """
    for line in check_server(Server(parse_address(server, index_needed=False))):
        print_line(line)
