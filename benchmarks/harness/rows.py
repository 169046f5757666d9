"""Rows of the result tables: a method and its settings, read from a plan file.

A plan file (harness/plans/) is TOML::

    about = "no adversary: negatives at random"
    method = "schgan"                  # any method of `xmodal train --method`
    faults = ["leaked labels"]         # schgan-paper only: faults of the release, or "all"
    [settings]                         # settings that differ from the method's defaults
    negatives = "random"

Rows with a single fault of the SCH-GAN release are made from ``FAULTS`` of the paper mode.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xmodal.config import configure
from xmodal.errors import ConfigError
from xmodal.training.methods.schgan_paper.config import FAULTS
from xmodal.training.train import METHODS

PLANS = Path(__file__).parent / "plans"
FOLDER = PLANS / "schgan"
ORDER = (
    "no-pseudo-labels", "plain", "random", "semi-hard", "default",
    "policy", "reinforce", "positives",
)  # fmt: skip
"""Order of the rows of the ablation; other files of the folder follow."""
QUICK: dict[str, dict[str, Any]] = {
    "schgan": {"epochs": 5, "hidden": 256, "warmup": 1},
    "schgan-paper": {"epochs": 2, "pretraining": 1, "hidden": 512},
}
"""Settings of ``--quick``, by method."""
SMALL = 2048
"""Hidden units of the rows with a single fault; the release has 8192."""


@dataclass(frozen=True)
class Row:
    """A method with settings that differ from its defaults; one row of a table."""

    name: str
    about: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    def config(self) -> Any:
        """The method's configuration. Raises ConfigError for an unknown setting."""
        released = {k: v for name in self.faults for k, v in FAULTS[name].items()}
        return configure(METHODS[self.method].Config, released | self.settings)

    def quick(self) -> Row:
        """The same row with few epochs and small towers."""
        return replace(self, settings=QUICK.get(self.method, {"epochs": 3}) | self.settings)


def read(path: Path) -> Row:
    """The row of a plan file. Raises ConfigError if the file is not valid."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a plan file: {error}") from None
    if extra := sorted(set(content) - {"about", "method", "faults", "settings"}):
        raise ConfigError(
            f"{path}: unknown key {extra[0]!r}, expected about, method, faults, settings"
        )
    method = content.get("method", "schgan")
    if method not in METHODS:
        raise ConfigError(f"{path}: method is {method!r}, expected one of {', '.join(METHODS)}")
    faults = content.get("faults", [])
    faults = tuple(FAULTS) if faults == "all" else tuple(faults)
    if faults and method != "schgan-paper":
        raise ConfigError(f"{path}: faults are given for {method}, expected method schgan-paper")
    if unknown := [one for one in faults if one not in FAULTS]:
        names = ", ".join(FAULTS)
        raise ConfigError(f"{path}: unknown fault {unknown[0]!r}, expected one of {names}")
    row = Row(path.stem, str(content.get("about", "")), method, content.get("settings", {}), faults)
    try:
        row.config()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return row


def read_all(folder: Path = FOLDER) -> dict[str, Row]:
    """The rows of all plan files of a folder, by name; those of ``ORDER`` first."""
    found = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    names = [*(name for name in ORDER if name in found), *(n for n in found if n not in ORDER)]
    return {name: read(found[name]) for name in names}


def fault_rows() -> dict[str, tuple[Row, Row]]:
    """For each fault of the release, two rows: only this fault, and all faults except this one."""
    faults = tuple(FAULTS)
    rows = {}
    for number, name in enumerate(faults, 1):
        others = tuple(one for one in faults if one != name)
        rows[name] = (
            Row(f"fault-{number}", f"corrected except: {name}", "schgan-paper", {}, (name,)),
            Row(f"without-{number}", f"as released except: {name}", "schgan-paper", {}, others),
        )
    return rows


def smaller(row: Row) -> Row:
    """The same row with small towers, for the tables that have many rows."""
    return replace(row, settings={"hidden": SMALL} | row.settings)


def find_row(name: str) -> Row:
    """The row of that name, or of a .toml file. Raises ConfigError if there is none."""
    if name.endswith(".toml"):
        return read(Path(name))
    known = read_all() | {row.name: row for pair in fault_rows().values() for row in pair}
    if name not in known:
        raise ConfigError(
            f"there is no row {name!r}, expected one of {', '.join(known)}, or a .toml file"
        )
    return known[name]
