"""Options of training, and parsing of settings into dataclasses."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from xmodal.errors import ConfigError

T = TypeVar("T")
log = logging.getLogger(__name__)

DEFAULT_BACKBONE = "openai/clip-vit-base-patch32"
FEATURES = "features"
"""In place of a backbone: features of a file, of which an encoder knows the dimension alone."""
Precision = Literal["float32", "bfloat16"]
"""Number format in which backbones compute."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

OLD_NAMES = {
    "aim": "reward_margin",
    "asking": "synthetic_queries",
    "average": "ema_decay",
    "company": "neighbours_per_item",
    "decoded": "reconstruction_weight",
    "judge_units": "discriminator_units",
    "player_rate": "network_rate",
    "policy_uses": "policy_pool_share",
    "positive_uses": "positive_pool_share",
    "remake": "reconstruction_weight",
}
"""Settings of earlier versions, in commands and in config.json, and their current names."""
OLD_VALUES = {("positives", "believed"): "pseudo-labels"}
"""Values of settings in earlier versions, and their current values."""
REMOVED = {
    "fine_tune_batch": 256,
    "fine_tune_epochs": 12,
    "fine_tune_tower_rate": 3e-4,
    "pace": 0.0,
    "trust": "all",
    "trust_entropy": 0.3,
}
"""Removed settings, and the only value that is still accepted."""


ADDED_OPTIONS: dict[str, Any] = {
    "precision": "float32",
    "split_map": {},
    "trust_remote_code": False,
}
"""Options that models of earlier versions lack, and the values that describe those."""

ADDED_SETTINGS: dict[str, Any] = {
    "unpaired": "auto",
    "unpaired_weight": 0.3,
    "unpaired_rounds": 2,
    "unpaired_neighbours": 10,
    "unpaired_temperature": 0.05,
    "unpaired_students": 4,
    "noise": "none",
    "fine_tune": "none",
    "fine_tune_rate": 3e-4,
    "prefixes": 0,
}
"""Settings that models of earlier versions lack, with the values at which their data, which has
pairs alone, is trained as before."""
UNUSED_SETTINGS = {"fine_tune_rate": ("fine_tune", "none")}
"""Settings without effect while another one has this value."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a training run that do not depend on the method."""

    method: str = "auto"
    """Training method; "auto": schgan for data with labels, else contrastive."""
    bits: int = 256
    image_backbone: str = DEFAULT_BACKBONE
    text_backbone: str = DEFAULT_BACKBONE
    precision: Precision = "float32"
    """Precision of the backbones, stored in the model. It changes codes."""
    label_share: float = 1.0
    """Share of the training pairs whose labels are used, for experiments."""
    validation: float = 0.1
    """Share of the groups of pairs that select the best epoch."""
    query: float = 0.1
    """Share of the groups of pairs that are held out as queries for evaluation."""
    split_seed: int = 0
    seed: int = 0
    patience: int = 10
    """Number of epochs without a better validation score after which training ends."""
    split_map: dict[str, str] = dataclasses.field(default_factory=dict)
    """Names of splits in the data, and the parts that they mean."""
    trust_remote_code: bool = False
    """Whether code that belongs to the backbones runs."""


def configure(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return an instance of the dataclass ``kind`` with some fields set.

    Names of earlier versions (``OLD_NAMES``) are accepted and logged. Raises ConfigError for an
    unknown field and for a value of another type.
    """
    hints = get_type_hints(kind)
    current = current_names(kind, values)
    unknown = [name for name in current if name not in hints]
    if unknown:
        raise ConfigError(f"there is no setting {unknown[0]!r}, expected one of {', '.join(hints)}")
    for name in values:
        if name not in hints and name in OLD_NAMES:
            log.warning("setting %s was renamed to %s", name, OLD_NAMES[name])
    return kind(**{name: _converted(name, value, hints[name]) for name, value in current.items()})


def current_names(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the settings of earlier versions to the fields of ``kind``, and drop removed ones.

    Raises ConfigError for a removed setting with a value that has no equivalent.
    """
    fields = {field.name for field in dataclasses.fields(kind)}
    current: dict[str, Any] = {}
    for name, stored in values.items():
        new = OLD_NAMES.get(name, name)
        value = OLD_VALUES.get((name, stored), stored) if isinstance(stored, str) else stored
        if name in fields or (new not in fields and name not in REMOVED):
            current[name] = value
        elif new in fields:
            current[new] = value
        elif value != REMOVED[name]:
            raise ConfigError(f"setting {name} was removed: {name}={value!r} has no equivalent")
    return current


def added_settings(config: Any) -> dict[str, Any]:
    """Return those of ``ADDED_SETTINGS`` that the configuration of a method has."""
    fields = {field.name for field in dataclasses.fields(config)}
    return {name: value for name, value in ADDED_SETTINGS.items() if name in fields}


def used_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that have an effect, see ``UNUSED_SETTINGS``."""
    unused = {
        name
        for name, (other, value) in UNUSED_SETTINGS.items()
        if other in settings and settings[other] == value
    }
    return {name: value for name, value in settings.items() if name not in unused}


def check_at_least(config: object, minimum: float, *names: str) -> None:
    """Raise ConfigError for the first field that is smaller than ``minimum``, or NaN."""
    for name in names:
        value = getattr(config, name)
        if not value >= minimum:
            raise ConfigError(f"{name} is {value}, expected at least {minimum:g}")


def check_at_most(config: object, maximum: float, *names: str) -> None:
    """Raise ConfigError for the first field that is larger than ``maximum``, or NaN."""
    for name in names:
        value = getattr(config, name)
        if not value <= maximum:
            raise ConfigError(f"{name} is {value}, expected at most {maximum:g}")


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Parse settings such as ``["epochs=20", "negatives=random"]``; a value is JSON, else text.

    Raises ConfigError for a text that is not NAME=VALUE.
    """
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"setting {text!r} is invalid, expected NAME=VALUE")
        try:
            values[name.strip()] = json.loads(value)
        except json.JSONDecodeError:
            values[name.strip()] = value.strip()
    return values


def _converted(name: str, value: Any, hint: Any) -> Any:
    """Return the value as the type of the field; raise ConfigError if it does not fit."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            choices = ", ".join(map(str, get_args(hint)))
            raise ConfigError(f"{name} is {value!r}, expected one of {choices}")
        return value
    if get_origin(hint) is dict:
        if not isinstance(value, dict) or not all(isinstance(x, str) for x in value.values()):
            raise ConfigError(f"{name} is {value!r}, expected names and texts")
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise ConfigError(f"{name} is {value!r}, expected {kinds.get(hint, hint)}")
    return value
