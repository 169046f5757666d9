"""What an operator must allow before ml-commons calls our service. Pure: nothing changes here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

ML = "plugins.ml_commons"
REMOTE = f"{ML}.remote_inference.enabled"
PRIVATE = f"{ML}.connector.private_ip_enabled"
TRUSTED = f"{ML}.trusted_connector_endpoints_regex"


class Lack(NamedTuple):
    """A cluster setting that is in the way: what it should be, and why."""

    setting: str
    wanted: Any
    why: str


def effective(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that hold, from the flat answer of ``/_cluster/settings`` with defaults."""
    levels = ("defaults", "persistent", "transient")
    return {name: value for level in levels for name, value in answer.get(level, {}).items()}


def lacking(settings: Mapping[str, Any], url: str, *, private: bool) -> list[Lack]:
    """What keeps a cluster from calling ``url``; ``private``: its host has a private address.

    A setting that the server does not tell is taken as it should be: the trial call will show.
    """
    out = []
    if _says(settings, REMOTE, "false"):
        out.append(Lack(REMOTE, True, "models behind HTTP are switched off"))
    if private and _says(settings, PRIVATE, "false"):
        out.append(Lack(PRIVATE, True, f"{urlsplit(url).hostname} is a private address"))
    trusted = settings.get(TRUSTED)
    if trusted is not None and not any(_matches(one, url) for one in trusted):
        out.append(Lack(TRUSTED, [*trusted, pattern(url)], f"none of its patterns fits {url}"))
    return out


def pattern(url: str) -> str:
    """The regular expression, as Java reads it, of everything below the host of ``url``."""
    parts = urlsplit(url)
    origin = re.sub(r"([.\[\]])", r"\\\1", f"{parts.scheme}://{parts.netloc}")
    return f"^{origin}/.*$"


def change(lacks: list[Lack]) -> dict[str, Any]:
    """The body of the PUT that allows all of it."""
    return {"persistent": {one.setting: one.wanted for one in lacks}}


def explained(lacks: list[Lack], url: str, curl: str) -> str:
    """What to tell a person: what lacks, the line that mends it, and our option that sends it."""
    lines = [f"this cluster does not let ml-commons call {url}; an operator has to allow it:"]
    lines += [f"  {one.setting}: {one.why}" for one in lacks]
    lines += ["by this line, or by repeating the command with --allow, which sends the same:", curl]
    return "\n".join(lines)


def _says(settings: Mapping[str, Any], name: str, value: str) -> bool:
    return str(settings.get(name)).lower() == value


def _matches(regex: str, url: str) -> bool:
    try:
        return re.fullmatch(regex, url) is not None
    except re.error:  # a pattern that only Java understands
        return False
