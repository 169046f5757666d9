"""The rows of the tables: experiment records, files of their own that can be run alone.

A record is TOML::

    about = "no adversary: negatives at random"
    method = "schgan"                  # any that `xmodal train --method` knows
    faults = ["leaked labels"]         # of schgan-paper alone: as released; "all" for every one
    [settings]                         # what differs from the method's defaults
    negatives = "random"

Rows of one fault each come from ``FAULTS`` of schgan-paper, not from files.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xmodal.config import configure
from xmodal.errors import ConfigError
from xmodal.training.methods.schgan_paper import train as schgan_paper
from xmodal.training.methods.schgan_paper.config import FAULTS
from xmodal.training.train import METHODS

FOLDER = Path(__file__).parent / "schgan"
ORDER = (
    "no-pseudo-labels", "plain", "random", "semi-hard", "default",
    "policy", "reinforce", "positives",
)  # fmt: skip
"""Rows of the ablation in this order; others in the folder follow. Earlier tables in results/ also
have hardest, paced and trust, whose settings were removed because they had no effect."""
QUICK: dict[str, dict[str, Any]] = {
    "schgan": {"epochs": 5, "hidden": 256, "warmup": 1},
    "schgan-paper": {"epochs": 2, "pretraining": 1, "hidden": 512},
}


SMALL = 2048
"""Units of the towers where faults are compared one by one; the release has 8192."""


@dataclass(frozen=True)
class Row:
    """A method with settings that differ from its defaults."""

    name: str
    about: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    def config(self) -> Any:
        """All settings. Raises ConfigError for one that does not exist."""
        released = {k: v for name in self.faults for k, v in FAULTS[name].items()}
        return configure(METHODS[self.method].Config, released | self.settings)

    def quick(self) -> Row:
        """The same with few epochs of small towers: does it run?"""
        return replace(self, settings=QUICK.get(self.method, {"epochs": 3}) | self.settings)


def read(path: Path) -> Row:
    """The record of a file, its settings checked. Raises ConfigError if it is none."""
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a record: {error}") from None
    if extra := sorted(set(told) - {"about", "method", "faults", "settings"}):
        raise ConfigError(f"{path}: there is no {extra[0]!r} in a record")
    method = told.get("method", "schgan")
    if method not in METHODS:
        raise ConfigError(f"{path}: method is {method!r}, expected one of {', '.join(METHODS)}")
    faults = told.get("faults", [])
    faults = tuple(FAULTS) if faults == "all" else tuple(faults)
    if faults and METHODS[method] is not schgan_paper:
        raise ConfigError(f"{path}: only schgan-paper has faults")
    if unknown := [one for one in faults if one not in FAULTS]:
        names = ", ".join(FAULTS)
        raise ConfigError(f"{path}: there is no fault {unknown[0]!r}; there are {names}")
    row = Row(path.stem, str(told.get("about", "")), method, told.get("settings", {}), faults)
    try:
        row.config()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return row


def records(folder: Path = FOLDER) -> dict[str, Row]:
    """The records of a folder, those of the ablation in its order."""
    found = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    names = [*(name for name in ORDER if name in found), *(n for n in found if n not in ORDER)]
    return {name: read(found[name]) for name in names}


def one_by_one() -> dict[str, tuple[Row, Row]]:
    """For each fault of the release: it alone as released, and it alone corrected."""
    every = tuple(FAULTS)
    rows = {}
    for number, name in enumerate(every, 1):
        others = tuple(one for one in every if one != name)
        rows[name] = (
            Row(f"fault-{number}", f"corrected, but: {name}", "schgan-paper", {}, (name,)),
            Row(f"without-{number}", f"as released, without: {name}", "schgan-paper", {}, others),
        )
    return rows


def smaller(row: Row) -> Row:
    """The same with towers that make 24 rows affordable."""
    return replace(row, settings={"hidden": SMALL} | row.settings)


def chosen(name: str) -> Row:
    """The row of a record's name, a fault's, or a file's. Raises ConfigError for another."""
    if name.endswith(".toml"):
        return read(Path(name))
    every = records() | {row.name: row for two in one_by_one().values() for row in two}
    if name not in every:
        raise ConfigError(f"there is no row {name!r}; there are {', '.join(every)}, or a .toml")
    return every[name]
