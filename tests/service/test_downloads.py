"""Pictures named by an address: of listed hosts alone, bounded, without traces of their answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.endpoint import Endpoint, Reply, Request
from support.picture_host import picture_host
from support.service_process import Running, running

from xmodal.data.dataset import Dataset
from xmodal.encoders.encoder import Encoder
from xmodal.service import downloads
from xmodal.web.allowed_hosts import AllowedHosts


def listed(*rules: str) -> AllowedHosts:
    return AllowedHosts.parse(rules, listed_only=True, option="--allow-pictures-from")


def url_of(host: Endpoint) -> str:
    return f"http://127.0.0.1:{host.port}"


@pytest.fixture(scope="module")
def files(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a.png of the first item, and files that are no usable picture."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "a.png").write_bytes(Path(str(dataset.items[0].images[0])).read_bytes())
    (folder / "page.html").write_text("<p>secret</p>")
    (folder / "large.bin").write_bytes(bytes(300_000))
    return folder


@pytest.fixture(scope="module")
def host(files: Path) -> Iterator[Endpoint]:
    with picture_host(files) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def asked(host: Endpoint, encoder: Encoder, index_path: Path, files: Path) -> Iterator[Running]:
    """A service that downloads pictures of ``host``."""
    rules = listed(f"127.0.0.1:{host.port}")
    options: dict[str, Any] = {"max_body_bytes": 200_000, "download_timeout": 0.5}
    with running(encoder, index_path, picture_hosts=rules, **options) as service:
        yield service


def test_a_picture_by_address_has_the_code_of_its_file(
    asked: Running, host: Endpoint, encoder: Encoder, files: Path
) -> None:
    code = encoder.encode_images([files / "a.png"])
    url = f"{url_of(host)}/a.png?size=9"
    embedded = asked.post("/v1/embed", {"inputImage": url, "inputText": None}).json()
    assert embedded["image_code"] == code.to_signed()[0]
    encoded = asked.post("/v1/encode", {"images": [url, url.replace("http", "HTTP")]}).json()
    assert encoded["codes"] == 2 * code.to_hex()
    redirected = f"{url_of(host)}/to?{url_of(host)}/to?/a.png"
    hits = asked.post("/v1/search", {"image": redirected, "target": "image", "k": 1}).json()["hits"]
    assert hits[0]["distance"] == 0
    lines = asked.client.get("/metrics").text.splitlines()
    assert 'xmodal_picture_downloads_total{result="ok"} 4.0' in lines


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("http://169.254.169.254/latest/meta-data", 422, "not allowed: see --allow-pictures-from"),
        ("http://127.0.0.1/a.png", 422, "not allowed"),
        ("http://127.0.0.2:PORT/a.png", 422, "not allowed"),
        ("http://[::ffff:127.0.0.1]:PORT/a.png", 422, "not allowed"),
        ("http://2130706433:PORT/a.png", 422, "is a number"),
        ("HOST/to?http://127.0.0.2:PORT/a.png", 422, "not allowed"),
        ("HOST/to?http://inside.example/secret", 422, "not allowed"),
        ("HOST/to?file:///etc/hostname", 422, "a redirect is refused"),
        ("http://me:password@127.0.0.1:PORT/a.png", 422, "user or password"),
        ("http://127.0.0.1:port/a.png", 422, "not valid"),
        ("HOST/" + 2048 * "a", 422, "characters, expected at most 2,048"),
        ("HOST/page.html", 422, "not a picture"),
        ("HOST/large.bin", 422, "more than 200,000 bytes"),
        ("HOST/missing.png", 422, "has none at that address"),
        ("HOST/401", 422, "has none at that address"),
        ("HOST/500", 502, "failed"),
        ("HOST/503", 503, "busy"),
    ],
)
def test_refused_pictures(
    asked: Running, host: Endpoint, path: str, status: int, words: str
) -> None:
    port = str(host.port)
    url = path.replace("HOST", url_of(host)).replace("PORT", port)
    answer = asked.post("/v1/embed", {"inputImage": url, "inputText": None})
    detail = answer.json()["detail"]
    assert answer.status_code == status and words in detail
    for part in ("secret", "inside", "password@", "\n"):
        assert part not in detail


def test_hosts_that_do_not_answer(encoder: Encoder, index_path: Path) -> None:
    ended = threading.Event()

    def wait(request: Request) -> Reply:
        ended.wait(5)
        return Reply()

    with Endpoint(wait) as slow:
        rules = listed(f"127.0.0.1:{slow.port}", "127.0.0.1:1")
        options: dict[str, Any] = {"picture_hosts": rules, "download_timeout": 0.3}
        with running(encoder, index_path, **options) as service:
            for port in (slow.port, 1):
                started = time.monotonic()
                answer = service.post("/v1/search", {"image": f"http://127.0.0.1:{port}/a.png"})
                assert answer.status_code == 502 and time.monotonic() - started < 3
                assert answer.json()["detail"].startswith("no complete answer from 127.0.0.1:")
                assert "refused" not in answer.text
        ended.set()


def test_a_slow_host_does_not_delay_other_hosts(
    host: Endpoint, encoder: Encoder, index_path: Path
) -> None:
    running_now, most, lock, release = 0, 0, threading.Lock(), threading.Event()

    def slowly(request: Request) -> Reply:
        nonlocal running_now, most
        with lock:
            running_now += 1
            most = max(most, running_now)
        release.wait(5)
        with lock:
            running_now -= 1
        return Reply(404)

    with Endpoint(slowly) as slow, ThreadPoolExecutor(24) as pool:
        rules = listed(f"127.0.0.1:{slow.port}", f"127.0.0.1:{host.port}")
        with running(encoder, index_path, picture_hosts=rules) as service:
            body = {"images": [f"http://127.0.0.1:{slow.port}/{n}" for n in range(20)]}
            waiting = pool.submit(service.post, "/v1/encode", body)
            while most < downloads.PICTURES_PER_HOST:
                time.sleep(0.01)
            other = {"images": [f"{url_of(host)}/a.png"]}
            assert service.post("/v1/encode", other).status_code == 200
            assert not waiting.done()
            release.set()
            answer = waiting.result()
    assert answer.status_code == 422 and "images[0]: the picture: " in answer.text
    assert most == downloads.PICTURES_PER_HOST


def test_addresses_are_refused_without_listed_hosts(service: Running, host: Endpoint) -> None:
    for path, body in (
        ("/v1/embed", {"inputImage": f"http://127.0.0.1:{host.port}/a.png"}),
        ("/v1/encode", {"images": [f"HTTPS://127.0.0.1:{host.port}/a.png"]}),
        ("/v1/search", {"image": f"http://127.0.0.1:{host.port}/a.png"}),
    ):
        answer = service.post(path, body)
        assert answer.status_code == 422
        assert "--allow-pictures-from" in answer.json()["detail"]
