"""What the service takes: requests are checked against its own OpenAPI description."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from xmodal.service.problems import Refusal

TEXT = files("xmodal.service").joinpath("openapi.json").read_text("utf-8")
SHOWN = 160  # characters of a value in a message


def parse(data: bytes) -> Any:
    """The JSON of a body. Raises Refusal: strictly JSON, in UTF-8, not absurdly deep."""
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
        raise Refusal(422, f"body{place}: {_short(wrong.message)}")
    _check_unicode(content)
    return content


@cache
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": json.loads(TEXT)["components"]}
    )


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
