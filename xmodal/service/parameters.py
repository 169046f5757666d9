"""Query parameters: unknown ones are refused, and numbers have digits alone."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError
from starlette.requests import Request

from xmodal.service.errors import RequestError

MAX_PARAMETERS = 200
"""Parameters of one request. FastAPI collects them in time that grows with their square."""


async def few_parameters(request: Request) -> None:
    """A dependency, which is solved before parameters are parsed. Raises RequestError."""
    count = 1 + request.scope["query_string"].count(b"&")
    if count > MAX_PARAMETERS:
        raise RequestError(
            422, f"the query has {count:,} parameters, expected at most {MAX_PARAMETERS}"
        )


class Parameters(BaseModel):
    """Query parameters of one operation."""

    model_config = ConfigDict(extra="forbid")


def _digits(value: Any) -> Any:
    """The number of a parameter. ``int`` would also accept spaces, signs and underscores."""
    if isinstance(value, str):
        if not re.fullmatch("-?[0-9]{1,9}", value):
            raise PydanticCustomError("digits", "expected a whole number of at most 9 digits")
        return int(value)
    return value


Digits = BeforeValidator(_digits)
"""Annotation of a whole number."""
