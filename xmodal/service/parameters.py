"""Query parameters: unknown ones are refused, and numbers have digits alone."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError


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
