"""All targets of the fuzzer; importing this module fills ``TARGETS``."""

from __future__ import annotations

from importlib.util import find_spec

from fuzz import (
    index_targets,
    model_targets,
    picture_targets,
    query_targets,
    reader_targets,
    shard_targets,
)
from fuzz.registry import TARGETS, Target

__all__ = ["READERS", "TARGETS", "available"]

OTHERS = (index_targets, model_targets, query_targets)
DATA = (picture_targets, reader_targets, shard_targets)
READERS = {
    name for name, one in TARGETS.items() if one.module in [module.__name__ for module in DATA]
}
"""Targets that read data; the others read what xmodal wrote, or what was typed."""


def available() -> dict[str, Target]:
    """Return the targets whose packages are installed, by name."""
    return {name: one for name, one in sorted(TARGETS.items()) if all(map(find_spec, one.needs))}
