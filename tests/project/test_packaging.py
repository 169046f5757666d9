"""The top level of the repository, the lock, the extras, the licences and the community files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import xmodal

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))
import extras_job  # noqa: E402
import licences_job  # noqa: E402

TOP_LEVEL = {
    *("xmodal", "plugin", "tests", "examples", "benchmarks", "docs", "deploy", ".ci", ".github"),
    *("pyproject.toml", "requirements-dev.lock", "Makefile", "LICENSE", ".gitignore"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff"),
    ".pre-commit-config.yaml",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def lock() -> dict[str, list[Requirement]]:
    """Return the lines of the lock by name; one with markers may have several."""
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / "requirements-dev.lock").read_text("utf-8").splitlines():
        if line and not line.lstrip().startswith("#"):
            one = Requirement(line)
            found.setdefault(one.name, []).append(one)
    return found


def test_top_level_is_listed() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs git: the sources are an archive")
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    top = {name.partition("/")[0] for name in listed.split("\0") if name}
    assert top == TOP_LEVEL


def test_lock_has_every_requirement_without_hosts_and_paths() -> None:
    locked = lock()
    wanted = [
        Requirement(one) for lists in (PROJECT["dependencies"], *EXTRAS.values()) for one in lists
    ]
    wrong = [
        str(one)
        for one in wanted
        if one.name != "xmodal"
        and not any(
            one.specifier.contains(str(pin.specifier).removeprefix("=="))
            for pin in locked.get(one.name.lower().replace("_", "-"), ())
        )
    ]
    assert not wrong, f"requirements-dev.lock lacks them: run make lock LOCK_OPTIONS=: {wrong}"
    lines = [line for line in (ROOT / "requirements-dev.lock").read_text("utf-8").splitlines()]
    assert not [line for line in lines if "://" in line or " @ " in line or "--index" in line]


def test_each_extra_has_an_example_and_self_references_exist() -> None:
    assert set(EXTRAS) == {*extras_job.EXAMPLES, *extras_job.NOT_TESTED} - {""}
    assert set(extras_job.CHEAP) <= set(extras_job.EXAMPLES)
    for name, requirements in EXTRAS.items():
        for one in map(Requirement, requirements):
            if one.name == "xmodal":
                assert one.extras <= set(EXTRAS) - {name}, (name, one)
    assert _contained("dev") == set(EXTRAS) - {"dev"}, "the extra dev lacks extras"


def _contained(extra: str) -> set[str]:
    """Return the extras that an extra contains."""
    own = {n for one in map(Requirement, EXTRAS[extra]) if one.name == "xmodal" for n in one.extras}
    return own | {name for one in own for name in _contained(one)}


def test_version_is_that_of_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert xmodal.__version__ == version("xmodal")
    script = (
        "import sys; sys.path[:] = [one for one in sys.path if 'site-packages' not in one];"
        f"sys.path.insert(0, {str(ROOT)!r}); sys.meta_path = [one for one in sys.meta_path"
        " if 'editable' not in repr(one)]; import xmodal; print(xmodal.__version__)"
    )
    command = [sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT / "docs")
    assert done.stdout.strip() in ("0+unknown", version("xmodal"))


def test_classifiers_name_the_pythons_that_are_tested() -> None:
    import pythons_job

    found = [
        re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", one)
        for one in PROJECT["classifiers"]
    ]
    assert [one[1] for one in found if one] == list(pythons_job.PYTHONS)
    assert "urls" not in PROJECT  # the repository has no public address


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("MPL-2.0 AND (Apache-2.0 OR GPL-3.0-only)", True),
        ("MIT AND GPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GNU General Public License v2 (GPLv2)", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_licences_are_judged(expression: str, allowed: bool) -> None:
    assert licences_job.is_allowed(expression) is allowed


def test_citation_names_the_papers_of_the_methods() -> None:
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(content)
    cited = " ".join(one["notes"] for one in content["references"])
    for path in (ROOT / "xmodal" / "training" / "methods").glob("*/__init__.py"):
        for number in re.findall(r"arXiv (\d{4}\.\d{5})", path.read_text("utf-8")):
            assert number in cited, path


def test_hooks_and_issue_templates_are_valid() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    assert [one["repo"] for one in hooks["repos"]] == ["local"]
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        content: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
        assert path.name == "config.yml" or {"name", "description", "body"} <= set(content), path
        for one in content.get("body", ()):
            assert one["type"] == "textarea" and one["attributes"]["label"], path
        assert json.dumps(content)


def test_changelog_has_a_section_for_what_is_not_released() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", one) for one in headings[1:])
