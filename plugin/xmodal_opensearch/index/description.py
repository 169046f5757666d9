"""Description of the indexes of a scope as one index: codes, layout, fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from xmodal.errors import ConfigError, IndexMismatch
from xmodal.index.filters import Condition
from xmodal_opensearch.index import mapping
from xmodal_opensearch.index.mapping import LAYOUTS, Layout
from xmodal_opensearch.index.scope import Contents

EXACT = {"faiss", "flat"}
"""Layouts without a graph, whose fields the same queries search."""
SUB_FIELDS = ("number", "words", "keyword")
"""Sub-fields by which a condition may be decided instead of the field."""


@dataclass(frozen=True)
class Fields:
    """Fields of several mappings.

    ``types``: type by path. ``by_index``: the same of each index. ``dim``: of the stored vectors,
    None without. ``has_vectors``: whether a mapping has fields for vectors of xmodal.
    """

    types: Mapping[str, str]
    by_index: Mapping[str, Mapping[str, str]]
    dim: int | None
    has_vectors: bool


@dataclass(frozen=True)
class Description:
    """Codes of several indexes, which are of one width and one encoder.

    ``encoded``: names of the enriched indexes, whose documents name their encoder. ``shards``: of
    all indexes.
    """

    bits: int
    fingerprint: str | None
    layout: Layout
    encoded: tuple[str, ...]
    has_words: bool
    shards: int


def describe_codes(address: str, contents: Contents) -> Description:
    """Return the description of indexes, by concrete name.

    Raises IndexMismatch that names an index without codes, or with codes of another width, encoder
    or layout than the others.
    """
    layouts: dict[str, Layout] = {}
    codes: dict[str, tuple[int, str | None]] = {}
    for name, content in contents.items():
        codes[name] = mapping.read_meta(name, content["mappings"])
        bits, _ = codes[name]
        mapping.check_visible(name, content["mappings"])
        layouts[name] = mapping.read_layout(name, bits, content["mappings"], content["settings"])
    first = next(iter(contents))
    for name in contents:
        if codes[name] != codes[first]:
            raise IndexMismatch(
                f"{address}: {name} has codes of {_encoder(*codes[name])}, {first} of "
                f"{_encoder(*codes[first])}, which cannot be compared: search them apart"
            )
        if (
            not {layouts[name].name, layouts[first].name} <= EXACT
            and layouts[name] != layouts[first]
        ):
            raise IndexMismatch(
                f"{address}: {name} stores codes in layout {layouts[name].name}, {first} in "
                f"{layouts[first].name}, which one query cannot search: search them apart"
            )
    mappings = [content["mappings"] for content in contents.values()]
    bits, fingerprint = codes[first]
    return Description(
        bits,
        fingerprint,
        layouts[first] if len(set(layouts.values())) == 1 else LAYOUTS["flat"],
        tuple(name for name in contents if mapping.is_enriched(contents[name]["mappings"])),
        all(map(mapping.has_words, mappings)),
        sum(int(one["settings"]["index.number_of_shards"]) for one in contents.values()),
    )


def read_fields(address: str, mappings: Mapping[str, Mapping[str, Any]]) -> Fields:
    """Return the fields of the mappings of indexes, by name.

    Raises IndexMismatch for vectors of different dimensions.
    """
    by_index = {name: mapping.field_types(one) for name, one in mappings.items()}
    dims: dict[int, str] = {}
    for name, one in mappings.items():
        dim = mapping.read_dim(one)
        if dim is not None:
            dims.setdefault(dim, name)
    if len(dims) > 1:
        (dim, name), (other_dim, other), *_ = dims.items()
        raise IndexMismatch(
            f"{address}: {other} stores vectors of {other_dim} dimensions, {name} of {dim}, which "
            "cannot be compared: search them apart"
        )
    has_vectors = any(map(mapping.has_vector_fields, mappings.values()))
    types = {path: kind for one in reversed(by_index.values()) for path, kind in one.items()}
    return Fields(types, by_index, next(iter(dims), None), has_vectors)


def check_conditions(conditions: Iterable[Condition], fields: Fields) -> None:
    """Raise ConfigError for a condition on a field that two indexes map differently.

    A condition becomes one query for all indexes, by the type of its field.
    """
    if len(fields.by_index) < 2:
        return
    for condition in conditions:
        paths = [condition.field, *(f"{condition.field}.{name}" for name in SUB_FIELDS)]
        kinds = {
            name: [types.get(path) for path in paths]
            for name, types in fields.by_index.items()
            if any(path in types for path in paths)
        }
        first = next(iter(kinds), "")
        for name, found in kinds.items():
            if found != kinds[first]:
                raise ConfigError(
                    f"field {condition.field!r} is mapped as {_kinds(paths, found)} in {name}, as "
                    f"{_kinds(paths, kinds[first])} in {first}: filter each index apart"
                )


def _kinds(paths: list[str], kinds: list[str | None]) -> str:
    return ", ".join(
        kind if path == paths[0] else f".{path.rpartition('.')[2]} {kind}"
        for path, kind in zip(paths, kinds, strict=True)
        if kind is not None
    )


def _encoder(bits: int, fingerprint: str | None) -> str:
    return f"{bits} bits and " + (f"encoder {fingerprint}" if fingerprint else "no named encoder")
