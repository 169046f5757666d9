"""The container recipes, looked at by linters: there is no daemon here to run them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "plugin" / "container"
COMPOSE = [
    RECIPES / "compose.service.yaml",
    *sorted((ROOT / "plugin" / "xmodal_opensearch" / "assets").glob("compose*.yaml")),
]


def lint(*command: object) -> None:
    ran = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_dockerfile() -> None:
    lint(Path(sys.executable).with_name("hadolint"), RECIPES / "Dockerfile")


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_a_compose_file(path: Path) -> None:
    lint(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", path)


def test_what_the_image_is_made_of_is_there_and_what_it_starts_is_understood() -> None:
    text = (RECIPES / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists(), name
    extras = (re.search(r"ARG EXTRAS=(\S+)", text) or [""])[1].split(",")
    declared = (ROOT / "pyproject.toml").read_text()
    assert extras and all(f"\n{extra} = [" in declared for extra in extras)

    from xmodal.cli.serve import serve

    entry = re.search(r'ENTRYPOINT \["xmodal", "serve", (.*)\]', text)
    assert entry is not None
    words = [word.strip('"') for word in entry[1].split(", ")]
    serve.make_context("serve", [*words, "/index"])


def test_nothing_is_published_beyond_this_machine() -> None:
    for path in COMPOSE:
        ports = re.findall(r'- "([^"]*\d+:\d+)"', path.read_text())
        assert all(one.startswith("127.0.0.1:") for one in ports), path
