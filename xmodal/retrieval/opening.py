"""Opening of an index together with its encoder."""

from __future__ import annotations

from pathlib import Path

from xmodal.encoders.index_model import find_model
from xmodal.encoders.load import load_encoder
from xmodal.errors import IndexMissing
from xmodal.index.contract import open_index
from xmodal.retrieval.retriever import Retriever


def open_retriever(index: str | Path, model: str | Path | None = None) -> Retriever:
    """Open ``index``, a folder or an address, for queries.

    ``model``: folder of its encoder; default: the one that a local index records. Raises as
    :func:`xmodal.open_index` and :func:`xmodal.load_encoder`, and ConfigError if no model is known.
    """
    folder = model or find_model(str(index))
    if folder is None:
        raise IndexMissing(
            f"no index at {index}: make one with xmodal index DATA --index {index}, or name another"
        )
    encoder = load_encoder(folder, for_queries=True)
    return Retriever(encoder, open_index(index, bits=encoder.bits, fingerprint=encoder.fingerprint))
