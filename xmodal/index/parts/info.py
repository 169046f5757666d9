"""What the metadata of a part says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from xmodal.data.sharding import Shard

FORMAT = 1
KEY = b"xmodal.part"


@dataclass(frozen=True)
class PartInfo:
    """What a part holds.

    ``listing``: digest of the data's files, see :func:`~xmodal.data.sharding.listing_digest`.
    ``source``: see :class:`~xmodal.index.origins.Origin`. ``dim``: length of the vectors, None
    without vectors and for a part without documents. ``codes``: number of codes by modality;
    ``problems``: number of unusable inputs by kind.
    """

    fingerprint: str
    bits: int
    listing: str
    source: str
    shard: Shard
    vectors: bool = True
    dim: int | None = None
    documents: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    problems: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the content for the metadata."""
        return {"format": FORMAT, **vars(self), "shard": [self.shard.number, self.shard.count]}
