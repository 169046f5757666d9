"""README and examples are run: what they show works."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_readme_shows_a_runnable_block_by_line_25() -> None:
    head = "".join((ROOT / "README.md").read_text().splitlines(keepends=True)[:25])
    assert "make demo" in head and "make test" in head
    assert "```" in head


def test_python_blocks_of_the_readme_run(
    world: Path, model: Path, index_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"photos": world, "my.model": model, "my.index": index_path}
    for name, path in names.items():
        (tmp_path / name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    blocks = _blocks("python")
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_every_command_of_the_readme_is_understood() -> None:
    """Each `xmodal ...` line parses: the command, its options and their values exist."""
    import click

    from xmodal.cli import commands

    lines = [line for block in _blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    ours = [shlex.split(line, comments=True) for line in lines]
    ours = [words for words in ours if words[:1] == ["xmodal"]]
    assert len(ours) >= 5
    for _, name, *arguments in ours:
        command = commands.commands[name]
        with click.Context(commands) as parent:
            command.make_context(name, list(arguments), parent=parent)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_is_short(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert len(path.read_text().splitlines()) < 80
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_makefile_names_what_the_readme_promises() -> None:
    for target in ("demo", "test", "check", "wheel"):
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
