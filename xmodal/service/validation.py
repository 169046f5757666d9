"""The first error of a validation by pydantic, as one line with its place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel

MESSAGE_LENGTH = 160
"""Characters of a value in an error message."""
MAX_NAMES = 10
"""Unknown fields that are listed."""


def validation_message(
    errors: Sequence[Any], name: str, content: Any, fields: Iterable[str]
) -> str:
    """What was found and what was expected, with the place.

    ``errors``: of pydantic. ``name``: of ``content``, which was validated. ``fields``: those that
    ``content`` may have.
    """
    unknown = [one["loc"] for one in errors if one["type"] == "extra_forbidden"]
    if unknown:
        parent = unknown[0][:-1]
        names = [str(location[-1]) for location in unknown if location[:-1] == parent]
        expected = "" if parent else f", expected {', '.join(fields)}"
        return f"{place(name, content, parent)} has unknown fields: {_listed(names)}{expected}"
    first = errors[0]
    if first["type"] == "required":
        return f"{place(name, content, first['loc'])} {first['msg']}"
    context = first.get("ctx", {})
    if "max_length" in context:
        length = context.get("actual_length") or len(first["input"])
        detail = f"the length is {length:,}, expected at most {context['max_length']:,}"
    elif first["type"] == "missing":
        missing = shown(first["loc"][-1])
        return (
            f"{place(name, content, first['loc'][:-1])} has no field {missing}, which is required"
        )
    else:
        expected = first["msg"].replace("Input should be", "expected")
        detail = f"found {shown(first['input'])}, {expected}"
    return shortened(f"{place(name, content, first['loc'])}: {detail}", 3 * MESSAGE_LENGTH)


def field_names(model: type[BaseModel]) -> list[str]:
    """Names of the fields of a model as a request has them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def place(name: str, content: Any, location: Sequence[int | str]) -> str:
    """A location of pydantic, ``("where", "f", "list", 3)``, as ``body['where']['f'][3]``.

    Steps that are no keys of ``content`` are names of alternatives in pydantic, and left out.
    """
    found = name
    for key in location:
        if isinstance(content, dict) and key in content:
            content = content[key]
        elif isinstance(content, list) and isinstance(key, int):
            content = content[key]
        else:
            continue
        found += f"[{shown(key)}]"
    return found


def shown(value: Any) -> str:
    """A value in an error message: short, on one line, without lone surrogates."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value):,}"
    if isinstance(value, str):
        return repr(shortened(value))
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return shortened(repr(value))


def shortened(text: str, length: int = MESSAGE_LENGTH) -> str:
    """A text on one line, of at most ``length`` characters."""
    line = " ".join(text[: length + 1].encode("utf-8", "replace").decode().split())
    return line if len(text) <= length else f"{line[:length]}..."


def _listed(names: list[str]) -> str:
    listed = ", ".join(shown(name) for name in names[:MAX_NAMES])
    return listed if len(names) <= MAX_NAMES else f"{listed} and {len(names) - MAX_NAMES:,} more"
