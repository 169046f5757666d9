"""The command xmodal info."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from xmodal.cli.options import json_option
from xmodal.cli.output import print_json, print_line, print_table
from xmodal.encoders.index_model import DEFAULT_INDEX, local_folder, recorded_model
from xmodal.errors import ConfigError
from xmodal.index.contract import FullTextIndex, Index, open_index
from xmodal.index.filters import canonical, is_date, values_of
from xmodal.index.origins import ListedIndex

EXAMPLES, EXAMPLE_LENGTH = 3, 40
UNKNOWN_SOURCE = "unknown"
KINDS = {bool: "true/false", int: "number", float: "number", str: "text"}


@click.command("info")
@click.argument("index", metavar="[INDEX]", default=DEFAULT_INDEX)
@json_option
def info_command(index: str, as_json: bool) -> None:
    """Describe INDEX, by default .xmodal/index: documents, codes, fields, model, sources and size.

    \b
    Example:
      xmodal info my.index
      xmodal info opensearch://localhost:9200/photos
    """
    opened = open_index(index)
    if not isinstance(opened, ListedIndex):
        raise ConfigError("an index of this backend cannot list its documents")
    described = _describe(index, opened)
    opened.close()
    if as_json:
        print_json(described)
    else:
        _print(described)


@dataclass
class _Field:
    """What the documents have in one field."""

    documents: int = 0
    kinds: set[str] = field(default_factory=set)
    examples: dict[str, None] = field(default_factory=dict)

    def add(self, value: Any) -> None:
        """Add the value of one document."""
        values = values_of(value)
        self.documents += bool(values)
        for one in values:
            self.kinds.add("date" if is_date(one) else KINDS.get(type(one), "object"))
            if len(self.examples) < EXAMPLES:
                self.examples[canonical(one)] = None


def _describe(uri: str, index: Any) -> dict[str, Any]:
    """Return the description of an index as JSON."""
    fields: dict[str, _Field] = {}
    sources: Counter[str] = Counter()
    for entry in index.entries():
        sources[UNKNOWN_SOURCE if entry.origin is None else entry.origin.source] += 1
        for name, value in entry.fields.items():
            fields.setdefault(name, _Field()).add(value)
    return {
        "index": uri,
        "documents": sum(sources.values()),
        "codes": index.count_codes(),
        "bits": index.bits,
        "vectors": index.dim,
        "full_text": isinstance(index, FullTextIndex),
        "model": _model(uri, index),
        "fields": {
            name: {
                "documents": one.documents,
                "kinds": sorted(one.kinds),
                "examples": list(one.examples),
            }
            for name, one in sorted(fields.items())
        },
        "sources": dict(sources.most_common()),
        "bytes": index.disk_usage(),
    }


def _model(uri: str, index: Index) -> dict[str, Any]:
    """Return fingerprint, recorded path of the model, and whether it is there."""
    model: dict[str, Any] = {"fingerprint": index.fingerprint}
    path = None if local_folder(uri) is None else recorded_model(uri)
    if path is not None:
        model |= {"path": str(path), "exists": path.exists()}
    return model


def _print(described: Mapping[str, Any]) -> None:
    codes = ", ".join(f"{count:,} of {name}s" for name, count in described["codes"].items())
    vectors = described["vectors"]
    print_line(f"{described['index']}: {described['documents']:,} documents")
    print_line(f"codes: {codes}, {described['bits']} bits")
    print_line("vectors: " + ("none" if vectors is None else f"int8, {vectors} dimensions"))
    print_line(f"full text: {'yes' if described['full_text'] else 'no'}")
    model = described["model"]
    where = f" at {model['path']}" if "path" in model else ""
    missing = ", which is not there" if model.get("exists") is False else ""
    print_line(f"model: {model['fingerprint'] or 'unknown'}{where}{missing}")
    size = described["bytes"]
    if size:
        parts = ", ".join(f"{name} {_bytes(count)}" for name, count in size.items())
        print_line(f"size: {_bytes(sum(size.values()))} ({parts})")
    for name, count in described["sources"].items():
        print_line(f"source: {name} ({count:,} documents)")
    if described["fields"]:
        rows = [["field", "documents", "kind", "examples"]]
        for name, one in described["fields"].items():
            shown = ", ".join(map(_shortened, one["examples"]))
            rows.append([name, f"{one['documents']:,}", " or ".join(one["kinds"]), shown])
        print_table(rows, wrapped=("kind", "examples"))


def _shortened(text: str) -> str:
    return text if len(text) <= EXAMPLE_LENGTH else f"{text[: EXAMPLE_LENGTH - 3]}..."


def _bytes(count: int) -> str:
    """Return a number of bytes with a unit."""
    size, units = float(count), ["bytes", "kB", "MB", "GB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:,.0f} {units[0]}" if units[0] == "bytes" else f"{size:,.1f} {units[0]}"
