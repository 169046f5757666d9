"""Pages of docs/: every command and every program runs, in their order; links exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from PIL import Image
from support.aligned_clip import save_aligned_clip

if TYPE_CHECKING:
    from xmodal_opensearch.node.process import Node

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(
    path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if path.parent.name != "site"
)
FIRST_STEPS = ("start/captions.md", "start/labels.md", "start/pictures.md")
"""Pages that begin without a model."""
COMMANDS = {
    "xmodal": "from xmodal.cli import main; main()",
    "xmodal-opensearch": "from xmodal_opensearch.cli import main; main()",
}
MADE = {"my.model": "model", "my.index": "index_path"}
"""Fixtures of the files that a page does not make itself."""
MANY_IMPORTS = {"integrations.md"}
"""Pages whose programs import large packages."""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


class Shell:
    """Runs the lines of a page in a folder; services run until ``close``, each at a free port."""

    def __init__(self, folder: Path, page: str, run: dict[str, Callable[..., Any]]) -> None:
        self.folder, self.page, self.run = folder, page, run
        self.node: Node | None = None
        self.service = ""
        self.started: list[subprocess.Popen[str]] = []

    def line(self, line: str) -> str:
        """Run a line and return its standard output; it must succeed."""
        if self.node is not None:
            name = self.page.removesuffix(".md").replace("/", "-")
            index = f"127.0.0.1:{self.node.port}/docs-{name}"
            line = line.replace("localhost:9200/photos", index)
        line = line.replace("localhost:8080", self.service)
        words = shlex.split(line)
        if words[:2] == ["xmodal", "train"] and "--image-backbone" not in words:
            words += self.backbones("--no-train" in words, "--fine-tune" in words)
        if words[0] == "xmodal" and words[-1] == "&":
            self.serve(words[1:-1])
            return ""
        if words[0] in self.run:
            result = self.run[words[0]](*words[1:])
            # Whether a hit has the minimum confidence depends on the trained model.
            allowed = (0, 1) if "--min-confidence" in line else (0,)
            assert result.status in allowed, (line, result)
            return str(result.out)
        if "curl" in line and shutil.which("curl") is None:
            pytest.skip("needs curl: apt-get install curl")
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        process = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=os.environ | {"PATH": programs},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert process.returncode == 0, (line, process.stderr)
        return process.stdout

    def backbones(self, aligned: bool, tuned: bool) -> list[str]:
        """Backbones in place of the default, which must be downloaded."""
        if not aligned and not tuned:
            return ["--image-backbone=small-cnn", "--text-backbone=words", "--set=epochs=2"]
        clip = str(save_aligned_clip(self.folder / "clip", steps=1))
        if tuned:
            return ["--image-backbone", clip, "--text-backbone", clip, "--set=epochs=1"]
        return ["--image-backbone", clip]

    def serve(self, arguments: list[str]) -> None:
        """Start a service and wait until it listens."""
        command = [sys.executable, "-c", COMMANDS["xmodal"], *arguments, "--port", "0"]
        process = subprocess.Popen(command, cwd=self.folder, stderr=subprocess.PIPE, text=True)
        self.started.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("listening on http://"):
                self.service = line.removeprefix("listening on http://").strip()
                return
        raise AssertionError(f"the service did not start: {arguments}")

    def close(self) -> None:
        for process in self.started:
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            process.stderr.read()
            assert process.wait(30) == 0
            process.stderr.close()


@pytest.fixture
def folder(photos_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the pages, with the folder photos."""
    (tmp_path / "photos").symlink_to(photos_folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shell(
    request: pytest.FixtureRequest,
    folder: Path,
    xmodal_cli: Callable[..., Any],
    opensearch_cli: Callable[..., Any],
) -> Iterator[Callable[[str], Shell]]:
    """Create the shell of a page; pages except the first steps get a model and an index."""
    made: list[Shell] = []

    def make(page: str) -> Shell:
        if page not in FIRST_STEPS:
            for name, fixture in MADE.items():
                (folder / name).symlink_to(request.getfixturevalue(fixture))
        shell = Shell(folder, page, {"xmodal": xmodal_cli, "xmodal-opensearch": opensearch_cli})
        if any("xmodal-opensearch node &" in block for block in blocks(page, "bash")):
            shell.node = request.getfixturevalue("node")
        made.append(shell)
        return shell

    yield make
    for one in made:
        one.close()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash")])
def test_page_commands_run(page: str, shell: Callable[[str], Shell]) -> None:
    page_shell = shell(page)
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    assert lines
    for line in lines:
        if line.strip() == "xmodal-opensearch node &":
            continue  # the fixture node runs
        out = page_shell.line(line)
        if line.startswith("curl") and "--output" not in line:
            assert '"status": 4' not in out and out.startswith("{"), (line, out)
        if "--output" in line:
            with Image.open(page_shell.folder / line.split()[-1]) as picture:
                picture.load()


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in MANY_IMPORTS else [])
        for page in PAGES
        if blocks(page, "python")
    ],
)
def test_page_programs_run(
    page: str, folder: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    from xmodal.retrieval.collection import Collection
    from xmodal.training.train import METHODS

    used = [name for name in MADE if any(name in block for block in blocks(page, "python"))]
    for name in used:
        if name != "my.index":
            (folder / name).symlink_to(request.getfixturevalue(MADE[name]))
    if "my.index" in used:  # it records its model, which the fixture does not
        with Collection.create("my.index", model=request.getfixturevalue("model")) as photos:
            photos.add("photos", label_column="labels")
    known = dict(METHODS)
    try:
        for block in blocks(page, "python"):
            exec(compile(block, page, "exec"), {"__name__": "__main__"})
            assert capsys.readouterr().out.strip()
    finally:
        METHODS.clear()
        METHODS.update(known)


def test_messages_of_troubleshooting_are_in_the_sources() -> None:
    messages = re.findall(r"(?m)^\| `(.+?)` \|", (DOCS / "troubleshooting.md").read_text())
    roots = [DOCS.parent / "xmodal", DOCS.parent / "plugin" / "xmodal_opensearch"]
    sources = "".join(path.read_text() for root in roots for path in root.rglob("*.py"))
    assert len(messages) > 15
    assert [message for message in messages if message not in sources] == []


@pytest.mark.slow
def test_site_builds_without_warnings(tmp_path: Path) -> None:
    """All pages are in the site, and no link of the site leads nowhere."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c"]
    process = subprocess.run(
        [*command, DOCS / "site", "-d", tmp_path / "trees", DOCS.parent, tmp_path / "site"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    assert "blocks of code" in process.stdout
    pages = list((tmp_path / "site").rglob("*.html"))
    missing = [
        (page.name, target)
        for page in pages
        for target in re.findall(r'href="(?![a-z]+:)([^"#?]+)', page.read_text())
        if not (page.parent / unquote(target)).exists()
    ]
    assert missing == []
    assert {(tmp_path / "site/docs" / page).with_suffix(".html") for page in PAGES} <= set(pages)


def test_links_to_files_exist() -> None:
    pages = [*(DOCS / page for page in PAGES), DOCS.parent / "README.md"]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith(("http://", "https://")):
                assert os.path.exists(page.parent / target), (page.name, target)
