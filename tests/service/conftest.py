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
def service(encoder: Encoder, index_path: Path, photos_folder: Path) -> Iterator[Running]:
    """A service over the index of ``photos_folder``, for the whole session."""
    with running(encoder, index_path, pictures=photos_folder) as started:
        yield started
