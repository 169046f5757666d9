"""Small requests are answered while hostile requests run; benchmarks/hostile.py has all kinds."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.hostile import attack, service

KINDS = (
    "list of empty objects",
    "deep lists",
    "16 negatives of 10,000 characters",
    "chunks of 1 byte",
    "PNG of 60,000 x 60,000",
)
FREEZE_MS = 2000.0
"""A request of each kind would delay others for longer if its cost was not bounded."""


@pytest.mark.slow
def test_hostile_requests_do_not_delay_others(portable_path: Path, index_path: Path) -> None:
    with service(Namespace(model=str(portable_path), index=str(index_path))) as (port, _):
        rows = attack(port, 2 * len(KINDS), KINDS)
    assert {row.kind for row in rows} == set(KINDS)
    for row in rows:
        assert row.live < FREEZE_MS + 20 * row.control, row
        assert not {"500", "503"} & set(row.statuses), row
