"""What a service allows, and to whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Limits of one service; ``token`` is asked for if there is one, and never shown.

    ``pictures``: only pictures in this folder are shown. ``hosts``: the names under which it may be
    spoken to (any, if empty), so that a page from elsewhere cannot reach a service on this machine
    by a name of its own. ``together``: how many texts are encoded at once (pictures: a quarter).
    ``look_seconds``: how often it looks whether another process has saved a local index.
    """

    pictures: Path = field(default_factory=Path.cwd)
    hosts: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
    body_bytes: int = 16 * 1024 * 1024
    pixels: int = 25_000_000
    head_seconds: float = 10.0
    body_seconds: float = 20.0
    seconds: float = 30.0
    waiting: int = 256
    together: int = 32
    look_seconds: float = 2.0
