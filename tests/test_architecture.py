"""Imports go one way, by the order of ``LAYERS``; the import statements are parsed, not trusted."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import xmodal

ROOT = Path(__file__).parent.parent

# A module imports only from what stands before it. A folder (training, cli, ...) is one entry.
LAYERS = (
    "errors config codes linear_models where index metrics confidence documents hamming images "
    "data readers toy gallery baselines evaluation device backbones cache features encoder "
    "assessment portable towers trained compression training exporting loading service cli"
).split()
TORCH_HALF = {
    *("device", "towers", "trained", "compression", "training", "exporting"),
}
# These can be imported without torch; with what needs it they fetch it, when that is asked for.
DOORS = {"backbones", "loading", "cli"}
BEHIND_A_DOOR = {"backbones.networks", "backbones.vision", "backbones.hub"}
NUMPY_HALF = [name for name in LAYERS if name not in TORCH_HALF | DOORS]

PLUGIN = "xmodal_opensearch"
PLUGIN_USES = {"errors", "codes", "where", "index", "data", "readers"}
PLUGIN_GETS_AN_ENCODER = {"cli", "service"}

TORCH = {"torch", "torchvision", "transformers", "safetensors"}
HEAVY = {*TORCH, "faiss", "pyarrow", "PIL", "click", "rich", "opensearchpy"}
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve"}
DRAWERS = {"utils", "util", "common", "helpers", "core", "base", "types", "misc"}
MOST_LINES = 420


class Import(NamedTuple):
    """One imported name: the line, the module as written, how many dots, the name or None."""

    line: int
    module: str
    dots: int
    name: str | None

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def imports(source: str) -> Iterator[Import]:
    """Every import of a source at any depth, those for type checkers alone left out."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, one.name, 0, None) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            for one in node.names:
                yield Import(node.lineno, node.module or "", node.level, one.name)
        elif isinstance(node, ast.Call) and node.args:
            # import_module("x.y") and __import__("x.y") are imports too.
            called = ast.unparse(node.func).rpartition(".")[2]
            first = node.args[0]
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield Import(node.lineno, str(first.value), 0, None)
        waiting.extend(ast.iter_child_nodes(node))


def layer(imported: Import) -> str | None:
    """The entry of ``LAYERS`` that an import names; "" for the package itself, None for others."""
    if imported.top != "xmodal":
        return None
    parts = imported.module.split(".")[1:]
    if parts:
        return parts[0]
    name = imported.name or ""
    folder = ROOT / "xmodal" / name
    return name if folder.is_dir() or folder.with_suffix(".py").is_file() else ""


def broken(own: str, imported: Import) -> str | None:
    """What an import in layer ``own`` of xmodal breaks; ``own`` of a method: "training.schgan"."""
    whole = own
    own, _, method = own.partition(".")
    wanted = layer(imported)
    if imported.dots:
        return "imports relatively: write from xmodal...."
    if imported.top in (PLUGIN, "opensearchpy"):
        return f"imports {imported.top}: the one bridge is open_index through entry points"
    if imported.top in PICKLES:
        return f"imports {imported.top}: nothing is pickled"
    if own not in TORCH_HALF and whole not in BEHIND_A_DOOR and imported.top in TORCH:
        return f"imports {imported.top} in the half that needs numpy alone"
    if own in NUMPY_HALF and wanted in TORCH_HALF:
        return f"imports xmodal.{wanted}, which needs torch, in the half that needs numpy alone"
    if wanted is None or (wanted == "" and imported.name == "__version__"):
        return None
    if wanted == "":
        return "imports from the package xmodal itself: name the module"
    if wanted not in LAYERS:
        return f"imports xmodal.{wanted}, which is not in LAYERS"
    if own == wanted:
        other = f"{imported.module}.{imported.name}.".startswith("xmodal.training.methods.")
        same = f"{imported.module}.{imported.name}.".startswith(
            f"xmodal.training.methods.{method}."
        )
        return "imports another method" if method and other and not same else None
    if own in LAYERS and LAYERS.index(wanted) > LAYERS.index(own):
        return f"imports xmodal.{wanted}, which comes after it in LAYERS"
    return None


def plugin_broken(own: str, imported: Import) -> str | None:
    """What an import in module ``own`` of the plugin breaks, if anything."""
    if imported.dots:
        return f"imports relatively: write from {PLUGIN}...."
    if imported.top in PICKLES:
        return f"imports {imported.top}: nothing is pickled"
    wanted = layer(imported)
    if own in PLUGIN_GETS_AN_ENCODER or not wanted or wanted in PLUGIN_USES:
        return None
    return f"imports xmodal.{wanted}; the plugin uses {', '.join(sorted(PLUGIN_USES))}"


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def own_layer(path: Path, package: str) -> str:
    """The first name below the package: "codes" of xmodal/codes.py, "cli" of xmodal/cli/a.py.

    Of a method and of a backbone its own name as well: "training.schgan", "backbones.hub".
    """
    first, *rest = path.relative_to(ROOT / package).with_suffix("").parts
    if first == "training":
        return f"{first}.{rest[1]}" if rest[0] == "methods" else first
    return f"{first}.{rest[0]}" if first == "backbones" else first


MODULES = [path for path in sources("xmodal") if path != ROOT / "xmodal" / "__init__.py"]


def test_every_module_has_its_place() -> None:
    assert MODULES
    assert len(set(LAYERS)) == len(LAYERS)
    unknown = {own_layer(path, "xmodal").partition(".")[0] for path in MODULES} - set(LAYERS)
    assert not unknown, f"give {sorted(unknown)} a place in LAYERS of tests/test_architecture.py"


