"""The service reloads a local index that another process saved."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.service_process import Running, running

from xmodal.codes import BinaryCodes
from xmodal.encoders.encoder import Encoder
from xmodal.index.contract import open_index
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import FILE
from xmodal.index.query_codes import QueryCodes

WORDS = "a red circle on the left"


@pytest.fixture
def folder(index_path: Path, tmp_path: Path) -> Path:
    """A copy of the index for each test."""
    return Path(shutil.copytree(index_path, tmp_path / "index"))


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def best(service: Running) -> dict[str, Any]:
    answer = service.post("/v1/search", {"text": WORDS, "k": 1, "by": "codes"})
    assert answer.status_code == 200
    hit: dict[str, Any] = answer.json()["hits"][0]
    return hit


def save(folder: Path, encoder: Encoder, id_: str, text: str = WORDS) -> None:
    """Add a document to the folder, as ``xmodal index`` does in another process."""
    index = open_index(folder, bits=encoder.bits, fingerprint=encoder.fingerprint)
    outputs = encoder.encode("text", [text]).outputs
    assert outputs is not None
    query = QueryCodes.of(outputs)
    batch = DocumentBatch.of(
        [id_], image=query.codes, image_vectors=query.vectors, fields=[{"colour": f"of {id_}"}]
    )
    index.add(batch)
    index.close()


def test_saved_documents_are_found_and_no_request_fails(folder: Path, encoder: Encoder) -> None:
    with running(encoder, folder, reload_interval=0.05) as service:
        assert not best(service)["id"].startswith("-")
        stop, failed = threading.Event(), []

        def send_requests() -> None:
            while not stop.is_set():
                answer = service.post("/v1/search", {"like": "00003.png"})
                if answer.status_code != 200 or len(answer.json()["hits"]) != 20:
                    failed.append(answer.text)

        clients = [threading.Thread(target=send_requests) for _ in range(3)]
        for client in clients:
            client.start()
        for number in range(3, 0, -1):  # descending, because ties are sorted by id
            id_ = f"-{number}"  # sorts before the id of every picture
            save(folder, encoder, id_)
            until(lambda id_=id_: best(service)["id"] == id_)  # type: ignore[misc]
            assert service.get("/v1/about").json()["documents"] == 154 - number
        stop.set()
        for client in clients:
            client.join()
        assert not failed
        (found,) = service.get("/v1/documents", id="-1").json()["documents"]
        assert found["fields"] == {"colour": "of -1"}
        fields = service.get("/v1/filters").json()["fields"]
        assert {"value": "of -1", "count": 1} in next(
            field["values"] for field in fields if field["name"] == "colour"
        )


def test_unusable_index_is_logged_once_and_the_previous_one_stays(
    folder: Path, encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    def other_encoder() -> None:
        path = folder.parent / "other"
        other = open_index(path, bits=encoder.bits, encoder="of another", create=True)
        other.add(
            ["x"], image=BinaryCodes(np.zeros((1, encoder.bits // 8), np.uint8), encoder.bits)
        )
        other.close()
        (path / FILE).replace(folder / FILE)

    noise = folder.parent / "noise"
    noise.write_bytes(b"noise")
    breaks: dict[str, Callable[[], object]] = {
        "of another": other_encoder,
        "is damaged": lambda: noise.replace(folder / FILE),
        "no index at": lambda: (folder / FILE).unlink(),
    }
    backup = shutil.copytree(folder, folder.parent / "backup")
    with running(encoder, folder, reload_interval=0.02) as service:
        before = best(service)
        for number, (message, damage) in enumerate(breaks.items()):
            damage()
            until(lambda message=message: message in caplog.text)  # type: ignore[misc]
            time.sleep(0.2)
            assert len(caplog.records) == number + 1
            assert best(service) == before
        (backup / FILE).replace(folder / FILE)
        save(folder, encoder, "new")
        until(lambda: best(service)["id"] == "new")
    assert len(caplog.records) == len(breaks)
