"""Filters on fields, as requests have them: values, lists of values, and conditions."""

from __future__ import annotations

from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from xmodal.service.validation import field_names

LEFT_OUT: Any = None
"""Default of a field that may be left out. It is not validated: a request with null is refused."""
MAX_FIELDS, MAX_FILTERS, MAX_VALUES_OF_FILTER = 100, 32, 256


class Body(BaseModel):
    """A JSON object without unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, value: Any) -> Any:
        """Check the length first: pydantic collects an error for each unknown field."""
        return _at_most(MAX_FIELDS, value)


def _scalar(value: Any) -> Any:
    """A value of a filter, checked in one step, so that an error has one message."""
    if not isinstance(value, str | int | float):  # true and false are int
        raise PydanticCustomError("scalar", "expected a text, a number or true/false")
    if isinstance(value, float) and value - value != 0:
        raise PydanticCustomError("finite_number", "expected a finite number")
    if isinstance(value, str) and not _is_unicode(value):
        raise PydanticCustomError("string_unicode", "expected valid Unicode")
    return value


def _bound(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("bound", "expected a number or a text")
    return _scalar(value)


def _is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogate: JSON allows it, UTF-8 and tokenizers do not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _few_filters(value: Any) -> Any:
    """Check the length first: pydantic checks the elements of an object before its length."""
    return _at_most(MAX_FILTERS, value)


def _at_most(limit: int, value: Any) -> Any:
    if isinstance(value, dict) and len(value) > limit:
        raise PydanticCustomError(
            "too_long",
            "the length is {actual_length}, expected at most {max_length}",
            {"actual_length": len(value), "max_length": limit},
        )
    return value


Scalar = Annotated[
    Any, BeforeValidator(_scalar), WithJsonSchema({"type": ["string", "number", "boolean"]})
]
Bound = Annotated[Any, BeforeValidator(_bound), WithJsonSchema({"type": ["string", "number"]})]
Scalars = Annotated[list[Scalar], Field(min_length=1, max_length=MAX_VALUES_OF_FILTER)]
Prefix = Annotated[str, Field(min_length=1, description="Beginning of a value.")]


def _kind(value: Any) -> str:
    return "object" if isinstance(value, dict) else "list" if isinstance(value, list) else "value"


Object = TypeVar("Object", bound=Body)
ValuesOr = Annotated[
    Annotated[Scalar, Tag("value")]
    | Annotated[Scalars, Tag("list")]
    | Annotated[Object, Tag("object")],
    Discriminator(_kind),
]
"""A value, a list of values of which one must match, or an object of conditions."""


class AnyCasePrefix(Body):
    """Beginning of a value."""

    prefix: Prefix


class _Bounds(Body):
    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    gt: Bound = LEFT_OUT
    gte: Bound = LEFT_OUT
    lt: Bound = LEFT_OUT
    lte: Bound = LEFT_OUT
    exists: bool = LEFT_OUT
    prefix: Prefix = LEFT_OUT
    any_case: ValuesOr[AnyCasePrefix] = Field(
        LEFT_OUT, description="Values, or a prefix, of which the letters A to Z equal a to z."
    )

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.model_fields_set:
            expected = ", ".join(field_names(type(self)))
            raise PydanticCustomError("empty", "expected one of {expected}", {"expected": expected})
        return self


class Condition(_Bounds):
    """Conditions on one field, which must all hold."""


class NegatableCondition(_Bounds):
    """Conditions on one field, which must all hold; one of them may be negated."""

    not_: ValuesOr[Condition] = Field(
        LEFT_OUT, alias="not", description="A condition that must not hold."
    )


class Conditions(NegatableCondition):
    """Bounds (gt, gte, lt, lte), exists, prefix, any_case, not and all, which must all hold."""

    all: Annotated[list[ValuesOr[NegatableCondition]], Field(min_length=1, max_length=32)] = Field(
        LEFT_OUT, description="Conditions that must all hold."
    )


Where = Annotated[
    dict[Annotated[str, StringConstraints(min_length=1, max_length=2048)], ValuesOr[Conditions]],
    Field(
        max_length=MAX_FILTERS,
        description="Filters on fields, combined with AND: a value, a list of values of which one "
        "must match, or an object of conditions. Numbers, dates and true/false are compared by "
        "value.",
    ),
    BeforeValidator(_few_filters),
]
