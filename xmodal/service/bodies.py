"""Request bodies of the HTTP API: pydantic models, which validate requests and describe them.

Validation is strict: a string or true/false is no number. As in JSON Schema, ``20.0`` is a whole
number. The length of a list or object is checked before its elements, so that the cost of an
invalid body is bounded.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from xmodal.encoders.calibration import Stage
from xmodal.modality import Modality
from xmodal.retrieval.query import By
from xmodal.service.conditions import LEFT_OUT, Body, Where

DEFAULT_K, MAX_K, MAX_OFFSET = 20, 1000, 9000
MAX_ID_LENGTH = 2048
MAX_SEARCHES, MAX_HITS_OF_BATCH = 64, 10_000
QUERY_PARTS = ("text", "typed", "image", "like")
EXAMPLE = "a red circle on the left"


def _whole(value: Any) -> Any:
    """20 for 20.0, as in JSON Schema; other values unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


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
        "has {found}, expected {number} of {names}",
        {
            "found": ", ".join(sorted(body.model_fields_set)) or "no field",
            "number": number,
            "names": ", ".join(names),
        },
    )
