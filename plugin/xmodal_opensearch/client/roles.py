"""Least roles of the operations, for users of the security plugin.

``assets/roles.json`` lists for each operation the permissions that it needs. A test on a server
with the security plugin runs each operation with exactly these, and without each of them. The
permissions of operations with ml-commons, which cannot be installed on that server, are compared
with the requests that the operations send.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from xmodal.errors import ConfigError

NAME = "NAME"
"""Stands for the name of an index in ``assets/roles.json`` and in the table."""
CLUSTER = "cluster:"
"""Start of the permissions of a cluster."""


@dataclass(frozen=True)
class Operation:
    """Permissions of one operation.

    ``does``: what it is. ``cluster``, ``index``: permissions of the cluster and of the indexes
    ``patterns``. ``optional``: further permissions; ``without`` says what is missing without them.
    """

    name: str
    does: str
    cluster: tuple[str, ...]
    index: tuple[str, ...]
    patterns: tuple[str, ...]
    optional: tuple[str, ...] = ()
    without: str = ""

    def role(self, index: str, *, least: bool = False) -> dict[str, Any]:
        """Return the role in the form of the security plugin's API, for an index or alias.

        ``least``: without the optional permissions.
        """
        patterns = [pattern.replace(NAME, index) for pattern in self.patterns]
        optional = () if least else self.optional
        cluster = [one for one in optional if one.startswith(CLUSTER)]
        of_index = [one for one in optional if not one.startswith(CLUSTER)]
        granted = {"index_patterns": patterns, "allowed_actions": [*self.index, *of_index]}
        return {"cluster_permissions": [*self.cluster, *cluster], "index_permissions": [granted]}


@cache
def operations() -> dict[str, Operation]:
    """Return the operations by name."""
    text = (files("xmodal_opensearch") / "assets" / "roles.json").read_text("utf-8")
    return {
        name: Operation(
            name,
            entry["does"],
            tuple(entry["cluster"]),
            tuple(entry["index"]),
            tuple(entry["patterns"]),
            tuple(entry.get("optional", ())),
            entry.get("without", ""),
        )
        for name, entry in json.loads(text).items()
    }


def find_operation(name: str) -> Operation:
    """Return an operation. Raises ConfigError for an unknown name."""
    known = operations()
    if name not in known:
        raise ConfigError(f"no operation {name!r}, expected one of {', '.join(known)}")
    return known[name]


def table(names: Iterable[str] | None = None) -> str:
    """Return the permissions of operations, by default of all, as a table in Markdown."""
    lines = [
        "| operation | cluster permissions | index permissions | on | optional |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in map(find_operation, operations() if names is None else names):
        columns = (one.cluster, one.index, one.patterns, one.optional)
        cells = [", ".join(f"`{name}`" for name in column) for column in columns]
        cells[-1] += f" (without: {one.without})" if one.without else ""
        cells = [f"`{one.name}`: {one.does}", *cells]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
