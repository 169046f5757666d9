"""Options from the environment and from xmodal.toml; completion; -v and -q."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from xmodal.cli.commands import commands
from xmodal.cli.option_sources import FILE
from xmodal.cli.program import OWN_VARIABLE_ONLY, settable_options

Run = Callable[..., Any]
SEARCH = settable_options(commands.commands["search"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, project/sub; the user's file is user/xmodal/xmodal.toml."""
    folder = tmp_path / "project" / "sub"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    return folder


@pytest.fixture
def values(folder: Path, xmodal_cli: Run) -> Callable[[str], dict[str, Any]]:
    """Value and source of each option of a command."""

    def run(command: str) -> dict[str, Any]:
        found = json.loads(xmodal_cli("config", command, "--json").out)["commands"][command]
        return {one["option"]: (one["value"], one["source"]) for one in found}

    return run


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_order_of_sources(
    folder: Path, values: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert values("search")["k"] == (10, "default")
    text = "k = 2\ntarget = 'text'\nindex = 'opensearch://a/x'\n[serve]\nport = 1\nhost = 'a'\n"
    user = write(tmp_path / "user" / "xmodal" / FILE, text)
    assert values("serve")["host"] == ("a", user)
    assert values("search")["k"] == ("2", user) and values("serve")["port"] == ("1", user)
    project = write(folder.parent / FILE, "k = 3\n[search]\nk = 4\nwhere = ['a=1', 'b=2']\n")
    found = values("search")
    assert found["k"] == ("4", project) and found["target"] == ("text", user)
    assert found["where"] == (["a=1", "b=2"], project)
    monkeypatch.setenv("XMODAL_K", "5")
    assert values("search")["k"] == ("5", "$XMODAL_K")
    monkeypatch.setenv("XMODAL_SEARCH_K", "6")
    assert values("search")["k"] == ("6", "$XMODAL_SEARCH_K")


def test_values_reach_the_command_and_flags_win(
    folder: Path, xmodal_cli: Run, model: Path, index_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "my.index").symlink_to(index_path)
    write(folder.parent / FILE, f"index = 'my.index'\nmodel = {str(model)!r}\nk = 2\njson = true\n")

    def hits(*arguments: str) -> list[Any]:
        found: list[Any] = json.loads(xmodal_cli("search", "red", *arguments).out)["hits"]
        return found

    assert len(hits()) == 2  # the path of the index begins at the folder of the file
    assert len(hits("-k", "3")) == 3
    monkeypatch.setenv("XMODAL_WHERE", "colour=red shape=circle")
    fields = [hit["fields"] for hit in hits()]
    assert {(one["colour"], one["shape"]) for one in fields} == {("red", "circle")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_distanse = 3", "'max_distanse' is neither an option nor a command, did you mean"),
        ("[serch]\nk = 3", "did you mean search?"),
        ("[search]\nport = 3", "[search] 'port' is neither"),
        ("k = [3]", "k is [3], expected one value"),
        ("json = 'yes'", "json is 'yes', expected true or false"),
        ("index = true", "index is True, expected one value"),
        ("trust-remote-code = true", "only accepted on the command line"),
        ("[search]\ntrust_remote_code = true", "only accepted on the command line"),
        ("index = 'opensearch://a.example/x'", "is not accepted from the file of a folder"),
        ("[serve]\nhost = '0.0.0.0'", "is not accepted from the file of a folder"),
        ("prune = true", "is not accepted from the file of a folder"),
        ("[serve]\ntoken-file = 'token'", "is not accepted from the file of a folder"),
        ("images = 's3://bucket/a'", "is not accepted from the file of a folder"),
        ("features = ['a.npy', 's3://bucket/b.npy']", "is not accepted from the file of a folder"),
        ("[delete]\nwhere = ['a=1']", "[delete] where is only accepted on the command line"),
        (
            "[opensarch.load]",
            "'opensarch' is neither an option nor a command, did you mean opensea",
        ),
        ("k = ", "cannot be read (Invalid value"),
        ("k = 'many'", "'many' is not a valid integer (from "),
    ],
)
def test_mistakes_in_a_file_are_one_line(
    folder: Path, xmodal_cli: Run, text: str, message: str
) -> None:
    path = write(folder / FILE, text)
    result = xmodal_cli("search", "red")
    assert result.status == 2 and result.out == ""
    assert len(result.err.replace(f"options from {path}\n", "").splitlines()) == 1
    assert message in result.err and path in result.err


