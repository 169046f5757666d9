"""Documents, their pictures, and the fields that can be filtered on."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from xmodal.index.contract import source_at
from xmodal.service.backend import BackendDependency
from xmodal.service.bodies import DocumentId
from xmodal.service.description import get, problems, responses
from xmodal.service.errors import RequestError
from xmodal.service.json_response import cacheable, json_response
from xmodal.service.parameters import Digits, Parameters
from xmodal.service.results import Documents, Filters
from xmodal.service.thumbnails import SIZES, Size

router = APIRouter()
MAX_IDS = 100


class DocumentsParameters(Parameters):
    """Parameters of GET /v1/documents."""

    id: Annotated[list[DocumentId], Field(min_length=1, max_length=MAX_IDS)] = Field(
        description="Ids of documents; unknown ids are skipped.", examples=[["a"]]
    )


class PictureParameters(Parameters):
    """Parameters of GET /v1/picture."""

    id: DocumentId
    size: Annotated[Size, Digits] = Field(SIZES[0], description="Longest side in pixels.")
    position: Annotated[int, Field(ge=0, le=999_999), Digits] = Field(
        0, description="Position in the field image, if it is a list."
    )


@get(
    router,
    "/v1/filters",
    summary="Fields that can be filtered on, with their values.",
    responses=responses(Filters),
)
async def filters(backend: BackendDependency) -> Response:
    """Fields with few and short values; others can be filtered on, too."""
    facets = await backend.in_thread(backend.index.facets)
    fields = [
        {"name": name, "values": [{"value": v, "count": n} for v, n in values]}
        for name, values in facets.items()
    ]
    return json_response({"fields": fields})


@get(router, "/v1/documents", summary="Fields of documents.", responses=responses(Documents, 422))
async def documents(
    backend: BackendDependency, parameters: Annotated[DocumentsParameters, Query()]
) -> Response:
    """Documents in the order of the ids, each once."""

    def fetch() -> list[dict[str, Any]]:
        found = backend.index.get(parameters.id).fields_by_id()
        return [
            {"id": id_, "fields": fields, "picture": backend.picture_path(id_, fields)}
            for id_, fields in found.items()
        ]

    return json_response({"documents": await backend.in_thread(fetch)})


@get(
    router,
    "/v1/picture",
    summary="Thumbnail of a document's picture.",
    response_class=Response,
    responses={200: {"description": "A JPEG.", "content": {"image/jpeg": {}}}}
    | problems(304, 404, 422),
)
async def picture(
    request: Request,
    backend: BackendDependency,
    parameters: Annotated[PictureParameters, Query()],
) -> Response:
    """Smaller pictures are not enlarged."""
    id_ = parameters.id
    document = await backend.in_thread(backend.index.get, [id_])
    fields = document.fields_by_id().get(id_, {})
    path = backend.thumbnails.path(id_, source_at(fields.get("image"), parameters.position))
    if path is None:
        raise RequestError(404, f"no picture of document {id_[:100]!r}")
    data = await backend.in_thread(backend.thumbnails.jpeg, path, parameters.size)
    return cacheable(request, data, "image/jpeg", "private, max-age=600")
