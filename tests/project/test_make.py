"""The rule of the Makefile that creates .venv; scripts replace pip and uv, which need a network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="apt-get install make")

# `python -m venv` creates an environment with this script as python; `-m pip install uv` installs
# the script UV, which logs its arguments; the files `kill` and `refuse` make it fail.
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
    """A folder with the Makefile, the files that its rule needs, and the scripts."""
    for name in ("Makefile", "pyproject.toml", "requirements-dev.lock", ".ci/gpu-only.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name, program in (("python3", PYTHON), ("uv", UV)):
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def make(checkout: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{checkout}:{os.environ['PATH']}"}
    environment.pop("UV_EXCLUDE", None)
    return subprocess.run(
        ["make", ".venv/ready"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        start_new_session=True,  # `kill 0` ends make and its child processes
    )


def ready(checkout: Path) -> bool:
    return (checkout / ".venv/ready").exists() and not (checkout / ".venv/unfinished").exists()


def installed(checkout: Path) -> list[str]:
    """Excluded packages and arguments of each run of uv."""
    log = checkout / "log"
    return log.read_text().splitlines() if log.exists() else []


def test_environment_is_created_once(checkout: Path) -> None:
    assert make(checkout).returncode == 0 and ready(checkout)
    assert make(checkout).returncode == 0
    (line,) = installed(checkout)
    assert line.endswith("--editable .[dev] --constraints requirements-dev.lock")
    has_driver = any(Path(one).exists() for one in ("/proc/driver/nvidia/version", "/dev/dxg"))
    assert line.startswith("excluded= " if has_driver else "excluded=.ci/gpu-only.txt ")


def test_missing_venv_is_reported_in_one_line(checkout: Path) -> None:
    (checkout / "no-ensurepip").touch()
    process = make(checkout)
    assert process.returncode != 0
    lines = [line for line in process.stderr.splitlines() if ": *** " not in line]
    assert len(lines) == 1 and "python3-venv" in lines[0]
    assert not (checkout / ".venv").exists()
    (checkout / "no-ensurepip").unlink()
    assert make(checkout).returncode == 0 and ready(checkout)


def test_environment_without_pip_is_created_again(checkout: Path) -> None:
    (checkout / ".venv/bin").mkdir(parents=True)
    shutil.copy(checkout / "python3", checkout / ".venv/bin/python")  # without has-pip
    (checkout / ".venv/left-over").touch()
    assert make(checkout).returncode == 0 and ready(checkout)
    assert not (checkout / ".venv/left-over").exists()


def test_environment_of_a_killed_installation_is_created_again(checkout: Path) -> None:
    (checkout / "kill").touch()
    assert make(checkout).returncode != 0 and not ready(checkout)
    (checkout / "kill").unlink()
    (checkout / ".venv/left-over").touch()
    assert make(checkout).returncode == 0 and ready(checkout)
    assert not (checkout / ".venv/left-over").exists()


def test_failed_update_keeps_the_environment(checkout: Path) -> None:
    assert make(checkout).returncode == 0
    (checkout / ".venv/mine").touch()
    os.utime(checkout / ".venv/ready", (1, 1))  # older than pyproject.toml
    (checkout / "refuse").touch()
    assert make(checkout).returncode != 0
    (checkout / "refuse").unlink()
    assert make(checkout).returncode == 0 and ready(checkout)
    assert (checkout / ".venv/mine").exists()


def test_all_packages_are_installed_if_torch_needs_them(checkout: Path) -> None:
    (checkout / "torch-needs-all").touch()
    assert make(checkout).returncode == 0 and ready(checkout)
    assert installed(checkout)[-1].startswith("excluded= ")
