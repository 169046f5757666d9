"""xmodal-opensearch create, delete"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from xmodal.cli.output import print_line
from xmodal.codes import check_bits
from xmodal.errors import ConfigError, IndexMissing
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.aliases import describe, is_version, make_version, versions_of
from xmodal_opensearch.index.capabilities import probe
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.index.strategies import choose_strategy


@click.command()
@click.argument("uri", metavar="INDEX")
@click.option("--model", type=click.Path(path_type=Path), help="The encoder whose codes it holds.")
@click.option("--bits", type=int, help="Width of the codes, if there is no model yet.")
@click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="NAME=TYPE",
    help="Map a field of yours: caption=text, price=float, day=date. Others map themselves.",
)
def create(uri: str, model: Path | None, bits: int | None, fields: tuple[str, ...]) -> None:
    """Make an empty index behind an alias, with fields of yours mapped as you like.

    \b
    Example:
      xmodal-opensearch create "opensearch://localhost:9200/photos?shards=2" --model my.model
          --field caption=text --field price=float --field day=date
    """
    if (model is None) == (bits is None):
        raise ConfigError("give --model or --bits, one of them")
    address = parse_address(uri)
    if bits is not None:
        check_bits(bits)
    described = {}
    for one in fields:
        name, _, kind = one.partition("=")
        if not name or not kind:
            raise ConfigError(f"--field {one}: expected NAME=TYPE, such as day=date")
        described[name] = mapping.user_field(name, kind)
    encoder = None
    if model is not None:
        from xmodal.encoders.load import load_encoder

        loaded = load_encoder(model)
        bits, encoder = loaded.bits, loaded.fingerprint
    server = Server(address)
    if describe(server, address.index) is not None:
        raise ConfigError(f"{address} exists: delete it first, or take another name")
    strategy = choose_strategy(address.strategy, probe(server), None, address.natives)
    make_version(
        server,
        address,
        int(bits or 0),
        encoder,
        strategy.makes,
        alias=address.index,
        fields=described,
    )
    with OpenSearchIndex(server, address, bits=bits, fingerprint=encoder) as index:
        print_line(f"{address}: {index!r}")


@click.command()
@click.argument("uri", metavar="INDEX")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--old-versions", is_flag=True, help="Only the versions that are not searched.")
def delete(uri: str, yes: bool, old_versions: bool) -> None:
    """Remove an index that xmodal made, with all its versions.

    An index of your own to which codes were added is never deleted here.

    \b
    Example:
      xmodal-opensearch delete opensearch://localhost:9200/photos
    """
    address = parse_address(uri)
    server = Server(address)
    versions = versions_of(server, address.index)
    doomed = [name for name, seen in versions.items() if not (old_versions and seen)]
    ours = []
    for name in doomed:
        found = describe(server, name)
        if found is not None and _is_ours(found[1]["mappings"]):
            ours.append(name)
    found = describe(server, address.index)
    if found is not None and not (
        is_version(address.index, found[0]) and _is_ours(found[1]["mappings"])
    ):
        raise ConfigError(
            f"{address.index} is no alias that xmodal made (it stands for {found[0]}): delete an "
            "index of your own by your own means"
        )
    if not ours:
        raise IndexMissing(f"no {'old version' if old_versions else 'index'} at {address}")
    if not yes:
        click.confirm(f"delete {', '.join(ours)} at {address.server}?", abort=True, err=True)
    server.request("DELETE", f"/{','.join(ours)}", doing="deleting")
    print_line(f"deleted {', '.join(ours)}")


def _is_ours(mappings: Mapping[str, Any]) -> bool:
    """Whether xmodal made it: not merely added codes to it."""
    return "xmodal" in mappings.get("_meta", {}) and not mapping.is_enriched(mappings)
