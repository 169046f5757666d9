"""xmodal-opensearch create, delete"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from xmodal.cli.option_sources import alternatives, on_command_line
from xmodal.cli.options import ModelFolder
from xmodal.cli.output import print_line
from xmodal.codes import check_bits
from xmodal.errors import ConfigError, IndexMissing
from xmodal_opensearch.client.address import Address, parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.aliases import describe, is_version, versions_of
from xmodal_opensearch.index.capabilities import probe
from xmodal_opensearch.index.creation import make_version
from xmodal_opensearch.index.mapping import Layout
from xmodal_opensearch.index.store import OpenSearchIndex
from xmodal_opensearch.index.strategies import check_writable, choose_strategy


@click.command()
@click.argument("uri", metavar="INDEX")
@click.option(
    "--model", type=ModelFolder(), metavar="FOLDER|hf://NAME", help="Encoder of the codes."
)
@click.option("--bits", type=int, help="Bits of the codes, instead of --model.")
@click.option(
    "--like", metavar="INDEX", help="Index, also of another cluster, whose mapping is copied."
)
@click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="NAME=TYPE",
    help="Type of a field: caption=text, price=float, day=date [default: dynamic mapping].",
)
def create(
    uri: str, model: Path | None, bits: int | None, like: str | None, fields: tuple[str, ...]
) -> None:
    """Create an empty index behind an alias.

    \b
    Example:
      xmodal-opensearch create "opensearch://localhost:9200/photos?shards=2" --model my.model
          --field caption=text --field price=float --field day=date
    """
    model, bits, like = alternatives(model=model, bits=bits, like=like).values()
    if [model, bits, like].count(None) != 2:
        raise ConfigError("give one of --model, --bits and --like")
    if like is not None and on_command_line("fields"):
        raise ConfigError("--field is not used with --like, which copies the fields")
    address = parse_address(uri)
    user_mappings = _user_mappings(fields if like is None else ())
    copied = None if like is None else _read_mappings(like)
    bits, fingerprint = _width(model, bits) if copied is None else copied.codes
    server = Server(address)
    if describe(server, address.index) is not None:
        raise ConfigError(f"{address} exists: delete it first, or use another name")
    capabilities = probe(server)
    layout = None if copied is None else copied.layout
    strategy = choose_strategy(address.strategy, capabilities, layout, address.natives)
    if layout is not None:
        check_writable(layout, capabilities, address.natives)
    make_version(
        server,
        address,
        bits,
        fingerprint,
        layout or strategy.makes,
        alias=address.index,
        fields=user_mappings,
        like=None if copied is None else copied.mappings,
    )
    with OpenSearchIndex(server, address, bits=bits, fingerprint=fingerprint) as index:
        print_line(f"{address}: {index!r}")


@click.command()
@click.argument("uri", metavar="INDEX")
@click.option("--yes", is_flag=True, help="Delete without confirmation.")
@click.option("--old-versions", is_flag=True, help="Delete only versions that are not in use.")
def delete(uri: str, yes: bool, old_versions: bool) -> None:
    """Delete an index that xmodal created, with all its versions.

    \b
    Example:
      xmodal-opensearch delete opensearch://localhost:9200/photos
    """
    address = parse_address(uri)
    server = Server(address)
    names = _created_versions(server, address, unused_only=old_versions)
    if not names:
        raise IndexMissing(f"no {'old version' if old_versions else 'index'} at {address}")
    if not yes:
        click.confirm(f"delete {', '.join(names)} at {address.server}?", abort=True, err=True)
    server.request("DELETE", f"/{','.join(names)}", doing="deleting")
    print_line(f"deleted {', '.join(names)}")


class _Copied(NamedTuple):
    """Mapping of another index: bits and encoder fingerprint, layout of the codes, all fields."""

    codes: tuple[int, str | None]
    layout: Layout
    mappings: Mapping[str, Any]


def _read_mappings(uri: str) -> _Copied:
    """Read the mapping of another index. Raises IndexMissing, IndexMismatch."""
    address = parse_address(uri)
    server = Server(address)
    found = describe(server, address.index)
    server.close()
    if found is None:
        raise IndexMissing(f"no index {address.index} at {address.server}")
    name, content = found
    mappings = content["mappings"]
    codes = mapping.read_meta(name, mappings)
    layout = mapping.read_layout(name, codes[0], mappings, content["settings"])
    return _Copied(codes, layout, mappings)


def _user_mappings(fields: Sequence[str]) -> dict[str, Any]:
    """The mappings of fields given as NAME=TYPE. Raises ConfigError."""
    mappings = {}
    for field in fields:
        name, _, kind = field.partition("=")
        if not name or not kind:
            raise ConfigError(f"--field {field}: expected NAME=TYPE, such as day=date")
        mappings[name] = mapping.user_field(name, kind)
    return mappings


def _width(model: Path | None, bits: int | None) -> tuple[int, str | None]:
    """Bits and fingerprint of the model, or ``bits`` without a fingerprint."""
    if model is None:
        return check_bits(bits or 0), None

    from xmodal.encoders.load import load_encoder

    encoder = load_encoder(model)
    return encoder.bits, encoder.fingerprint


def _created_versions(server: Server, address: Address, *, unused_only: bool) -> list[str]:
    """The versions that xmodal created. Raises ConfigError if the alias is an index of the user."""
    names = []
    for name, in_use in versions_of(server, address.index).items():
        found = None if unused_only and in_use else describe(server, name)
        if found is not None and _is_created(found[1]["mappings"]):
            names.append(name)
    current = describe(server, address.index)
    if current is not None:
        name, content = current
        if not is_version(address.index, name) or not _is_created(content["mappings"]):
            raise ConfigError(
                f"{address.index} is not an alias created by xmodal (it refers to {name}): delete "
                "your own index with OpenSearch's API"
            )
    return names


def _is_created(mappings: Mapping[str, Any]) -> bool:
    """Whether xmodal created the index, not only added codes to it."""
    return "xmodal" in mappings.get("_meta", {}) and not mapping.is_enriched(mappings)
