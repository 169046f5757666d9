"""Settings from what a person types or a file says, into a dataclass, with errors that help."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from xmodal.errors import ConfigError

T = TypeVar("T")

DEFAULT_BACKBONE = "openai/clip-vit-base-patch32"


@dataclasses.dataclass(frozen=True)
class Options:
    """What a person chooses for a training run, beside the method's own settings."""

    method: str = "schgan"
    bits: int = 64
    image_backbone: str = DEFAULT_BACKBONE
    text_backbone: str = DEFAULT_BACKBONE
    label_share: float = 1.0
    """Hide the labels of the other training pairs (for experiments)."""
    validation: float = 0.1
    query: float = 0.1
    split_seed: int = 0
    seed: int = 0
    patience: int = 10


def configure(kind: type[T], values: Mapping[str, Any]) -> T:
    """An instance of the dataclass ``kind`` with some fields set.

    Raises ConfigError for an unknown field or a value of another type, naming what there is.
    """
    hints = get_type_hints(kind)
    names = [one.name for one in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = [name for name in values if name not in names]
    if unknown:
        raise ConfigError(f"there is no setting {unknown[0]!r}; there are {', '.join(names)}")
    return kind(**{name: _fitting(name, value, hints[name]) for name, value in values.items()})


def check_at_least(config: object, least: float, *names: str) -> None:
    """Raise ConfigError for the first of the fields that is smaller than ``least``, or NaN."""
    for name in names:
        value = getattr(config, name)
        if not value >= least:
            raise ConfigError(f"{name} is {value}, expected at least {least:g}")


def check_at_most(config: object, most: float, *names: str) -> None:
    """Raise ConfigError for the first of the fields that is larger than ``most``, or NaN."""
    for name in names:
        value = getattr(config, name)
        if not value <= most:
            raise ConfigError(f"{name} is {value}, expected at most {most:g}")


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """``["epochs=20", "negatives=random"]`` -> a mapping; values are JSON where they can be."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"setting {text!r} not understood, expected NAME=VALUE")
        try:
            values[name.strip()] = json.loads(value)
        except json.JSONDecodeError:
            values[name.strip()] = value.strip()
    return values


def _fitting(name: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            choices = ", ".join(map(str, get_args(hint)))
            raise ConfigError(f"{name} is {value!r}, expected one of {choices}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise ConfigError(f"{name} is {value!r}, expected {kinds.get(hint, hint)}")
    return value
