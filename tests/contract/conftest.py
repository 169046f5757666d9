"""The backends of the contract suite: to add one, add its name and how it names an address."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from index_backend import Backend


@pytest.fixture(params=["local"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """One backend after the other."""
    numbers = count()
    new_address = {"local": lambda: str(tmp_path / f"index-{next(numbers)}")}
    made = Backend(new_address[request.param])
    yield made
    made.close_all()
