"""The search page in a real browser, as a person uses it."""

from __future__ import annotations

import base64
import io
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from service_process import Running, running

from xmodal.encoder import Encoder
from xmodal.hamming import HammingIndex
from xmodal.index import open_index

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[browser-tests]'")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="apt-get install chromium, or set CHROMIUM to a browser's path"
)
OPTIONS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
WORDS = "a red circle on the left"
DROP = """
async ([data, name]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name, {type: 'image/png'}));
  for (const kind of ['dragover', 'drop'])
    document.body.dispatchEvent(
      new DragEvent(kind, {dataTransfer: carried, bubbles: true, cancelable: true}));
}
"""
PASTE = """
async ([data, name]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name, {type: 'image/png'}));
  document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: carried, bubbles: true}));
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, service: Running) -> Iterator[Any]:
    """The page, open; whatever its console says is an error of the test."""
    with opened(browser, service) as one:
        yield one


class opened:
    """A page of a service, with a window of a size."""

    def __init__(self, browser: Any, service: Running, path: str = "/", **given: Any) -> None:
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | given))
        self.context.set_default_timeout(20_000)
        self.service, self.path = service, path
        self.said: list[str] = []

    def __enter__(self) -> Any:
        page = self.context.new_page()
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.goto(self.service.url + self.path)
        return page

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.context.close()
        if kind is None:
            assert self.said == []


def until(page: Any, condition: str) -> None:
    """Wait until a JavaScript expression is true; the page itself lets nobody evaluate text."""
    end = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        time.sleep(0.02)


def captions(page: Any) -> list[str]:
    page.wait_for_selector("#results:not([aria-busy])")
    return list(page.locator(".said").all_inner_texts())


def search(page: Any, words: str) -> list[str]:
    page.fill("#words", words)
    page.keyboard.press("Enter")
    until(
        page,
        "!/search in|^$/.test(document.querySelector('#status').textContent)"
        " || !document.querySelector('#problem').hidden",
    )
    return captions(page)


def wanted(service: Running, **asked: Any) -> list[str]:
    hits = service.post("/v1/search", {"k": 24, **asked}).json()["hits"]
    return [hit["fields"]["text"] for hit in hits]


def picture(index: HammingIndex, row: int) -> Path:
    """The file of a document of the index."""
    id_ = index.codes("image")[0][row]
    return Path(index.fields_of([id_])[id_]["image"])


def base64_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.fixture(scope="module")
def index(index_path: Path) -> HammingIndex:
    found = open_index(index_path)
    assert isinstance(found, HammingIndex)
    return found


def test_words_find_pictures(page: Any, service: Running) -> None:
    page.get_by_text("150 documents to search in").wait_for()
    assert page.evaluate("document.activeElement.id") == "words"
    found = search(page, WORDS)
    assert found == wanted(service, text=WORDS) and len(found) == 24
    until(page, "[...document.querySelectorAll('.hit img')].slice(0, 8)"
                           ".every((one) => one.complete && one.naturalWidth > 0)")  # fmt: skip
    hit = page.locator(".hit").first
    best = service.post("/v1/search", {"text": WORDS, "k": 1}).json()["hits"][0]
    assert f"distance {best['distance']}" in hit.inner_text()
    assert f"{best['confidence']:.0%} sure" in hit.inner_text()
    page.click("#more")
    until(page, "document.querySelectorAll('.hit').length == 48")
    assert captions(page)[:24] == found


def test_words_find_texts(page: Any, service: Running) -> None:
    page.check("[value=text]")
    assert search(page, WORDS) == wanted(service, text=WORDS, target="text")


@pytest.mark.parametrize("way", ["dropped", "pasted", "chosen"])
def test_a_picture_finds_pictures(
    page: Any, service: Running, index: HammingIndex, way: str
) -> None:
    path = picture(index, 7)
    if way == "chosen":
        page.set_input_files("#file", path)
    else:
        page.evaluate(DROP if way == "dropped" else PASTE, [base64_of(path), path.name])
    page.wait_for_selector(".hit")
    assert captions(page) == wanted(service, image=base64_of(path))
    assert page.locator("#asked-words").inner_text() == path.name
    page.get_by_role("radio", name="Texts").check()
    until(page, "document.querySelector('.foot').textContent.includes('sure')")
    assert captions(page) == wanted(service, image=base64_of(path), target="text")
    page.click("#forget")
    assert page.locator("#words").is_visible() and captions(page) == []


def test_a_large_photo_is_made_smaller_before_it_is_sent(page: Any, tmp_path: Path) -> None:
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 255, (5000, 6000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg", quality=60)  # beyond both limits
    assert (tmp_path / "photo.jpg").stat().st_size > 12_000_000
    page.set_input_files("#file", tmp_path / "photo.jpg")
    page.wait_for_selector(".hit")


def test_filters_narrow_and_stay_in_the_address(page: Any, service: Running) -> None:
    search(page, WORDS)
    for colour in ("blue", "green"):
        page.locator("#fields").get_by_label(colour).check()
    until(page, "document.querySelector('#filters-count').textContent == '(2)'")
    until(page, "![...document.querySelectorAll('.said')]"
                           ".some((one) => one.textContent.includes('red'))")  # fmt: skip
    chosen = wanted(service, text=WORDS, where={"colour": ["blue", "green"]})
    assert captions(page) == chosen
    page.reload()
    page.wait_for_selector(".hit")
    assert captions(page) == chosen and page.locator("#words").input_value() == WORDS
    page.go_back()
    until(page, "document.querySelector('#filters-count').textContent == '(1)'")
    page.click("#clear")
    until(page, "document.querySelector('#filters-count').textContent == ''")
    page.wait_for_selector("#results:not([aria-busy])")
    assert captions(page) == wanted(service, text=WORDS)


def test_more_like_this(page: Any, service: Running) -> None:
    search(page, WORDS)
    best = service.post("/v1/search", {"text": WORDS, "k": 1}).json()["hits"][0]
    page.locator(".like").first.click()
    page.get_by_text(f"more like {best['id']}").wait_for()
    until(page, "!document.querySelector('.foot').textContent.includes('sure')")
    assert captions(page) == wanted(service, like=best["id"])
    page.go_back()
    until(page, "document.querySelector('.foot').textContent.includes('sure')")
    assert captions(page) == wanted(service, text=WORDS)


def test_nothing_sure_enough_is_no_match(page: Any, service: Running) -> None:
    search(page, WORDS)
    page.locator("#fields").get_by_label("red").check()
    page.locator("#fields").get_by_label("at the top right").check()
    page.select_option("#sure", "0.95")
    page.get_by_text("No match: try fewer filters, or show less sure hits").wait_for()
    assert page.locator(".hit").count() == 0 and page.locator("#more").is_hidden()


def test_mistakes_are_told_in_words(page: Any, tmp_path: Path) -> None:
    said = page.context.pages[0]
    assert search(page, "!!!") == []
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "Text without anything that the backbone can read" in alert.inner_text()
    (tmp_path / "words.png").write_text("no picture")
    page.set_input_files("#file", tmp_path / "words.png")
    page.get_by_text("not a picture in a known format").wait_for()
    assert said.locator(".hit").count() == 0


@pytest.fixture(autouse=True)
def refusals_are_expected(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chromium's console repeats every 4xx; where one is the point, it is no error of ours."""
    if request.node.name in ("test_mistakes_are_told_in_words", "test_a_token_is_asked_for_once",
                             "test_a_service_that_went_away_is_told"):  # fmt: skip
        real = opened.__exit__

        def leave(self: opened, *given: Any) -> None:
            self.said = [one for one in self.said if not one.startswith("Failed to load resource")]
            real(self, *given)

        monkeypatch.setattr(opened, "__exit__", leave)


