"""xmodal-opensearch roles"""

from __future__ import annotations

import json

import click

from xmodal.cli.output import print_line
from xmodal_opensearch.client import roles as known
from xmodal_opensearch.client.address import parse_address


@click.command()
@click.argument("operations", nargs=-1, metavar="[OPERATION]...")
@click.option("--index", "uri", help="Address of the index; its name stands in the roles.")
@click.option("--print", "as_roles", is_flag=True, help="Print roles as JSON, not the table.")
@click.option("--least", is_flag=True, help="With --print: without optional permissions.")
def roles(operations: tuple[str, ...], uri: str | None, as_roles: bool, least: bool) -> None:
    """Print the least permissions of operations, for users of the security plugin.

    The JSON has one role for each OPERATION, by name. The body of a role is that of
    PUT _plugins/_security/api/roles/ROLE.

    \b
    Example:
      xmodal-opensearch roles
      xmodal-opensearch roles --print search --index opensearch://search.example.org/photos
    """
    chosen = [known.find_operation(name) for name in operations] or known.operations().values()
    name = known.NAME if uri is None else parse_address(uri).index
    if as_roles:
        bodies = {f"xmodal-{one.name}": one.role(name, least=least) for one in chosen}
        print_line(json.dumps(bodies, indent=2))
    else:
        print_line(known.table([one.name for one in chosen]).rstrip("\n"))
