"""Options of xmodal-opensearch from the environment and from xmodal.toml."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from xmodal.cli.commands import PROGRAM as XMODAL
from xmodal.cli.option_sources import FILE
from xmodal.cli.program import OWN_VARIABLE_ONLY, all_options
from xmodal_opensearch.cli.commands import FOLDER_OPTIONS, PROGRAM, SHARED

Run = Callable[..., Any]
Values = Callable[[str], dict[str, Any]]
URI = "opensearch://a.example/x"


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file, which does not exist; the working directory is an empty folder."""
    (tmp_path / "project").mkdir()
    (tmp_path / "user" / "xmodal").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    return tmp_path / "user" / "xmodal" / FILE


@pytest.fixture
def values(user_file: Path, opensearch_cli: Run) -> Values:
    """Value and source of each option of a command."""

    def run(command: str) -> dict[str, Any]:
        found = json.loads(opensearch_cli("config", command, "--json").out)["commands"][command]
        return {one["option"]: (one["value"], one["source"]) for one in found}

    return run


def test_order_of_sources(user_file: Path, values: Values, monkeypatch: pytest.MonkeyPatch) -> None:
    assert values("load")["workers"] == (2, "default")
    user_file.write_text(
        f"model = 'm'\nindex = 'my.index'\nk = 3\nworkers = 9\n"
        f"[encode]\nworkers = 8\n[opensearch]\nindex = '{URI}'\n"
    )
    found = values("load")
    assert found["model"] == (str(user_file.parent / "m"), str(user_file))
    assert found["index"] == (URI, str(user_file)) and found["workers"] == (2, "default")
    project = Path.cwd() / FILE
    text = "text_column = 'a'\n[opensearch]\ntext-column = 'b'\nworkers = 3\n"
    project.write_text(text + "[opensearch.load]\nworkers = 4\n")
    assert values("load")["workers"] == ("4", str(project))
    assert values("enrich")["workers"] == ("3", str(project))
    assert values("load")["text-column"] == ("b", str(project))
    for variable in ("XMODAL_MODEL", "XMODAL_OPENSEARCH_MODEL", "XMODAL_OPENSEARCH_LOAD_MODEL"):
        monkeypatch.setenv(variable, variable.lower())
        assert values("load")["model"] == (variable.lower(), f"${variable}")
    monkeypatch.setenv("XMODAL_INDEX", "other.index")
    assert values("load")["index"] == (URI, str(user_file))


def test_each_program_accepts_the_tables_of_the_other(
    user_file: Path, xmodal_cli: Run, opensearch_cli: Run
) -> None:
    text = "k = 3\n[search]\ntarget = 'text'\n[opensearch.load]\nworkers = 4\n"
    (Path.cwd() / FILE).write_text(text)
    for run, command in ((xmodal_cli, "search"), (opensearch_cli, "load")):
        result = run("config", "--json")
        assert result.status == 0 and command in json.loads(result.out)["commands"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[opensearch.laod]", "[opensearch] 'laod' is neither an option nor a command, did you me"),
        ("[opensearch]\nworkerz = 3", "[opensearch] 'workerz' is neither an option"),
        ("[opensearch.load]\nworkerz = 3", "[opensearch.load] 'workerz' is neither an option"),
        ("[opensearch.load]\nk = 3", "[opensearch.load] 'k' is neither an option"),
        ("[opensearch]\nxyz = 3", "xmodal-opensearch config lists the names"),
        ("modle = 'a'", "'modle' is neither an option nor a command, did you mean model?"),
        ("[serch]", "did you mean search?"),
        ("[opensearch]\nworkers = [3]", "workers is [3], expected one value"),
        ("[opensearch.enrich]\nundo = true", "[opensearch.enrich] undo is only accepted on the c"),
        ("[opensearch.delete]\nyes = true", "yes is only accepted on the command line: --yes"),
        ("[opensearch]\ntrust-remote-code = true", "is only accepted on the command line"),
        (f"[opensearch.load]\nindex = '{URI}'", "is not accepted from the file of a folder"),
        ("[opensearch.load]\nworkers = 'many'", "'many' is not a valid integer (from "),
    ],
)
def test_mistakes_in_a_file_are_one_line(
    user_file: Path, opensearch_cli: Run, text: str, message: str
) -> None:
    path = Path.cwd() / FILE
    path.write_text(text)
    result = opensearch_cli("load", "x", "--index", URI)
    assert result.status == 2 and result.out == ""
    assert len(result.err.replace(f"options from {path}\n", "").splitlines()) == 1
    assert message in result.err and str(path) in result.err