def test_no_code_of_a_model_is_run_because_of_the_environment(
    folder: Path, values: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XMODAL_TRUST_REMOTE_CODE", "1")
    assert "trust-remote-code" not in values("search")
    option = next(
        one for one in commands.commands["search"].params if one.name == "trust_remote_code"
    )
    assert option.envvar is None


def test_what_is_deleted_comes_from_the_command_line(
    folder: Path, xmodal_cli: Run, index_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path / "user" / "xmodal" / FILE, "where = ['colour=red']\nsource = 'a'\n")
    monkeypatch.setenv("XMODAL_WHERE", "colour=red")
    result = xmodal_cli("delete", index_path, "--dry-run")
    assert result.status == 2 and "expected one of ID, --where and --source" in result.err


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_file_of_another_user_is_not_used(folder: Path, xmodal_cli: Run) -> None:
    path = write(folder / FILE, "k = 3")
    os.chown(path, 12345, -1)
    result = xmodal_cli("config", "--json")
    assert json.loads(result.out)["files"] == []
    assert "belongs to another user" in result.err


def test_every_option_has_variables_of_its_own() -> None:
    seen: dict[str, tuple[str, str]] = {}
    for name, command in commands.commands.items():
        for option, parameter in settable_options(command).items():
            own, *shared = list(parameter.envvar or ())
            words = option.upper().replace("-", "_")
            assert own == f"XMODAL_{name.upper()}_{words}"
            assert shared == ([] if option in OWN_VARIABLE_ONLY else [f"XMODAL_{words}"])
            assert seen.setdefault(own, (name, option)) == (name, option)
            for variable in shared:
                assert seen.setdefault(variable, ("", option)) == ("", option)


def test_quiet_and_verbose(folder: Path, xmodal_cli: Run, model: Path, index_path: Path) -> None:
    arguments = ("search", "xyzzy", "--model", model, "--index", index_path, "--by", "codes")
    usual = xmodal_cli(*arguments)
    assert "no token of these words" in usual.err
    assert xmodal_cli(*arguments, "-q").err == ""
    assert f"encoder {model}" in xmodal_cli(*arguments, "-v").err
    assert xmodal_cli(*arguments).err == usual.err  # of one command alone
    assert xmodal_cli("search", "-q").err.startswith("xmodal: expected WORDS")


# ---- completion --------------------------------------------------------------------------------


def complete(*words: str) -> list[str]:
    """The completions of the last word, as bash asks for them."""
    script = "from xmodal.cli import main; import sys; sys.argv[0] = 'xmodal'; main()"
    variables = {
        "_XMODAL_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("xmodal", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | variables, capture_output=True, text=True
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_commands_options_and_values_are_completed() -> None:
    assert complete("se") == ["search", "serve"]
    assert complete("search", "red", "-leather", "--max") == ["--max-distance"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_of_completion(xmodal_cli: Run, folder: Path, shell: str) -> None:
    result = xmodal_cli("completion", shell)
    assert result.status == 0 and f"_XMODAL_COMPLETE={shell}_complete" in result.out


def test_options_that_files_can_set_are_those_of_the_help() -> None:
    context = click.Context(commands.commands["search"])
    shown = commands.commands["search"].get_help(context)
    for name in SEARCH:
        assert f"--{name}" in shown or f"-{name}" in shown
