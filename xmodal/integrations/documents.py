"""What documents of other libraries have of a hit: its text, its metadata, its score."""

from __future__ import annotations

from typing import Any

from xmodal.index.contract import Hit, shown_source
from xmodal.modality import Modality


def text_of(hit: Hit, target: Modality) -> str:
    """Return the caption of a hit, else the path of its picture, else its id.

    ``target``: the searched modality, whose nearest caption or picture is preferred.
    """
    return shown_source(hit, "text", target) or shown_source(hit, "image", target) or hit.id


def metadata_of(hit: Hit) -> dict[str, Any]:
    """Return the fields of a hit, and ``id``, ``distance`` and ``confidence``.

    ``index`` is added where a search covers several indexes. These keys hide fields of the same
    names. ``distance``: in bits. ``confidence``: None where none is calibrated.
    """
    own = {"id": hit.id, "distance": hit.distance, "confidence": hit.confidence}
    return {**hit.fields, **own, **({} if hit.index_name is None else {"index": hit.index_name})}


def document_id(hit: Hit) -> str:
    """Return an id that differs between all hits of a search: ``INDEX/ID`` for several indexes."""
    return hit.id if hit.index_name is None else f"{hit.index_name}/{hit.id}"


def score_of(hit: Hit) -> float | None:
    """Return the score by which hits are ranked: of the fused ranking, else the similarity.

    Scores of one search fall with the rank, among its first hits
    (:data:`xmodal.index.contract.WINDOW`).
    """
    return hit.similarity if hit.score is None else hit.score
