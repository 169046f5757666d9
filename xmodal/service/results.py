"""Response bodies of the HTTP API, as its description has them.

Handlers return JSON that they write themselves, part by part and outside of the event loop; the
tests validate every response against these models, in which no other fields are allowed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from xmodal.modality import Modality
from xmodal.service.conditions import LEFT_OUT

SignedByte = Annotated[int, Field(ge=-128, le=127)]
HexCode = Annotated[str, Field(pattern="^[0-9a-f]+$", description="Hexadecimal, first bit first.")]
Count = Annotated[int, Field(ge=0)]
Fields = Annotated[dict[str, Any], Field(description="Stored fields of the document.")]


class Result(BaseModel):
    """A JSON object without other fields."""

    model_config = ConfigDict(extra="forbid")


class Problem(Result):
    """An error (RFC 9457)."""

    title: str = Field(description="Name of the status.")
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str = Field(description="One line: what was found and what was expected.")


class Nearest(Result):
    """The caption (text) or picture (image) of the searched modality whose code is nearest."""

    position: Count = Field(description="Position in the field text or image.")
    text: str | None = None
    image: str | None = None


class Ranks(Result):
    """Rank, from 1, in each ranking of a fused search; null where a ranking lacks the document."""

    codes: int | None
    words: int | None


class Hit(Result):
    """A document that was found."""

    id: str
    index: str = Field(LEFT_OUT, description="Its index, where a search covers several.")
    distance: Count = Field(description="Hamming distance in bits.")
    confidence: Annotated[float, Field(ge=0, le=1)] | None = Field(
        description="Probability that the hit is right; null where none is calibrated."
    )
    similarity: float | None = Field(
        description="Cosine of the vectors, or 1 - 2 D / (sum of weights) for the weighted Hamming "
        "distance D."
    )
    score: float | None = Field(description="Sum of reciprocal ranks of a fused search; else null.")
    ranks: Ranks | None = Field(description="Of a fused search; else null.")
    matched: list[str] = Field(description="Words of the query that the document contains.")
    fields: Fields
    nearest: Nearest | None = Field(description="null if unknown.")
    picture: str | None = Field(
        description="Path of the thumbnail, of the nearest picture if pictures are searched; null "
        "if there is none."
    )


class Page(Result):
    """A page of hits, best first."""

    target: Modality
    bits: Count
    next: int | None = Field(
        description="`offset` of the next page; null if there are no more hits."
    )
    hits: list[Hit]


class Found(Page):
    """A page of hits, best first."""

    took_ms: float


class FoundBatch(Result):
    """The result of each search in order: its hits, or the problem that prevented them."""

    took_ms: float
    results: list[Page | Problem]


class Identity(Result):
    """The encoder of codes."""

    bits: Count
    encoder: str = Field(
        description="Fingerprint of the encoder. Codes of different encoders are not comparable."
    )


class Codes(Identity):
    """One code for each input, in order."""

    codes: list[HexCode]


class BinaryEmbeddings(Result):
    """A list of one code."""

    binary: list[list[SignedByte]]


class BinaryEmbedding(Result):
    """A code."""

    binary: list[SignedByte]


class Embedding(Identity):
    """Codes as signed bytes, in each shape that OpenSearch's connectors read."""

    text_code: list[SignedByte] | None
    image_code: list[SignedByte] | None
    embedding: list[SignedByte] = Field(
        description="The picture's code if there is a picture, else the text's; the same in "
        "embeddings and embeddingsByType."
    )
    embeddings: BinaryEmbeddings
    embeddings_by_type: BinaryEmbedding = Field(alias="embeddingsByType")


class Limits(Result):
    """Limits of requests."""

    body_bytes: int
    pixels: int
    seconds: float


class About(Identity):
    """Model, index and limits."""

    version: str
    method: str | None
    documents: Count
    ranks_words: bool = Field(description="Whether documents are also ranked by words.")
    min_confidence: float = Field(description="Confidence below which a hit is probably not right.")
    limits: Limits


class FilterValue(Result):
    """A value of a field."""

    value: str
    count: Count = Field(description="Number of documents that have it.")


class FilterField(Result):
    """A field that can be filtered on."""

    name: str
    values: list[FilterValue] = Field(description="Most frequent first.")


class Filters(Result):
    """Fields and their values."""

    fields: list[FilterField]


class Document(Result):
    """A document."""

    id: str
    fields: Fields
    picture: str | None = Field(description="Path of the thumbnail, or null.")


class Documents(Result):
    """The documents found; unknown ids are left out."""

    documents: list[Document]


class Health(Result):
    """State of the service."""

    status: Literal["live", "ready"]
    documents: Count = Field(LEFT_OUT, description="/health/ready only, and only without a token.")
