"""The command ``xmodal serve``: startup, shutdown, and errors in its options."""

from __future__ import annotations

import base64
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.absent import TORCH, command, environment

from xmodal.data.dataset import Dataset
from xmodal.encoders.load import load_encoder
from xmodal.index.local import HammingIndex
from xmodal.retrieval.retriever import Retriever

WORDS = "a red circle on the left"


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Context that kills a process after an error, for which its own context would wait."""
    try:
        yield
    except BaseException:
        process.kill()
        raise


@pytest.mark.parametrize(("served", "absent"), [("model", ()), ("portable_path", TORCH)])
def test_serve_prints_its_url_and_exits_with_0_after_sigterm(
    served: str,
    absent: tuple[str, ...],
    index_path: Path,
    photos_folder: Path,
    dataset: Dataset,
    request: pytest.FixtureRequest,
) -> None:
    model = request.getfixturevalue(served)
    options = ("--model", model, "--index", index_path, "--port", 0, "--pictures", photos_folder)
    with (
        subprocess.Popen(
            command(absent, "serve", *options),
            env=environment(),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
        ended(process),
    ):
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("listening on "):
                break
        url = lines[-1].removeprefix("listening on ").strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url), lines
        assert any("this machine only" in line for line in lines)
        assert not any("none of" in line for line in lines)
        answer = httpx.post(f"{url}/v1/search", json={"text": WORDS}, trust_env=False).json()
        assert len(answer["hits"]) == 20
        image = base64.b64encode(Path(str(dataset.items[0].images[0])).read_bytes()).decode()
        body = {"image": image, "k": 20}
        answer = httpx.post(f"{url}/v1/search", json=body, trust_env=False).json()
        index = HammingIndex.load(index_path, bits=None, fingerprint=None)
        expected = Retriever(load_encoder(model), index).search(
            image=dataset.items[0].images[0], k=20, target="image"
        )
        assert [(hit["id"], hit["distance"]) for hit in answer["hits"]] == [
            (hit.id, hit.distance) for hit in expected
        ]
        other_host = {"Host": "elsewhere.example"}
        assert httpx.get(f"{url}/", headers=other_host, trust_env=False).status_code == 421
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and err == "stopped\n" and out == ""


def test_serve_reports_bad_options_in_one_line(
    xmodal_cli: Callable[..., Any], model: Path, index_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "short").write_text("secret\n")
    no_warning = re.compile(r"\Z.")
    for options, expected in (
        (("--port", 70000), "'--port'"),
        (("--host", "192.0.2.1"), "192.0.2.1:8080"),
        (("--token-file", tmp_path / "short"), "--token-file"),
        (("--token-file", tmp_path / "gone"), "--token-file"),
        (("--max-body", 0), "--max-body is 0"),
        (("--pictures", tmp_path / "gone"), "--pictures"),
        (("--batch", 0), "--batch is 0"),
        (("--allow-pictures-from", "http://a.example"), "allowed host is 'http://a.example'"),
    ):
        done = xmodal_cli("serve", "--model", model, "--index", index_path, *options)
        assert expected in done.error_line(no_warning) and "secret" not in done.err
    done = xmodal_cli("serve", "--model", model, "--index", tmp_path / "none")
    assert str(tmp_path / "none") in done.error_line(no_warning)
