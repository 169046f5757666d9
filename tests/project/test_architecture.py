"""Imports go one way, by the order of folders below; the import statements are parsed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import xmodal

ROOT = Path(__file__).parents[2]
PLUGIN = "xmodal_opensearch"

# Each string is a level of folders and single files; a module imports only from its own folder and
# from levels to the left. Two folders of one level do not import each other.
CORE_ORDER = (
    "errors escapes operating_system modality checksums config device linear_models writing",
    "codes vectors",
    "data web",
    "index features",
    "encoders",
    "retrieval evaluation",
    "training export",
    "service",
    "integrations",
    "cli",
)
PLUGIN_ORDER = ("client", "node index", "loading rest server_plugin", "diagnostics", "cli")
# Single files of one level may import each other from left to right.
CORE_FILES = (
    *(
        "errors",
        "escapes",
        "operating_system",
        "modality",
        "checksums",
        "config",
        "device",
        "linear_models",
        "writing",
    ),
    *("codes", "vectors"),
)
PLUGIN_USES_OF_CORE = {
    "encoders.text_tower",
    *("errors", "modality", "codes", "vectors", "data", "web", "retrieval", "encoders.load"),
    *("operating_system", "writing"),
    *("index.contract", "index.validation", "index.filters", "index.documents", "index.origins"),
    *("index.query_codes", "index.words", "cli.options"),
    *("features.cache", "cli.output", "cli.exit"),
}
# The command line of the plugin builds encoders and demos as the command line of the core does.
PLUGIN_CLI_USES_OF_CORE = {"features", "encoders", "export.ml_commons", "service", "index", "cli"}

TORCH = {"torch", "torchvision", "transformers"}
HEAVY = {*TORCH, "safetensors", "llvmlite", "pyarrow", "PIL", "click", "rich", "opensearchpy"}
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve"}
VAGUE_NAMES = {"utils", "util", "common", "helpers", "core", "base", "types", "misc"}


class Import(NamedTuple):
    """One imported name: line, module as written, number of leading dots, name or None."""

    line: int
    module: str
    dots: int
    name: str | None

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def imports(source: str) -> Iterator[Import]:
    """Every import of a source at any depth, except those under ``if TYPE_CHECKING``."""
    stack: list[ast.AST] = [ast.parse(source)]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            stack.extend(node.orelse)
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
        stack.extend(ast.iter_child_nodes(node))


def imported_module(imported: Import, package: str, folder: Path) -> str | None:
    """Dotted path below ``package`` of the imported module; "" for the package; None for others."""
    if imported.top != package:
        return None
    parts = imported.module.split(".")[1:]
    if imported.name is not None:
        candidate = folder.joinpath(*parts, imported.name)
        if candidate.is_dir() or candidate.with_suffix(".py").is_file():
            parts.append(imported.name)
    return ".".join(parts)


def level(name: str, order: tuple[str, ...]) -> int | None:
    """The place of a folder or single file in an order."""
    return next((n for n, names in enumerate(order) if name in names.split()), None)


def backwards(own: str, wanted: str, order: tuple[str, ...], files: tuple[str, ...]) -> str | None:
    """What is wrong with an import of module ``wanted`` in module ``own`` (dotted paths)."""
    from_, to = own.partition(".")[0], wanted.partition(".")[0]
    if from_ == to:
        return None
    if level(to, order) is None:
        return f"imports {wanted}, which has no place in the order of folders"
    if from_ in files and to in files:
        ahead = files.index(to) > files.index(from_)
    else:
        ahead = (level(to, order) or 0) >= (level(from_, order) or 0)
    return f"imports {wanted}: {to} is not to the left of {from_}" if ahead else None


def uses_torch(path: Path) -> bool:
    """Whether the folder, name or docstring of a core module allows torch at its top."""
    parts = path.relative_to(ROOT / "xmodal").parts
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return (
        parts[0] in ("training", "export", "device.py")
        or "torch" in path.stem
        or "torch" in docstring
    )


def core_problem(own: str, imported: Import, torch: bool) -> str | None:
    """What is wrong with an import in module ``own`` of xmodal, or None."""
    if imported.dots:
        return "imports relatively: write from xmodal...."
    if imported.top in (PLUGIN, "opensearchpy"):
        return f"imports {imported.top}: the one bridge is open_index through entry points"
    if imported.top in PICKLES:
        return f"imports {imported.top}: nothing is pickled"
    if imported.top in TORCH and not torch:
        return f"imports {imported.top} outside of the modules that need torch"
    wanted = imported_module(imported, "xmodal", ROOT / "xmodal")
    if wanted is None or (wanted == "" and imported.name == "__version__"):
        return None
    if wanted == "":
        return "imports from the package xmodal itself: name the module"
    method, other = method_of(own), method_of(wanted)
    if method and wanted.startswith("training.methods") and other != method:
        return "imports another method"
    return backwards(own, wanted, CORE_ORDER, CORE_FILES)


def method_of(module: str) -> str | None:
    """The name of the method that a module belongs to."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["training", "methods"] and len(parts) > 2 else None


