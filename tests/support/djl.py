"""What DJL does with an archive inside ml-commons, by the packages tokenizers and onnxruntime."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

TYPES_WITH_TOKEN_TYPES = ("bert", "albert")


def predict(
    archive: Path, model_type: str, texts: Sequence[str], *, batch: int = 1
) -> npt.NDArray[np.int64]:
    """Codes of texts as signed bytes (n, bytes).

    DJL adds special tokens, truncates to 512 tokens, and pads on the right to the longest text of a
    batch with the id 0; ml-commons passes batches of one text.
    """
    with zipfile.ZipFile(archive) as opened:
        (graph,) = (name for name in opened.namelist() if name.endswith(".onnx"))
        session = onnxruntime.InferenceSession(opened.read(graph))
        tokenizer = Tokenizer.from_str(opened.read("tokenizer.json").decode())
    tokenizer.enable_truncation(512)
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    passed = {"input_ids": "ids", "attention_mask": "attention_mask"}
    if model_type in TYPES_WITH_TOKEN_TYPES:
        passed["token_type_ids"] = "type_ids"
    assert [one.name for one in session.get_inputs()] == list(passed)
    rows: list[Any] = []
    for start in range(0, len(texts), batch):
        encodings = tokenizer.encode_batch(list(texts[start : start + batch]))
        inputs = {
            name: np.array([getattr(one, attribute) for one in encodings], np.int64)
            for name, attribute in passed.items()
        }
        rows.extend(session.run(None, inputs)[0])
    found = np.array(rows)
    assert found.dtype == np.float32
    whole = found.astype(np.int64)
    assert np.array_equal(whole, found) and whole.min() >= -128 and whole.max() <= 127
    return whole
