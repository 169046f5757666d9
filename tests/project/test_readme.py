"""README and examples are run: what they show works."""

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


def test_readme_shows_a_runnable_block_by_line_25() -> None:
    head = "".join((ROOT / "README.md").read_text().splitlines(keepends=True)[:25])
    assert "make demo" in head and "make test" in head
    assert "```" in head


def test_python_blocks_of_the_readme_run(
    world: Path,
    model: Path,
    index_path: Path,
    node: Node,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from xmodal.index.contract import open_index
    from xmodal.index.local import HammingIndex

    for name, path in {"photos": world, "my.model": model, "my.index": index_path}.items():
        (tmp_path / name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    here = f"opensearch://127.0.0.1:{node.port}/"
    local = HammingIndex.load(index_path, bits=None, fingerprint=None)
    remote = open_index(
        f"{here}photos", bits=local.bits, fingerprint=local.fingerprint, create=True
    )
    for batch in local.batches():
        remote.add(batch)
    remote.close()
    blocks = _blocks("python")
    assert len(blocks) >= 2
    for block in blocks:
        asked = block.replace("opensearch://localhost:9200/", here)
        exec(compile(asked, "README.md", "exec"), {})


def test_every_command_of_the_documents_is_understood() -> None:
    """Each `xmodal ...` line parses: the command, its options and their values exist."""
    import click

    from xmodal.cli import commands
    from xmodal_opensearch.cli.commands import commands as server_commands

    groups = {"xmodal": commands, "xmodal-opensearch": server_commands}
    lines = [line for block in _blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    ours = [shlex.split(line, comments=True) for line in lines]
    ours = [[word for word in words if word != "&"] for words in ours if words[:1]]
    ours = [words for words in ours if words[0] in groups]
    assert len(ours) >= 12
    for group, name, *arguments in ours:
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
    server = []
    if "opensearch" in path.stem:  # it would start a node of its own
        server = [f"opensearch://127.0.0.1:{request.getfixturevalue('node').port}"]
    monkeypatch.setattr(sys, "argv", [str(path), *server])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_makefile_names_what_the_readme_promises() -> None:
    for target in ("demo", "demo-opensearch", "test", "check", "wheel"):
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
