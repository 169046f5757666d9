"""Features of the library ``datasets`` in the schema of a table: names of class labels.

The metadata "huggingface" of the schema is ``{"info": {"features": {column: feature}}}``; a
feature of labels is ``{"_type": "ClassLabel", "names": [...]}``, or a list of it.
"""

from __future__ import annotations

import json
from typing import Any

METADATA = b"huggingface"
LIST_TYPES = ("Sequence", "List", "LargeList")


def class_names(schema: Any) -> dict[str, list[str]]:
    """Return the names of labels of each column of labels in a schema of pyarrow."""
    try:
        features = json.loads((schema.metadata or {})[METADATA])["info"]["features"]
        return {name: names for name, one in features.items() if (names := _names(one))}
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def with_names(values: list[Any], names: list[str]) -> list[Any]:
    """Return values with names for the numbers of labels; None for -1, which means no label."""
    return [_with_names(value, names) for value in values]


def _names(feature: Any) -> list[str] | None:
    if isinstance(feature, list) and len(feature) == 1:
        return _names(feature[0])
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") in LIST_TYPES:
        return _names(feature.get("feature"))
    names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if is_list else None


def _with_names(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return with_names(value, names)
    if not isinstance(value, int) or value == -1:
        return None if value == -1 else value
    return names[value] if 0 <= value < len(names) else value