def value_of(option: click.Option) -> str:
    """Some value of an option, as a file has it."""
    if option.is_flag:
        return "true"
    return "['a']" if option.multiple else "'a'"


def test_files_of_folders_change_no_cluster(user_file: Path, opensearch_cli: Run) -> None:
    """All options are listed, so that a further one fails here until it is accepted or refused."""
    refused = {"index", "url", "like", "service", "from-here", "in-cluster", "token-file", "name"}
    refused |= {"new-version", "delete-old", "no-replicas", "merge", "replace", "again"}
    refused |= {"incomplete", "download", "allow-host", "images-from", "slice", "dry-run", "repair"}
    refused |= {"on-failure", "make-default", "allow", "print", "least", "out"}
    refused |= {"folder", "port", "heap", "fast-start", "with-plugin", "with-ml", "local-models"}
    refused |= {"with-security", "server", "upgrade", "java"}
    every = {name: one for each in PROGRAM.options.values() for name, one in each.items()}
    assert every.keys() == refused | set(FOLDER_OPTIONS)
    assert not refused & set(FOLDER_OPTIONS)
    for name in refused:
        text = f"[opensearch]\n{name} = {value_of(every[name])}\n"
        (Path.cwd() / FILE).write_text(text)
        assert "is not accepted from the file of a folder" in opensearch_cli("roles").err, name
        user_file.write_text(text)
        (Path.cwd() / FILE).unlink()
        assert opensearch_cli("config").status == 0, name


def test_every_option_has_variables_of_its_own() -> None:
    seen = {f"XMODAL_OPENSEARCH_{name}" for name in ("USER", "PASSWORD", "PASSWORD_FILE")}
    seen |= {f"XMODAL_{name}" for name in ("TOKEN", "CACHE", "DEVICE")}
    for name, each in XMODAL.options.items():
        seen |= {variable for option in each for variable in XMODAL.variables(name, option)}
    short: dict[str, str] = {}
    for name, each in PROGRAM.options.items():
        for option, parameter in each.items():
            own, *others = list(parameter.envvar or ())
            words = option.upper().replace("-", "_")
            assert own == f"XMODAL_OPENSEARCH_{name.upper()}_{words}" and own not in seen
            seen.add(own)
            expected = [] if option in OWN_VARIABLE_ONLY else [f"XMODAL_OPENSEARCH_{words}"]
            assert others == expected + [f"XMODAL_{words}"] * (option in SHARED)
            for variable in expected:
                assert short.setdefault(variable, option) == option
    assert not seen & short.keys()


def test_shared_options_mean_the_same() -> None:
    ours = {name: one for each in PROGRAM.options.values() for name, one in each.items()}
    core = {name: one for each in XMODAL.options.values() for name, one in each.items()}
    assert set(SHARED) <= ours.keys() & core.keys()
    for name in SHARED:
        assert ours[name].is_flag == core[name].is_flag and ours[name].name == core[name].name
        assert type(ours[name].type) is type(core[name].type)
    line_only = {"trust-remote-code", "undo", "yes", "old-versions"}
    assert PROGRAM.of_command_line() == line_only
    assert "old-versions" in all_options(PROGRAM.commands["delete"])


# ---- an option of the command line replaces one of a file or variable ---------------------------


def test_bits_replace_the_model_of_a_variable(
    user_file: Path, opensearch_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XMODAL_MODEL", "my.model")
    assert "bits is 7, expected" in opensearch_cli("create", URI, "--bits", "7").err
    both = opensearch_cli("create", URI, "--bits", "32", "--model", "m")
    assert "give one of --model, --bits and --like" in both.err


def test_a_tower_replaces_the_service_of_a_variable(
    user_file: Path, opensearch_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XMODAL_OPENSEARCH_SERVICE", "http://a.example")
    assert "give one of" not in opensearch_cli("connect", URI, "--in-cluster", "missing").err
    both = opensearch_cli("connect", URI, "--in-cluster", "missing", "--service", "http://a")
    assert "give one of --service URL and --in-cluster TOWER" in both.err


def test_an_index_is_loaded_without_the_model_of_a_variable(
    user_file: Path, opensearch_cli: Run, index_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("load", index_path, "--index", "opensearch://127.0.0.1:9/x")
    assert "omit --model" in opensearch_cli(*given, "--model", "my.model").err
    monkeypatch.setenv("XMODAL_MODEL", "my.model")
    assert "127.0.0.1:9" in opensearch_cli(*given).err
