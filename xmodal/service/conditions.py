"""Filters on fields, as requests have them: values, lists of values, and conditions."""

from __future__ import annotations

from typing import Annotated, Any, Self

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
MAX_FILTERS, MAX_VALUES_OF_FILTER = 32, 256


class Body(BaseModel):
    """A JSON object without unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True)


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
    """Check the length before the elements, which pydantic checks first for an object."""
    if isinstance(value, dict) and len(value) > MAX_FILTERS:
        raise PydanticCustomError(
            "too_long",
            "the length is {actual_length}, expected at most {max_length}",
            {"actual_length": len(value), "max_length": MAX_FILTERS},
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


class AnyCasePrefix(Body):
    """Beginning of a value."""

    prefix: Prefix


AnyCase = Annotated[
    Annotated[Scalar, Tag("value")]
    | Annotated[Scalars, Tag("list")]
    | Annotated[AnyCasePrefix, Tag("object")],
    Discriminator(_kind),
]


class _Bounds(Body):
    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    gt: Bound = LEFT_OUT
    gte: Bound = LEFT_OUT
    lt: Bound = LEFT_OUT
    lte: Bound = LEFT_OUT
    exists: bool = LEFT_OUT
    prefix: Prefix = LEFT_OUT
    any_case: AnyCase = Field(
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


Negated = Annotated[
    Annotated[Scalar, Tag("value")]
    | Annotated[Scalars, Tag("list")]
    | Annotated[Condition, Tag("object")],
    Discriminator(_kind),
]


class NegatableCondition(_Bounds):
    """Conditions on one field, which must all hold; one of them may be negated."""

    not_: Negated = Field(LEFT_OUT, alias="not", description="A condition that must not hold.")


OneOfAll = Annotated[
    Annotated[Scalar, Tag("value")]
    | Annotated[Scalars, Tag("list")]
    | Annotated[NegatableCondition, Tag("object")],
    Discriminator(_kind),
]


class Conditions(NegatableCondition):
    """Bounds (gt, gte, lt, lte), exists, prefix, any_case, not and all, which must all hold."""

    all: Annotated[list[OneOfAll], Field(min_length=1, max_length=32)] = Field(
        LEFT_OUT, description="Conditions that must all hold."
    )


Filter = Annotated[
    Annotated[Scalar, Tag("value")]
    | Annotated[Scalars, Tag("list")]
    | Annotated[Conditions, Tag("object")],
    Discriminator(_kind),
]
Where = Annotated[
    dict[Annotated[str, StringConstraints(min_length=1, max_length=256)], Filter],
    Field(
        max_length=MAX_FILTERS,
        description="Filters on fields, combined with AND: a value, a list of values of which one "
        "must match, or an object of conditions. Numbers, dates and true/false are compared by "
        "value.",
    ),
    BeforeValidator(_few_filters),
]
