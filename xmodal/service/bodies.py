"""Request bodies of the HTTP API: pydantic models, which validate requests and describe them.

Validation is strict: a string or true/false is no number. As in JSON Schema, ``20.0`` is a whole
number. The length of a list or object is
checked before its elements, so that the cost of an invalid body is bounded.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

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

from xmodal.encoders.calibration import Stage
from xmodal.modality import Modality
from xmodal.retrieval.query import By
from xmodal.service.validation import field_names

LEFT_OUT: Any = None
"""Default of a field that may be left out. It is not validated: a request with null is refused."""
DEFAULT_K, MAX_K, MAX_OFFSET = 20, 1000, 9000
MAX_ID_LENGTH = 2048
MAX_FILTERS, MAX_VALUES_OF_FILTER = 32, 256
MAX_SEARCHES, MAX_HITS_OF_BATCH = 64, 10_000
QUERY_PARTS = ("text", "typed", "image", "like")
EXAMPLE = "a red circle on the left"


def _whole(value: Any) -> Any:
    """20 for 20.0, as in JSON Schema; other values unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


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


WHOLE = BeforeValidator(_whole)

Text = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
DocumentId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_LENGTH)]
Picture = Annotated[
    str,
    Field(
        min_length=1,
        description="Picture file, base64-encoded, or a data URL; or its http(s) address at a "
        "host that the service allows.",
    ),
]
Weight = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
K = Annotated[int, Field(ge=1, le=MAX_K), WHOLE]
Offset = Annotated[int, Field(ge=0, le=MAX_OFFSET), WHOLE]
Radius = Annotated[int, Field(ge=0, le=65_536), WHOLE]
Confidence = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

Scalar = Annotated[
    Any, BeforeValidator(_scalar), WithJsonSchema({"type": ["string", "number", "boolean"]})
]
Bound = Annotated[Any, BeforeValidator(_bound), WithJsonSchema({"type": ["string", "number"]})]
Scalars = Annotated[list[Scalar], Field(min_length=1, max_length=MAX_VALUES_OF_FILTER)]
Prefix = Annotated[str, Field(min_length=1, description="Beginning of a value.")]


def _kind(value: Any) -> str:
    return "object" if isinstance(value, dict) else "list" if isinstance(value, list) else "value"


class Body(BaseModel):
    """A JSON object without unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True)


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


class Weights(Body):
    """Weights of the parts of the query."""

    text: Weight = 1
    image: Weight = 1
    like: Weight = 1
    not_: Weight = Field(0.5, alias="not")


class Search(Body):
    """Query: text or typed, image and like, at least one of them; several are combined."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [part]} for part in QUERY_PARTS]}
    )

    text: Text = LEFT_OUT
    typed: Text = Field(
        LEFT_OUT, description='Text as typed into a search field: -word and -"some words" exclude.'
    )
    image: Picture = LEFT_OUT
    like: DocumentId = Field(LEFT_OUT, description="Id of a document, for a more-like-this search.")
    not_: Annotated[list[Text], Field(max_length=16)] = Field(
        [],
        alias="not",
        description="Texts that are subtracted from the query; documents with all words of one of "
        "them are no hits.",
    )
    weights: Weights = LEFT_OUT
    target: Modality = Field("image", description="Modality of the documents that is searched.")
    k: K = Field(DEFAULT_K, description="Maximum number of hits.")
    offset: Offset = Field(
        0, description="Number of hits before the first one returned: `next` of the page before."
    )
    where: Where = LEFT_OUT
    radius: Radius = Field(LEFT_OUT, description="Maximum distance of a hit in bits.")
    min_confidence: Confidence = Field(
        LEFT_OUT,
        description="Minimum confidence of a hit; only for searches between text and picture.",
    )
    by: By = Field(
        "both",
        description="Ranking of a query with text: by codes, by words (BM25), or both, fused by "
        "reciprocal rank.",
    )
    stage: Stage = Field(
        "vectors",
        description="Last stage of the ranking by codes: int8 vectors, weighted Hamming distance, "
        "Hamming distance.",
    )
    word_weight: Weight = Field(1, description="Weight of the ranking by words.")

    @model_validator(mode="after")
    def _has_query(self) -> Self:
        _require(self, QUERY_PARTS, "at least one")
        return self


class SearchBatch(Body):
    """Several searches in one request."""

    searches: Annotated[list[Search], Field(min_length=1, max_length=MAX_SEARCHES)] = Field(
        description=f"Their `k` are at most {MAX_HITS_OF_BATCH:,} in total."
    )

    @model_validator(mode="after")
    def _few_hits(self) -> Self:
        total = sum(search.k for search in self.searches)
        if total > MAX_HITS_OF_BATCH:
            raise PydanticCustomError(
                "too_many_hits",
                "the searches ask for {total} hits, expected k of at most {most} in total",
                {"total": total, "most": MAX_HITS_OF_BATCH},
            )
        return self


class Encode(Body):
    """Exactly one of texts and images."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["texts"]}, {"required": ["images"]}]}
    )

    texts: Annotated[list[Text], Field(min_length=1, max_length=256)] = LEFT_OUT
    images: Annotated[list[Picture], Field(min_length=1, max_length=32)] = LEFT_OUT

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        _require(self, ("texts", "images"), "exactly one")
        return self


class Embed(BaseModel):
    """A text, a picture or both; "" and "null" are treated as absent, as OpenSearch sends them."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"minProperties": 1})

    input_text: Annotated[str, Field(max_length=10_000)] | None = Field(
        None,
        alias="inputText",
        description="A word joiner (U+2060) at the start is removed: OpenSearch's connectors "
        "change texts that are JSON, unless they start with another character.",
    )
    input_image: str | None = Field(None, alias="inputImage", description="Base64.")


def _require(
    body: Body, names: tuple[str, ...], number: Literal["exactly one", "at least one"]
) -> None:
    """Raise the error of a body without the fields of which it needs some."""
    found = [name for name in names if name in body.model_fields_set]
    if len(found) == 1 or (found and number == "at least one"):
        return
    raise PydanticCustomError(
        "required",
        "the body has {found}, expected {number} of {names}",
        {
            "found": ", ".join(sorted(body.model_fields_set)) or "no field",
            "number": number,
            "names": ", ".join(names),
        },
    )