def test_everything_works_by_keyboard(page: Any) -> None:
    page.locator("h1").click()
    page.keyboard.press("/")
    page.keyboard.type(WORDS)
    page.keyboard.press("Enter")
    page.wait_for_selector(".hit")
    focused = "[...document.querySelectorAll('.open')].indexOf(document.activeElement)"
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == 0
    columns = page.evaluate(
        "getComputedStyle(document.querySelector('#hits')).gridTemplateColumns.split(' ').length"
    )
    for key, place in (("ArrowRight", 1), ("ArrowDown", 1 + columns), ("ArrowUp", 1)):
        page.keyboard.press(key)
        assert page.evaluate(focused) == place
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").is_hidden() and page.evaluate(focused) == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(
        "More like"
    )
    for key in ("ArrowUp", "Shift+Tab", "ArrowUp"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.id") == "words"


def test_every_control_has_a_name_and_is_large_enough(page: Any) -> None:
    search(page, WORDS)
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, input, select, img')]
        .filter((one) => one.checkVisibility())
        .filter((one) => one.tagName === 'IMG' ? one.getAttribute('alt') === null
            : !(one.ariaLabel || one.innerText || one.title || one.labels?.[0]?.innerText))
        .map((one) => one.outerHTML)""")
    assert nameless == []
    tree = page.locator("body").aria_snapshot()
    for part in ("search", "Filters", "main", "status"):
        assert part in tree
    small = page.evaluate("""() => [...document.querySelectorAll('.button')]
        .filter((one) => one.checkVisibility())
        .filter((one) => one.getBoundingClientRect().height < 44).length""")
    assert small == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_whole(browser: Any, service: Running, scheme: str) -> None:
    given = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme, "has_touch": True}
    with opened(browser, service, "/?q=a+red+circle", **given) as page:
        page.wait_for_selector(".hit")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("#filters-box").get_attribute("open") is None
        beside = [page.locator(".hit").nth(n).bounding_box() for n in (0, 1)]
        assert beside[0]["y"] == beside[1]["y"] and beside[1]["x"] > beside[0]["x"]
        shot = Image.open(io.BytesIO(page.screenshot())).convert("L")
        assert (shot.getpixel((5, 5)) < 60) is (scheme == "dark")
        page.tap("summary")
        page.locator("#fields").get_by_label("blue").check()
        page.get_by_text("(1)").wait_for()


def test_texts_of_documents_are_text(browser: Any, encoder: Encoder) -> None:
    from xmodal.codes import BinaryCodes

    index = HammingIndex(encoder.bits)
    codes = BinaryCodes.concatenate([encoder.encode_texts(["red"])])
    evil = "<img src=x onerror=\"document.title='taken'\">"
    fields = {"text": evil, "colour": evil[:79], evil: evil, "image": "javascript:alert(1)"}
    index.add([evil], image=codes, fields=[fields])
    with running(encoder, index) as service, opened(browser, service, "/?q=red") as page:
        page.wait_for_selector(".hit")
        page.locator(".open").click()
        assert captions(page) == [evil] and page.title() == "xmodal search"
        assert page.locator("#large-title").inner_text() == evil


def test_a_token_is_asked_for_once(
    browser: Any, encoder: Encoder, index_path: Path, world: Path
) -> None:
    given = {"token": "correct-horse-battery", "pictures": world}
    with running(encoder, index_path, **given) as service:
        with opened(browser, service, "/?q=red") as page:
            page.fill("#token", "correct-horse-battery")
            page.get_by_role("button", name="Go on").click()
            page.wait_for_selector(".hit")
            until(page, "document.querySelector('.hit img').naturalWidth > 0")
            page.reload()
            page.wait_for_selector(".hit")
            assert page.locator("#ask-token").is_hidden()


def test_a_service_that_went_away_is_told(browser: Any, encoder: Encoder, index_path: Path) -> None:
    with running(encoder, index_path) as service:
        leaving = opened(browser, service)
        page = leaving.__enter__()
        page.get_by_text("documents to search in").wait_for()
    page.fill("#words", "red")
    page.keyboard.press("Enter")
    page.get_by_text("The service cannot be reached").wait_for()
    leaving.__exit__(None, None, None)