def plugin_problem(own: str, imported: Import) -> str | None:
    """What is wrong with an import in module ``own`` of the plugin, or None."""
    if imported.dots:
        return f"imports relatively: write from {PLUGIN}...."
    if imported.top in PICKLES:
        return f"imports {imported.top}: nothing is pickled"
    inside = imported_module(imported, PLUGIN, ROOT / "plugin" / PLUGIN)
    if inside:
        return backwards(own, inside, PLUGIN_ORDER, ())
    wanted = imported_module(imported, "xmodal", ROOT / "xmodal")
    if not wanted:
        return None
    allowed = PLUGIN_USES_OF_CORE
    if own.partition(".")[0] == "cli":
        allowed = allowed | PLUGIN_CLI_USES_OF_CORE
    if wanted in allowed or wanted.partition(".")[0] in allowed:
        return None
    return f"imports xmodal.{wanted}, which the plugin does not use"


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def dotted(path: Path, package: Path) -> str:
    """The dotted path of a module below its package: "index.local"."""
    return ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")


CORE = [path for path in sources("xmodal") if path != ROOT / "xmodal" / "__init__.py"]


def test_every_folder_has_a_place_in_the_order() -> None:
    top = {path.relative_to(ROOT / "xmodal").parts[0].removesuffix(".py") for path in CORE}
    assert top == {name for names in CORE_ORDER for name in names.split()}
    folder = ROOT / "plugin" / PLUGIN
    top = {p.relative_to(folder).parts[0].removesuffix(".py") for p in folder.rglob("*.py")}
    assert top - {"__init__"} == {name for names in PLUGIN_ORDER for name in names.split()}


def test_folders_of_the_core_import_from_the_left() -> None:
    wrong = {
        f"{path.relative_to(ROOT)}:{one.line} {problem}"
        for path in CORE
        for torch in [uses_torch(path)]
        for one in imports(path.read_text())
        if (problem := core_problem(dotted(path, ROOT / "xmodal"), one, torch))
    }
    assert not wrong, "\n".join(sorted(wrong))


def test_folders_of_the_plugin_import_from_the_left() -> None:
    folder = ROOT / "plugin" / PLUGIN
    wrong = {
        f"{path.relative_to(ROOT)}:{one.line} {problem}"
        for path in folder.rglob("*.py")
        for one in imports(path.read_text())
        if (problem := plugin_problem(dotted(path, folder), one))
    }
    assert not wrong, "\n".join(sorted(wrong))


def test_the_package_itself_imports_nothing_at_first() -> None:
    source = (ROOT / "xmodal" / "__init__.py").read_text()
    found = {imported_module(one, "xmodal", ROOT / "xmodal") for one in imports(source)}
    assert found - {None} == {"errors"}  # in a function


