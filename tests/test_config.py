"""Settings from text and files fill a dataclass, or an error names what would have fitted."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmodal.config import configure, parse_settings
from xmodal.errors import ConfigError


@dataclass(frozen=True)
class Example:
    """Some settings of each kind."""

    count: int = 3
    rate: float = 0.5
    kind: Literal["plain", "fancy"] = "plain"
    name: str = "x"
    quick: bool = False


def test_fields_that_are_not_given_stay_as_they_are() -> None:
    assert configure(Example, {}) == Example()
    assert configure(Example, {"count": 7}) == Example(count=7)


def test_a_whole_number_is_a_number() -> None:
    filled = configure(Example, {"rate": 2})
    assert filled.rate == 2.0 and isinstance(filled.rate, float)


@pytest.mark.parametrize(
    ("given_", "message"),
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
        ({"speed": 1}, "there is no setting 'speed'; there are count, rate, kind, name, quick"),
    ],
)
def test_wrong_settings_are_refused_by_name(given_: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(Example, given_)


def test_text_is_parsed_as_json_where_it_is_json() -> None:
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
def test_text_without_a_name_or_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not understood, expected NAME=VALUE"):
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
def test_what_was_written_can_be_read(example: Example) -> None:
    written = json.loads(json.dumps(asdict(example)))
    assert configure(Example, written) == example
    typed = [f"{one.name}={json.dumps(getattr(example, one.name))}" for one in fields(Example)]
    assert configure(Example, parse_settings(typed)) == example


def test_a_method_is_configured_by_its_own_defaults() -> None:
    from xmodal.training.methods.schgan.config import Config

    assert configure(Config, json.loads(json.dumps(asdict(Config())))) == Config()
