"""One service over the small world for all tests."""

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
    """The service over the small world."""
    with running(encoder, index_path, pictures=world) as one:
        yield one
