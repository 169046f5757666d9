"""Many texts or pictures of one request do not delay a single one."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.service_process import running

from xmodal.encoders.encoder import Encoder


def picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("method", "many", "one"),
    [
        ("encode_texts", {"texts": ["red"] * 20}, {"inputText": "blue"}),
        ("encode_images", {"images": [picture()] * 20}, {"inputImage": picture()}),
    ],
)
def test_many_inputs_do_not_delay_one(
    encoder: Encoder,
    index_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    many: dict[str, Any],
    one: dict[str, Any],
) -> None:
    gate, encode, batches = threading.Event(), getattr(type(encoder), method), list[int]()

    def gated(self: Encoder, inputs: Sequence[Any]) -> Any:
        batches.append(len(inputs))
        if len(batches) == 1:
            gate.wait(20)
        return encode(self, inputs)

    with running(encoder, index_path) as service, ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(type(encoder), method, gated)
        waiting = pool.submit(service.post, "/v1/encode", many)
        while not batches:
            time.sleep(0.01)
        assert service.post("/v1/embed", one).status_code == 200
        assert not waiting.done()
        gate.set()
        assert len(waiting.result().json()["codes"]) == 20
