"""``configure`` and ``parse_settings``: values, errors, and settings of earlier versions."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmodal.config import OLD_NAMES, REMOVED, configure, parse_settings
from xmodal.errors import ConfigError


@dataclass(frozen=True)
class Example:
    """Some settings of each kind."""

    count: int = 3
    rate: float = 0.5
    kind: Literal["plain", "fancy"] = "plain"
    name: str = "x"
    quick: bool = False


def test_configure_keeps_defaults() -> None:
    assert configure(Example, {}) == Example()
    assert configure(Example, {"count": 7}) == Example(count=7)


def test_configure_converts_integers_to_float() -> None:
    filled = configure(Example, {"rate": 2})
    assert filled.rate == 2.0 and isinstance(filled.rate, float)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 1.5}, "count is 1.5, expected a whole number"),
        ({"count": True}, "count is True, expected a whole number"),
        ({"count": "many"}, "count is 'many', expected a whole number"),
        ({"count": None}, "count is None, expected a whole number"),
        ({"rate": "fast"}, "rate is 'fast', expected a number"),
        ({"rate": False}, "rate is False, expected a number"),
        ({"quick": 1}, "quick is 1, expected true or false"),
        ({"name": 5}, "name is 5, expected text"),
        ({"kind": "gold"}, "kind is 'gold', expected one of plain, fancy"),
        ({"kind": ["plain"]}, r"kind is \['plain'\], expected one of plain, fancy"),
        ({"speed": 1}, "'speed'"),
    ],
)
def test_configure_raises_for_unknown_names_and_wrong_types(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(Example, settings)


def test_parse_settings_reads_json_values() -> None:
    texts = ["count=20", "rate=1e-3", "kind=fancy", " name = a=b ", 'quoted="5"', "quick=true"]
    assert parse_settings(texts) == {
        "count": 20,
        "rate": 0.001,
        "kind": "fancy",
        "name": "a=b",
        "quoted": "5",
        "quick": True,
    }
    assert parse_settings(["count=1", "count=2"]) == {"count": 2}  # the last one counts


@pytest.mark.parametrize("text", ["count", "=5", "  = 5", ""])
def test_parse_settings_raises_without_name_or_value(text: str) -> None:
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        parse_settings([text])


@given(
    st.builds(
        Example,
        count=st.integers(),
        rate=st.floats(allow_nan=False),
        kind=st.sampled_from(["plain", "fancy"]),
        name=st.text(),
        quick=st.booleans(),
    )
)
def test_settings_round_trip_through_json_and_the_command_line(example: Example) -> None:
    written = json.loads(json.dumps(asdict(example)))
    assert configure(Example, written) == example
    typed = [f"{one.name}={json.dumps(getattr(example, one.name))}" for one in fields(Example)]
    assert configure(Example, parse_settings(typed)) == example


def test_configure_reads_the_default_config_of_a_method() -> None:
    from xmodal.training.methods.schgan.config import Config

    assert configure(Config, json.loads(json.dumps(asdict(Config())))) == Config()


# ---- settings of earlier versions ----------------------------------------------------------------

OLD_SCHGAN = {"aim": 0.5, "pace": 0.0, "policy_uses": 0.2, "positives": "believed", "trust": "all"}


def test_configure_reads_settings_of_earlier_versions(caplog: pytest.LogCaptureFixture) -> None:
    from xmodal.training.methods.schgan.config import Config

    expected = Config(reward_margin=0.5, policy_pool_share=0.2, positives="pseudo-labels")
    assert configure(Config, OLD_SCHGAN) == expected
    assert any("policy_pool_share" in message for message in caplog.messages)


@pytest.mark.parametrize("setting", [{"pace": 0.5}, {"trust": "policy"}])
def test_configure_raises_for_removed_settings_with_an_effect(setting: dict[str, Any]) -> None:
    from xmodal.training.methods.schgan.config import Config

    with pytest.raises(ConfigError, match=f"setting {next(iter(setting))} was removed"):
        configure(Config, setting)


def test_configure_keeps_fields_that_share_a_removed_name() -> None:
    from xmodal.training.methods.ssah.config import Config

    assert configure(Config, {"pace": 0.5}).pace == 0.5


def test_old_names_are_not_fields_and_new_names_are() -> None:
    from xmodal.training.train import METHODS

    names = {one.name for method in METHODS.values() for one in fields(method.Config)}
    assert set(OLD_NAMES.values()) <= names
    assert not names & set(OLD_NAMES)
    assert not names & (set(REMOVED) - {"pace"})