def test_no_module_has_a_vague_name() -> None:
    every = sources("xmodal", "plugin", "tests", "examples", "benchmarks")
    names = {part.removesuffix(".py") for path in every for part in path.relative_to(ROOT).parts}
    assert not names & VAGUE_NAMES, f"say what is inside: {sorted(names & VAGUE_NAMES)}"


def test_importing_xmodal_loads_no_package() -> None:
    script = "import sys, xmodal; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert "xmodal" in loaded
    assert not loaded & {*HEAVY, "numpy"}


WITHOUT_TORCH = """
import sys
for name in {torch}:
    sys.modules[name] = None  # importing it raises ModuleNotFoundError
from importlib import import_module
for name in {modules}:
    import_module(f"xmodal.{{name}}")
"""


def test_modules_that_need_no_torch_import_without_it() -> None:
    modules = [dotted(path, ROOT / "xmodal") for path in CORE if not uses_torch(path)]
    # Modules of integrations import large packages, and each is imported by its own name alone.
    modules = [name for name in modules if not name.startswith("integrations.")]
    assert {"index.local", "encoders.onnx_encoder", "retrieval.retriever", "cli"} <= set(modules)
    script = WITHOUT_TORCH.format(torch=sorted(TORCH), modules=modules)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_public_names_are_sorted_and_listed() -> None:
    assert xmodal.__all__ == sorted(set(xmodal.__all__))
    assert set(xmodal._LAZY) <= set(xmodal.__all__)
    assert set(xmodal.__all__) <= set(dir(xmodal))
    with pytest.raises(AttributeError, match="'xmodal' has no attribute 'nothing'"):
        _ = xmodal.nothing


@pytest.mark.parametrize("name", xmodal.__all__)
def test_public_names_can_be_imported(name: str) -> None:
    assert getattr(xmodal, name).__module__.startswith("xmodal.")


@pytest.mark.parametrize(
    ("own", "source", "words"),
    [
        ("codes", "from xmodal.errors import CodeError", None),
        ("errors", "from xmodal.codes import BinaryCodes", "not to the left"),
        ("codes", "import xmodal.index.contract", "not to the left"),
        ("codes", "from xmodal.index.contract import local", "not to the left"),
        ("index.local", "from xmodal import codes, __version__", None),
        ("index.local", "from xmodal import open_index", "name the module"),
        ("index.local", "def f():\n    from xmodal.features.cache import x", "not to the left"),
        ("index.local", "if TYPE_CHECKING:\n    from xmodal.cli import demo", None),
        ("index.local", "if TYPE_CHECKING:\n    pass\nelse:\n    import xmodal.cli", "to the left"),
        ("index.local", "from .codes import BinaryCodes", "relatively"),
        ("index.local", "from . import codes", "relatively"),
        ("data.dataset", "def f():\n    import torch.nn", "need torch"),
        ("data.dataset", "x = importlib.import_module('torch')", "need torch"),
        (
            "retrieval.retriever",
            "from xmodal.evaluation.protocol import metrics",
            "not to the left",
        ),
        ("cli.train", "def f():\n    import torch", "need torch"),
        ("cli.train", "def f():\n    from xmodal.training.train import train", None),
        ("cli.index", "import xmodal_opensearch.index.store", "the one bridge"),
        ("cli.index", "from opensearchpy import OpenSearch", "the one bridge"),
        ("cli.index", "try:\n    import pickle\nexcept ImportError:\n    pass", "is pickled"),
        (
            "training.methods.dshgan.train",
            "from xmodal.training.methods.schgan.train import train",
            "another method",
        ),
        (
            "training.methods.dshgan",
            "from xmodal.training.methods import schgan",
            "another method",
        ),
        ("training.train", "from xmodal.training.methods import schgan", None),
        ("codes", "from xmodal.nowhere import x", "no place in the order"),
    ],
)
def test_the_checks_of_imports_can_fail(own: str, source: str, words: str | None) -> None:
    problems = [p for one in imports(source) if (p := core_problem(own, one, torch=False))]
    if words is None:
        assert problems == []
    else:
        assert len(problems) == 1
        assert words in problems[0]