def test_imports_go_one_way() -> None:
    wrong = {
        f"{path.relative_to(ROOT)}:{one.line} {problem}"
        for path in MODULES
        for one in imports(path.read_text())
        if (problem := broken(own_layer(path, "xmodal"), one))
    }
    assert not wrong, "\n".join(sorted(wrong))


def test_the_package_itself_imports_the_contract_alone() -> None:
    found = {layer(one) for one in imports((ROOT / "xmodal" / "__init__.py").read_text())}
    assert found - {None} == {"codes", "errors", "index"}


def test_the_plugin_uses_a_few_modules() -> None:
    wrong = {
        f"{path.relative_to(ROOT)}:{one.line} {problem}"
        for path in sources("plugin")
        for one in imports(path.read_text())
        if (problem := plugin_broken(own_layer(path, f"plugin/{PLUGIN}"), one))
    }
    assert not wrong, "\n".join(sorted(wrong))


def test_no_source_is_a_drawer_or_too_long() -> None:
    every = sources("xmodal", "plugin", "tests", "examples", "benchmarks")
    lines = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in every}
    long = {str(path): count for path, count in lines.items() if count >= MOST_LINES}
    assert not long, f"files of {MOST_LINES} lines or more: {long}"
    names = {part.removesuffix(".py") for path in lines for part in path.parts}
    assert not names & DRAWERS, f"say what is inside: {sorted(names & DRAWERS)}"


def test_importing_xmodal_costs_numpy_alone() -> None:
    script = "import sys, xmodal; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert {"xmodal", "numpy"} <= loaded
    assert not loaded & HEAVY


WITHOUT_TORCH = """
import sys
for name in {torch}:
    sys.modules[name] = None  # importing it raises ModuleNotFoundError
from importlib import import_module
for name in {modules}:
    import_module(f"xmodal.{{name}}")
"""


def test_what_needs_no_torch_can_be_imported_without_it() -> None:
    modules = [*NUMPY_HALF, *DOORS, "backbones.builtin"]
    script = WITHOUT_TORCH.format(torch=sorted(TORCH), modules=modules)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_public_names_are_sorted_and_announced() -> None:
    assert xmodal.__all__ == sorted(set(xmodal.__all__))
    assert set(xmodal._LATER) <= set(xmodal.__all__)
    assert set(xmodal.__all__) <= set(dir(xmodal))
    with pytest.raises(AttributeError, match="'xmodal' has no attribute 'nothing'"):
        _ = xmodal.nothing


@pytest.mark.parametrize("name", xmodal.__all__)
def test_public_names_can_be_imported(name: str) -> None:
    module = xmodal._LATER.get(name, "xmodal")
    if module.removeprefix("xmodal.").partition(".")[0] in TORCH_HALF:
        pytest.importorskip("torch", reason="pip install 'xmodal[torch]'")
    assert getattr(xmodal, name).__module__.startswith("xmodal.")


@pytest.mark.parametrize(
    ("own", "source", "words"),
    [
        ("codes", "from xmodal.errors import CodeError", None),
        ("errors", "from xmodal.codes import BinaryCodes", "comes after it"),
        ("codes", "import xmodal.index", "comes after it"),
        ("codes", "from xmodal import hamming", "comes after it"),
        ("hamming", "from xmodal import codes, __version__", None),
        ("hamming", "from xmodal import open_index", "name the module"),
        ("hamming", "def f():\n    from xmodal.toy import draw", "comes after it"),
        ("hamming", "if TYPE_CHECKING:\n    from xmodal.toy import draw", None),
        ("hamming", "if typing.TYPE_CHECKING:\n    pass\nelse:\n    import xmodal.toy", "after it"),
        ("hamming", "from .codes import BinaryCodes", "relatively"),
        ("hamming", "from . import codes", "relatively"),
        ("data", "def f():\n    import torch.nn", "needs numpy alone"),
        ("data", "x = importlib.import_module('torch')", "needs numpy alone"),
        ("towers", "import torch.nn", None),
        ("features", "from xmodal.device import device", "which needs torch"),
        ("cli", "def f():\n    import torch", "needs numpy alone"),
        ("cli", "def f():\n    from xmodal.training import train", None),
        ("backbones.builtin", "import torch", "needs numpy alone"),
        ("backbones.hub", "import torch", None),
        ("cli", "import xmodal_opensearch.store", "the one bridge"),
        ("cli", "from opensearchpy import OpenSearch", "the one bridge"),
        ("cli", "try:\n    import pickle\nexcept ImportError:\n    pass", "nothing is pickled"),
        ("training.dshgan", "from xmodal.training.methods.schgan import train", "another method"),
        ("training.dshgan", "from xmodal.training.methods import schgan", "another method"),
        ("training.schgan", "import xmodal.training.methods.schgan_paper", "another method"),
        ("training.schgan", "from xmodal.training.methods.schgan.config import Config", None),
        ("training.schgan", "from xmodal.training import losses", None),
        ("training", "from xmodal.training.methods import schgan", None),
        ("cli", "from xmodal.cli.printing import table", None),
        ("codes", "from xmodal.nowhere import x", "not in LAYERS"),
    ],
)
def test_these_checks_can_fail(own: str, source: str, words: str | None) -> None:
    problems = [problem for one in imports(source) if (problem := broken(own, one))]
    if words is None:
        assert problems == []
    else:
        assert len(problems) == 1
        assert words in problems[0]
