"""Fixtures of the service tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.service_process import Running, running

if TYPE_CHECKING:
    from xmodal.encoders.encoder import Encoder


@pytest.fixture(scope="session")
def service(encoder: Encoder, index_path: Path, world: Path) -> Iterator[Running]:
    """A service over the index of ``world``, for the whole session."""
    with running(encoder, index_path, pictures=world) as started:
        yield started
