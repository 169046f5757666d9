"""Parsing and validation of request bodies against the service's OpenAPI description.

The cost is bounded before the work: the number of JSON values is limited before the body is parsed,
and the length of a list or object is checked before its elements.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import best_match
from jsonschema.validators import extend

from xmodal.service.errors import Refusal

TEXT = files("xmodal.service").joinpath("openapi.json").read_text("utf-8")
SHOWN = 160  # characters of a value in a message
MAX_VALUES = 20_000
"""Lists, objects and their elements in one body. The largest body that fits a schema has 8,300."""


def read(schema: str, data: bytes) -> Any:
    """The content of a body, parsed and checked against a schema of openapi.json.

    Whole numbers written as floats (``20.0``) are returned as int where the schema has an integer.
    Raises Refusal. Takes tens of milliseconds for 16 MB, so it runs in a thread.
    """
    content = check(schema, parse(data))
    for name, rule in _schema(schema)["properties"].items():
        if rule.get("type") == "integer" and name in content:
            content[name] = int(content[name])
    return content


def parse(data: bytes) -> Any:
    """The JSON of a body. Raises Refusal if it is no strict JSON in UTF-8, or too large or deep."""
    _check_values(data)
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise Refusal(400, "the body is not UTF-8, expected JSON in UTF-8") from None
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply") from None
    except ValueError as error:
        raise Refusal(400, f"the body is not JSON: {_short(error)}") from None


def check(schema: str, content: Any) -> Any:
    """``content`` if it fits the schema of that name. Raises Refusal, naming what does not."""
    try:
        wrong = best_match(_validator(schema).iter_errors(content))
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply") from None
    if wrong is not None:
        place = "".join(f"[{one!r:.60}]" for one in wrong.absolute_path)
        if wrong.validator in ("oneOf", "required") and not place and isinstance(content, dict):
            wanted = " or ".join(one["required"][0] for one in _schema(schema).get("oneOf", ()))
            found = ", ".join(map(_short, content)) or "nothing"
            raise Refusal(422, f"the body says {found}, expected exactly one of {wanted}")
        detail = wrong.message
        if wrong.validator in ("maxItems", "maxProperties", "maxLength"):
            limit = wrong.validator_value
            detail = f"the length is {len(wrong.instance):,}, expected at most {limit:,}"
        raise Refusal(422, f"body{place}: {_short(detail)}")
    _check_unicode(content)
    return content


def _check_values(data: bytes) -> None:
    """Refuses more than MAX_VALUES lists, objects and elements, without parsing them.

    Parsing many small values holds the interpreter lock: for seconds with 16 MB of empty objects.
    """
    marks = (b",", b"[", b"{")
    if sum(map(data.count, marks)) <= MAX_VALUES:
        return
    quoted = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    if quoted.count(b'"') <= 4 * MAX_VALUES:  # two around each key and each string
        outside_strings = b"".join(quoted.split(b'"')[::2])
        if sum(map(outside_strings.count, marks)) <= MAX_VALUES:
            return
    raise Refusal(422, f"the body has too many JSON values, expected at most {MAX_VALUES:,}")


def _length_first(keyword: str, limit: str) -> Any:
    """The jsonschema ``keyword``, skipped for a value that is longer than the schema's ``limit``.

    The keyword of the limit reports that value, and its elements are not validated one by one.
    """
    validate = Draft202012Validator.VALIDATORS[keyword]

    def limited(
        validator: Any, rule: Any, value: Any, schema: dict[str, Any]
    ) -> Iterator[ValidationError]:
        if isinstance(value, list | dict) and len(value) > schema.get(limit, len(value)):
            return
        yield from validate(validator, rule, value, schema) or ()

    return limited


_Validator = extend(
    Draft202012Validator,
    {
        "items": _length_first("items", "maxItems"),
        "additionalProperties": _length_first("additionalProperties", "maxProperties"),
        "propertyNames": _length_first("propertyNames", "maxProperties"),
    },
)


@cache
def _validator(schema: str) -> Any:
    return _Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": json.loads(TEXT)["components"]}
    )


@cache
def _schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(TEXT)["components"]["schemas"][name]
    return found


def _check_unicode(content: Any) -> None:
    """Half a surrogate pair is JSON and no text: neither a tokenizer nor a server takes it."""
    if isinstance(content, str):
        try:
            content.encode()
        except UnicodeEncodeError:
            raise Refusal(422, f"{_short(content)} is not valid Unicode") from None
    elif isinstance(content, dict):
        for name, value in content.items():
            _check_unicode(name)
            _check_unicode(value)
    elif isinstance(content, list):
        for value in content:
            _check_unicode(value)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _short(value: object) -> str:
    text = " ".join(str(value).encode("utf-8", "replace").decode().split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
