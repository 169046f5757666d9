"""Cluster settings that ml-commons requires to call the HTTP service. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

ML = "plugins.ml_commons"
REMOTE_INFERENCE = f"{ML}.remote_inference.enabled"
PRIVATE_IP = f"{ML}.connector.private_ip_enabled"
TRUSTED_ENDPOINTS = f"{ML}.trusted_connector_endpoints_regex"


class MissingSetting(NamedTuple):
    """A cluster setting that prevents the call: its name, the required value, and the reason."""

    setting: str
    required: Any
    reason: str


def effective_settings(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the effective settings of a flat ``/_cluster/settings`` answer with defaults."""
    levels = ("defaults", "persistent", "transient")
    return {name: value for level in levels for name, value in answer.get(level, {}).items()}


def missing_settings(
    settings: Mapping[str, Any], url: str, *, private_ip: bool
) -> list[MissingSetting]:
    """Return the settings that prevent a cluster from calling ``url``.

    ``private_ip``: the host of ``url`` has a private address. Settings that the answer of the
    server does not contain count as correct: the test request of ``connect`` covers them.
    """
    missing = []
    if _equals(settings, REMOTE_INFERENCE, "false"):
        missing.append(MissingSetting(REMOTE_INFERENCE, True, "remote models are disabled"))
    if private_ip and _equals(settings, PRIVATE_IP, "false"):
        reason = f"{urlsplit(url).hostname} is a private address"
        missing.append(MissingSetting(PRIVATE_IP, True, reason))
    trusted = settings.get(TRUSTED_ENDPOINTS)
    if trusted is not None and not any(_matches(regex, url) for regex in trusted):
        required = [*trusted, endpoint_pattern(url)]
        missing.append(MissingSetting(TRUSTED_ENDPOINTS, required, f"no pattern matches {url}"))
    return missing


def endpoint_pattern(url: str) -> str:
    """Return the Java regular expression of all addresses on the host of ``url``."""
    parts = urlsplit(url)
    origin = re.sub(r"([.\[\]])", r"\\\1", f"{parts.scheme}://{parts.netloc}")
    return f"^{origin}/.*$"


def settings_body(missing: list[MissingSetting]) -> dict[str, Any]:
    """Return the body of ``PUT /_cluster/settings`` that sets the required values."""
    return {"persistent": {one.setting: one.required for one in missing}}


def explanation(missing: list[MissingSetting], doing: str, curl: str) -> str:
    """Return an error message of several lines; the last one is the ``curl`` command.

    ``doing``: what ml-commons may not do.
    """
    lines = [f"the settings of this cluster do not allow ml-commons to {doing}:"]
    lines += [f"  {one.setting}: {one.reason}" for one in missing]
    lines += ["repeat the command with --allow, or let an operator run the same change:", curl]
    return "\n".join(lines)


def _equals(settings: Mapping[str, Any], name: str, value: str) -> bool:
    return str(settings.get(name)).lower() == value


def _matches(regex: str, url: str) -> bool:
    try:
        return re.fullmatch(regex, url) is not None
    except re.error:  # valid in Java only
        return False
