"""The Makefile's rule that makes .venv, with stand-ins for what needs a network: pip and uv."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="apt-get install make")

# `python -m venv` makes an environment whose python answers what the Makefile asks of it. `-m pip
# install uv` installs the stand-in for uv, which logs its arguments and ends as the files `kill`
# and `refuse` say.
PYTHON = """#!/bin/sh
case "$*" in
  *"import sys, ensurepip"*) test ! -e no-ensurepip ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/has-pip" ;;
  *"import pip"*) test -e "${0%/bin/python}/has-pip" ;;
  "-m pip install "*) cp uv "${0%/python}/uv" ;;
  *"import torch"*) test ! -e torch-needs-all ;;
  *) exit 64 ;;
esac
"""
UV = """#!/bin/sh
echo "excluded=$UV_EXCLUDE $*" >> log
test ! -e kill || kill -9 0
test ! -e refuse
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile and what its rule needs, in a folder whose python3 is the stand-in."""
    for name in ("Makefile", "pyproject.toml", ".ci/gpu-only.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name, program in (("python3", PYTHON), ("uv", UV)):
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def make(checkout: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{checkout}:{os.environ['PATH']}"}
    return subprocess.run(
        ["make", ".venv/ready"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        start_new_session=True,  # `kill 0` ends make and what it started
    )


def ready(checkout: Path) -> bool:
    return (checkout / ".venv/ready").exists() and not (checkout / ".venv/unfinished").exists()


def installed(checkout: Path) -> list[str]:
    """What each run of uv was told to leave out, and its arguments."""
    log = checkout / "log"
    return log.read_text().splitlines() if log.exists() else []


def test_an_environment_is_made_once(checkout: Path) -> None:
    assert make(checkout).returncode == 0 and ready(checkout)
    assert make(checkout).returncode == 0
    (line,) = installed(checkout)
    assert line.endswith("--editable .[dev]")
    has_driver = any(Path(one).exists() for one in ("/proc/driver/nvidia/version", "/dev/dxg"))
    assert line.startswith("excluded= " if has_driver else "excluded=.ci/gpu-only.txt ")


def test_without_venv_one_line_names_the_package_and_nothing_is_left(checkout: Path) -> None:
    (checkout / "no-ensurepip").touch()
    refused = make(checkout)
    assert refused.returncode != 0
    ours = [line for line in refused.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(ours) == 1 and "python3-venv" in ours[0]
    assert not (checkout / ".venv").exists()
    (checkout / "no-ensurepip").unlink()
    assert make(checkout).returncode == 0 and ready(checkout)


def test_an_environment_without_pip_is_made_anew(checkout: Path) -> None:
    (checkout / ".venv/bin").mkdir(parents=True)
    shutil.copy(checkout / "python3", checkout / ".venv/bin/python")  # has-pip is not there
    (checkout / ".venv/left-over").touch()
    assert make(checkout).returncode == 0 and ready(checkout)
    assert not (checkout / ".venv/left-over").exists()


def test_an_environment_whose_installation_was_killed_is_made_anew(checkout: Path) -> None:
    (checkout / "kill").touch()
    assert make(checkout).returncode != 0 and not ready(checkout)
    (checkout / "kill").unlink()
    (checkout / ".venv/left-over").touch()
    assert make(checkout).returncode == 0 and ready(checkout)
    assert not (checkout / ".venv/left-over").exists()


def test_a_refused_change_leaves_the_environment(checkout: Path) -> None:
    assert make(checkout).returncode == 0
    (checkout / ".venv/mine").touch()
    os.utime(checkout / ".venv/ready", (1, 1))  # older than pyproject.toml
    (checkout / "refuse").touch()
    assert make(checkout).returncode != 0
    (checkout / "refuse").unlink()
    assert make(checkout).returncode == 0 and ready(checkout)
    assert (checkout / ".venv/mine").exists()


def test_a_torch_that_needs_all_gets_all(checkout: Path) -> None:
    (checkout / "torch-needs-all").touch()
    assert make(checkout).returncode == 0 and ready(checkout)
    assert installed(checkout)[-1].startswith("excluded= ")
