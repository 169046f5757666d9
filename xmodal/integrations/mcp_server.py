"""MCP server: searches of one index as tools for language models (extra ``mcp``).

The tools only read. Results have at most MAX_HITS hits with FIELD_CHARACTERS of fields each, so
that they fit into the context of a model.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field, TypeAdapter

from xmodal import __version__
from xmodal.data.packed import picture_stat, read_picture
from xmodal.errors import ConfigError, DataError, IndexMissing, XmodalError
from xmodal.index.contract import Hit, shown_source
from xmodal.modality import Modality
from xmodal.retrieval.query import Query
from xmodal.retrieval.retriever import Retriever
from xmodal.service import Settings
from xmodal.service.bodies import Confidence, DocumentId, Offset, Text
from xmodal.service.conditions import Where
from xmodal.service.image_input import check_picture, decode_image
from xmodal.service.thumbnails import Thumbnails

MAX_HITS = 50
FIELD_CHARACTERS, DOCUMENT_CHARACTERS = 2_000, 50_000
"""Characters of the fields of a hit, and of a document that is fetched."""
MAX_PICTURE_BYTES = Settings.max_body_bytes
MAX_FACETS = 100

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

Count = Annotated[int, Field(ge=1, le=MAX_HITS, description="Maximum number of hits.")]
Skipped = Annotated[Offset, Field(description="Hits to skip: next_offset of the result before.")]
Target = Annotated[Modality, Field(description="What is searched: pictures, or their texts.")]
Filters = Annotated[Where | None, Field(description="Filters on fields, see list_fields.")]
WHERE: TypeAdapter[Any] = TypeAdapter(Where)
Base64 = Annotated[str, Field(max_length=MAX_PICTURE_BYTES * 4 // 3 + 4)]


class FoundHit(BaseModel):
    """One hit."""

    id: str
    index: str | None = Field(description="Its index, where a search covers several.")
    distance: int = Field(description="Hamming distance in bits; smaller is nearer.")
    confidence: float | None = Field(
        description="Probability that the hit is right; null where none is calibrated."
    )
    matched: list[str] = Field(description="Words of the query that the document contains.")
    caption: str | None
    picture: str | None = Field(description="Path of the picture.")
    fields: dict[str, Any]
    shortened: bool = Field(description="Whether fields were cut; get_document returns more.")


class Found(BaseModel):
    """Hits, best first."""

    hits: list[FoundHit]
    next_offset: int | None = Field(description="offset of the next hits; null if there are none.")


class Document(BaseModel):
    """A document."""

    id: str
    fields: dict[str, Any]
    shortened: bool = Field(description="Whether fields were cut.")


class FieldValues(BaseModel):
    """A field and its most frequent values."""

    name: str
    values: dict[str, int] = Field(description="Number of documents by value.")


class About(BaseModel):
    """The index and the fields that can be filtered on."""

    documents: int
    pictures: int = Field(description="Documents with a picture.")
    texts: int = Field(description="Documents with a text.")
    min_confidence: float = Field(description="Confidence below which a hit is probably wrong.")
    fields: list[FieldValues] = Field(
        description="Fields with few and short values; others can be filtered on, too."
    )


class Tools:
    """The tools of a server. ``pictures``: folder of the files that a query may name, or None.

    One search runs at a time. Errors of xmodal are results that the model can read.
    """

    def __init__(self, retriever: Retriever, pictures: Path | None = None) -> None:
        self._retriever, self._pictures = retriever, pictures
        self._lock = threading.Lock()

    def search_by_text(
        self,
        text: Text,
        k: Count = 10,
        target: Target = "image",
        where: Filters = None,
        min_confidence: Confidence | None = None,
        offset: Skipped = 0,
    ) -> Found:
        """Search pictures, or texts, that words describe. Words need not occur in a caption."""
        return self._search(
            Query(text=text, target=target, min_confidence=min_confidence), k, where, offset
        )

    def search_by_picture(
        self,
        path: Annotated[str | None, Field(description="Picture below the allowed folder.")] = None,
        base64: Annotated[Base64 | None, Field(description="Picture file, or data URL.")] = None,
        text: Annotated[Text | None, Field(description="Words that change the query.")] = None,
        k: Count = 10,
        target: Target = "image",
        where: Filters = None,
        offset: Skipped = 0,
    ) -> Found:
        """Search pictures that are similar to a picture, or texts that describe it."""
        if (path is None) == (base64 is None):
            raise ConfigError("expected either path or base64")
        image = self._file(path) if path is not None else _decoded(str(base64))
        return self._search(Query(image=image, text=text, target=target), k, where, offset)

    def more_like(
        self,
        id: DocumentId,
        k: Count = 10,
        target: Target = "image",
        where: Filters = None,
        offset: Skipped = 0,
    ) -> Found:
        """Search documents that are similar to a document."""
        return self._search(Query(like=id, target=target), k, where, offset)

    def get_document(self, id: DocumentId) -> Document:
        """Return the fields of a document."""
        with self._lock:
            found = self._retriever.index.get([id]).fields_by_id()
        if id not in found:
            raise IndexMissing(f"there is no document {id[:100]!r}")
        fields, shortened = shortened_fields(found[id], DOCUMENT_CHARACTERS)
        return Document(id=id, fields=fields, shortened=shortened)

    def list_fields(self) -> About:
        """Return the number of documents, and fields with their values, for filters (where)."""
        index, encoder = self._retriever.index, self._retriever.encoder
        with self._lock:
            facets = index.facets()
            counts = index.count("image"), index.count("text"), len(index)
        return About(
            documents=counts[2],
            pictures=counts[0],
            texts=counts[1],
            min_confidence=0.0 if encoder is None else encoder.confidence.min_confidence,
            fields=[
                FieldValues(name=name, values=dict(values))
                for name, values in list(facets.items())[:MAX_FACETS]
            ],
        )

    def _search(self, query: Query, k: int, where: Mapping[str, Any] | None, offset: int) -> Found:
        plain = WHERE.dump_python(where, by_alias=True, exclude_unset=True) if where else None
        wanted = replace(query, k=k + 1, offset=offset, where=plain)
        with self._lock:
            (hits,) = self._retriever.search_batch([wanted])
        found = [_hit(hit, query.searched) for hit in hits[:k]]
        return Found(hits=found, next_offset=offset + k if len(hits) > k else None)

    def _file(self, name: str) -> bytes:
        """Return the file of a picture below the allowed folder. Raises DataError."""
        if self._pictures is None:
            raise ConfigError("no folder is allowed (--pictures): send the picture as base64")
        path = Thumbnails(self._pictures).path("", name)
        if path is None:
            raise DataError(f"there is no picture {name[:200]!r} below the allowed folder")
        if picture_stat(path).st_size > MAX_PICTURE_BYTES and path.is_file():
            raise DataError(f"{name[:200]!r} has more than {MAX_PICTURE_BYTES:,} bytes")
        data = read_picture(path)
        check_picture(data, Settings.max_pixels)
        return data


def create_server(retriever: Retriever, pictures: Path | None = None) -> MCPServer[Any]:
    """Return the server whose ``run()`` serves standard input and output.

    ``pictures``: see :class:`Tools`.
    """
    server: MCPServer[Any] = MCPServer(
        "xmodal",
        version=__version__,
        instructions="Search an index of pictures and texts. list_fields says what is in it.",
        log_level="WARNING",
    )
    tools = Tools(retriever, pictures)
    for tool in (
        tools.search_by_text,
        tools.search_by_picture,
        tools.more_like,
        tools.get_document,
        tools.list_fields,
    ):
        annotations = ToolAnnotations(
            read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
        )
        server.add_tool(_readable_errors(tool), annotations=annotations)
    return server


def shortened_fields(fields: Mapping[str, Any], limit: int) -> tuple[dict[str, Any], bool]:
    """Return fields of about ``limit`` characters as text in total, and whether any was cut.

    Fields are taken in their order; texts are cut, lists and other values are left out.
    """
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        size = len(name) + len(str(value))
        if size <= limit:
            kept[name] = value
        elif isinstance(value, str) and limit > len(name):
            kept[name] = value[: limit - len(name)] + "..."
        limit = max(0, limit - size)
    return kept, kept != dict(fields)


def _hit(hit: Hit, target: Modality) -> FoundHit:
    fields, shortened = shortened_fields(hit.fields, FIELD_CHARACTERS)
    caption, picture = (shown_source(hit, m, target) for m in ("text", "image"))
    return FoundHit(
        id=hit.id,
        index=hit.index_name,
        distance=hit.distance,
        confidence=hit.confidence,
        matched=list(hit.matched),
        caption=None if caption is None else caption[:FIELD_CHARACTERS],
        picture=picture,
        fields=fields,
        shortened=shortened,
    )


def _decoded(base64: str) -> bytes:
    return decode_image(base64, Settings.max_pixels)


def _readable_errors(tool: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return a tool whose errors of xmodal are sent to the model, in one line."""

    @functools.wraps(tool)
    def call(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        try:
            return tool(*arguments, **options)
        except XmodalError as error:
            raise ToolError(str(error)) from error

    return call
