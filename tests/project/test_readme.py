"""README: its programs run, its commands parse; the examples run."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xmodal_opensearch.node.process import Node

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_readme_starts_with_commands() -> None:
    head = "".join((ROOT / "README.md").read_text().splitlines(keepends=True)[:25])
    assert "make demo" in head and "make test" in head
    assert "```" in head


def test_readme_programs_run(
    photos_folder: Path,
    model: Path,
    index_path: Path,
    node: Node,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from xmodal.index.contract import open_index
    from xmodal.index.local import HammingIndex

    for name, path in {"photos": photos_folder, "my.model": model, "my.index": index_path}.items():
        (tmp_path / name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    server = f"opensearch://127.0.0.1:{node.port}/"
    local = HammingIndex.load(index_path, bits=None, fingerprint=None)
    remote = open_index(
        f"{server}photos", bits=local.bits, fingerprint=local.fingerprint, create=True
    )
    for batch in local.batches():
        remote.add(batch)
    remote.close()
    blocks = _blocks("python")
    assert len(blocks) >= 2
    for block in blocks:
        program = block.replace("opensearch://localhost:9200/", server)
        exec(compile(program, "README.md", "exec"), {})


def test_readme_commands_parse() -> None:
    """Each `xmodal ...` line: the command, its options and their values exist."""
    import click

    from xmodal.cli.commands import commands
    from xmodal_opensearch.cli.commands import commands as server_commands

    groups = {"xmodal": commands, "xmodal-opensearch": server_commands}
    lines = [line for block in _blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    found = [[word for word in line if word != "&"] for line in words if line[:1]]
    found = [line for line in found if line[0] in groups]
    assert len(found) >= 12
    for group, name, *arguments in found:
        command = groups[group].commands[name]
        with click.Context(groups[group]) as parent:
            command.make_context(name, list(arguments), parent=parent)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_is_short(
    path: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert len(path.read_text().splitlines()) < 80
    monkeypatch.chdir(tmp_path)
    arguments = []
    if "opensearch" in path.stem:  # without an address it starts a node
        arguments = [f"opensearch://127.0.0.1:{request.getfixturevalue('node').port}"]
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_makefile_has_the_targets_of_the_readme() -> None:
    for target in ("demo", "demo-opensearch", "test", "check", "wheel"):
        process = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, process.stderr
