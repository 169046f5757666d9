"""The Dockerfile and compose files pass their linters; building them needs a Docker daemon."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTAINERS = ROOT / "plugin" / "container"
COMPOSE = [
    CONTAINERS / "compose.service.yaml",
    *sorted((ROOT / "plugin" / "xmodal_opensearch" / "assets").glob("compose*.yaml")),
]


def lint(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dockerfile_passes_hadolint() -> None:
    lint(Path(sys.executable).with_name("hadolint"), CONTAINERS / "Dockerfile")


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_file_fits_its_schema(path: Path) -> None:
    lint(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", path)


def test_dockerfile_names_existing_files_extras_and_options() -> None:
    text = (CONTAINERS / "Dockerfile").read_text()
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


def test_compose_files_publish_ports_on_localhost_only() -> None:
    for path in COMPOSE:
        ports = re.findall(r'- "([^"]*\d+:\d+)"', path.read_text())
        assert all(port.startswith("127.0.0.1:") for port in ports), path
