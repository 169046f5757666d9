"""xmodal: cross-modal retrieval by learned binary codes.

``import xmodal`` loads numpy only; everything else is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from xmodal.codes import BinaryCodes
from xmodal.errors import XmodalError, missing_extra
from xmodal.index import Hit, Index, open_index

if TYPE_CHECKING:
    from xmodal.assessment import evaluate
    from xmodal.compression.compressor import Compressor
    from xmodal.data import Dataset
    from xmodal.encoder import Encoder
    from xmodal.evaluation import Report
    from xmodal.hamming import HammingIndex
    from xmodal.loading import load_encoder
    from xmodal.readers import read
    from xmodal.training.compress import compress
    from xmodal.training.train import train

__version__ = "0.1.0"

__all__ = [
    "BinaryCodes",
    "Compressor",
    "Dataset",
    "Encoder",
    "HammingIndex",
    "Hit",
    "Index",
    "Report",
    "XmodalError",
    "compress",
    "evaluate",
    "load_encoder",
    "open_index",
    "read",
    "train",
]

_LATER = {
    "Compressor": "xmodal.compression.compressor",
    "Dataset": "xmodal.data",
    "Encoder": "xmodal.encoder",
    "HammingIndex": "xmodal.hamming",
    "Report": "xmodal.evaluation",
    "compress": "xmodal.training.compress",
    "evaluate": "xmodal.assessment",
    "load_encoder": "xmodal.loading",
    "read": "xmodal.readers",
    "train": "xmodal.training.train",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        try:
            return getattr(import_module(_LATER[name]), name)
        except ModuleNotFoundError as error:
            raise missing_extra(error) or error from None
    raise AttributeError(f"module 'xmodal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
