"""Output of xmodal train: epochs, baselines, methods and their settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from xmodal.cli.epochs import EpochLines, duration
from xmodal.cli.settings_help import SETTINGS
from xmodal.config import parse_settings
from xmodal.training.train import METHODS

Run = Callable[..., Any]


def test_epochs_show_few_figures_their_meaning_and_the_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show = EpochLines()
    losses = {"epoch": 1, "pairs": 3.25, "bits": 0.5}
    show(1, 3, losses | {"R@1": 0.1, "R@5": 0.5, "R@10": 0.75, "seconds": 60.0})
    show(3, 3, losses | {"R@1": 0.2, "R@5": 0.5, "R@10": 0.8, "seconds": 60.0})
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["R@1", "R@10"]
    assert lines[2] == "epoch   1/3  R@1 0.100  R@10 0.750  (60.0 s, at most 2 min left)"
    assert lines[3] == "epoch   3/3  R@1 0.200  R@10 0.800  (60.0 s)"


def test_epochs_without_validation_show_losses(capsys: pytest.CaptureFixture[str]) -> None:
    EpochLines()(1, 1, {"epoch": 1, "a": 1.0, "b": 2.0, "c": 3.0, "seconds": 0.5})
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["losses: a, b; nothing is validated", "epoch   1/1  a 1.000  b 2.000  (0.5 s)"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.4, "3 s"), (89, "89 s"), (600, "10 min"), (7260, "2 h 1 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("method", METHODS)
def test_help_lists_the_settings_of_a_method(method: str) -> None:
    defaults = {field.name: field.default for field in fields(METHODS[method].Config)}
    assert parse_settings(SETTINGS[method].split()) == defaults


def test_help_names_methods_and_settings(xmodal_cli: Run) -> None:
    out = xmodal_cli("train", "--help").out
    assert all(method in out for method in METHODS) and "temperature=" in out
