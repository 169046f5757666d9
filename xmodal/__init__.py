"""xmodal: cross-modal retrieval by learned binary codes.

Everything is loaded when it is first used.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xmodal.codes import BinaryCodes
    from xmodal.data.dataset import Dataset
    from xmodal.data.readers.read import read
    from xmodal.encoders.compressor import Compressor
    from xmodal.encoders.encoder import Encoder
    from xmodal.encoders.load import load_encoder
    from xmodal.errors import XmodalError
    from xmodal.evaluation.evaluate import evaluate
    from xmodal.evaluation.report import Report
    from xmodal.index.contract import Hit, Index, open_index
    from xmodal.index.local import HammingIndex
    from xmodal.retrieval.collection import Collection, search
    from xmodal.retrieval.query import Query
    from xmodal.retrieval.results import Results
    from xmodal.retrieval.retriever import Retriever
    from xmodal.training.compress import compress
    from xmodal.training.train import train

__version__: str

# The library prints nothing; a program shows its messages with logging.basicConfig().
logging.getLogger("xmodal").addHandler(logging.NullHandler())

__all__ = [
    "BinaryCodes",
    "Collection",
    "Compressor",
    "Dataset",
    "Encoder",
    "HammingIndex",
    "Hit",
    "Index",
    "Query",
    "Report",
    "Results",
    "Retriever",
    "XmodalError",
    "compress",
    "evaluate",
    "load_encoder",
    "open_index",
    "read",
    "search",
    "train",
]

_LAZY = {
    "BinaryCodes": "xmodal.codes",
    "Collection": "xmodal.retrieval.collection",
    "Compressor": "xmodal.encoders.compressor",
    "Dataset": "xmodal.data.dataset",
    "Encoder": "xmodal.encoders.encoder",
    "HammingIndex": "xmodal.index.local",
    "Hit": "xmodal.index.contract",
    "Index": "xmodal.index.contract",
    "Query": "xmodal.retrieval.query",
    "Report": "xmodal.evaluation.report",
    "Results": "xmodal.retrieval.results",
    "Retriever": "xmodal.retrieval.retriever",
    "XmodalError": "xmodal.errors",
    "compress": "xmodal.training.compress",
    "evaluate": "xmodal.evaluation.evaluate",
    "load_encoder": "xmodal.encoders.load",
    "open_index": "xmodal.index.contract",
    "read": "xmodal.data.readers.read",
    "search": "xmodal.retrieval.collection",
    "train": "xmodal.training.train",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        try:
            return getattr(import_module(_LAZY[name]), name)
        except ModuleNotFoundError as error:
            from xmodal.errors import missing_extra

            raise missing_extra(error) or error from None
    if name == "__version__":
        return globals().setdefault(name, _installed_version())
    raise AttributeError(f"module 'xmodal' has no attribute {name!r}")


def _installed_version() -> str:
    """Return the version of the installed package, "0+unknown" of sources without one."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("xmodal")
    except PackageNotFoundError:
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
