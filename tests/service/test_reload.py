"""A service takes in what another process saves in the folder of its index."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service_process import Running, running

from xmodal.codes import BinaryCodes
from xmodal.encoder import Encoder
from xmodal.hamming import FILE
from xmodal.index import open_index

WORDS = "a red circle on the left"


@pytest.fixture
def folder(index_path: Path, tmp_path: Path) -> Path:
    """An index of its own for each test."""
    return Path(shutil.copytree(index_path, tmp_path / "index"))


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def best(service: Running) -> dict[str, Any]:
    answer = service.post("/v1/search", {"text": WORDS, "k": 1})
    assert answer.status_code == 200
    hit: dict[str, Any] = answer.json()["hits"][0]
    return hit


def save(folder: Path, encoder: Encoder, id_: str, text: str = WORDS) -> None:
    """As ``xmodal index`` does in a process of its own."""
    index = open_index(folder, bits=encoder.bits, encoder=encoder.fingerprint)
    index.add([id_], image=encoder.encode_texts([text]), fields=[{"colour": f"of {id_}"}])
    index.close()


def test_what_is_saved_is_found_and_no_request_is_lost(folder: Path, encoder: Encoder) -> None:
    with running(encoder, folder, look_seconds=0.05) as service:
        assert best(service)["distance"] > 0
        ended, failed = threading.Event(), []

        def ask() -> None:
            while not ended.is_set():
                answer = service.post("/v1/search", {"like": "00003.png"})
                if answer.status_code != 200 or len(answer.json()["hits"]) != 20:
                    failed.append(answer.text)

        asking = [threading.Thread(target=ask) for _ in range(3)]
        for one in asking:
            one.start()
        for number in range(3, 0, -1):  # of equal ones the first id is the best
            save(folder, encoder, f"{number}")
            until(lambda number=number: best(service)["id"] == f"{number}")  # type: ignore[misc]
            assert service.get("/health/ready").json()["documents"] == 154 - number
        ended.set()
        for one in asking:
            one.join()
        assert not failed
        (found,) = service.get("/v1/documents", id="1").json()["documents"]
        assert found["fields"] == {"colour": "of 1"}
        fields = service.get("/v1/filters").json()["fields"]
        assert {"value": "of 1", "count": 1} in next(
            one["values"] for one in fields if one["name"] == "colour"
        )


def test_what_cannot_be_used_is_told_once_and_the_service_goes_on(
    folder: Path, encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    def other_encoder() -> None:
        place = folder.parent / "other"
        other = open_index(place, bits=encoder.bits, encoder="of another", create=True)
        other.add(
            ["x"], image=BinaryCodes(np.zeros((1, encoder.bits // 8), np.uint8), encoder.bits)
        )
        other.close()
        (place / FILE).replace(folder / FILE)

    noise = folder.parent / "noise"
    noise.write_bytes(b"noise")
    breaks: dict[str, Callable[[], object]] = {
        "of another": other_encoder,
        "is damaged": lambda: noise.replace(folder / FILE),
        "no index at": lambda: (folder / FILE).unlink(),
    }
    kept = shutil.copytree(folder, folder.parent / "kept")
    with running(encoder, folder, look_seconds=0.02) as service:
        before = best(service)
        for number, (words, happens) in enumerate(breaks.items()):
            happens()
            until(lambda words=words: words in caplog.text)  # type: ignore[misc]
            time.sleep(0.2)
            assert len(caplog.records) == number + 1
            assert best(service) == before
        (kept / FILE).replace(folder / FILE)
        save(folder, encoder, "new")
        until(lambda: best(service)["id"] == "new")
    assert len(caplog.records) == len(breaks)
