"""A model hub that runs here, and the files of a portable encoder for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub_server import Hub, running_hub

PATTERN = "/{repo_id}/resolve/{revision}/{filename}"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, which the client uses with an empty cache and no token."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with running_hub() as hub:
        for name, value in {
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + PATTERN,
            "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        yield hub


@pytest.fixture
def files(portable_path: Path) -> dict[str, bytes]:
    """The files of a portable encoder."""
    return {path.name: path.read_bytes() for path in portable_path.iterdir()}
