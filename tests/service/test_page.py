"""The search page in a real browser."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image
from support.service_process import Running, running

from xmodal.codes import BinaryCodes
from xmodal.encoders.encoder import Encoder
from xmodal.index.contract import open_index
from xmodal.index.local import HammingIndex
from xmodal.service.tokens import Token

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
    """The open page; the test fails if its console has a message."""
    with opened(browser, service) as loaded:
        yield loaded


class opened:
    """A page of a service, open in a browser context of its own."""

    def __init__(self, browser: Any, service: Running, path: str = "/", **options: Any) -> None:
        self.context = browser.new_context(
            **({"viewport": {"width": 1280, "height": 900}} | options)
        )
        self.context.set_default_timeout(20_000)
        self.service, self.path = service, path
        self.messages: list[str] = []

    def __enter__(self) -> Any:
        page = self.context.new_page()
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        page.goto(self.service.url + self.path)
        return page

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.context.close()
        if kind is None:
            assert self.messages == []


def until(page: Any, condition: str) -> None:
    """Wait until a JavaScript expression is true. (wait_for_function needs eval, which the
    page's Content-Security-Policy forbids.)"""
    end = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        time.sleep(0.02)


def captions(page: Any) -> list[str]:
    page.wait_for_selector("#results:not([aria-busy])")
    return list(page.locator(".caption").all_inner_texts())


def search(page: Any, words: str) -> list[str]:
    page.fill("#words", words)
    page.keyboard.press("Enter")
    until(
        page,
        "!/indexed|^$/.test(document.querySelector('#status').textContent)"
        " || !document.querySelector('#problem').hidden",
    )
    return captions(page)


def expected_captions(service: Running, **query: Any) -> list[str]:
    hits = service.post("/v1/search", {"k": 24, **query}).json()["hits"]
    return [hit["fields"]["text"] for hit in hits]


def picture(index: HammingIndex, row: int) -> Path:
    """The image file of a document of the index."""
    id_ = index.codes("image")[0][row]
    return Path(index.get([id_]).fields_by_id()[id_]["image"])


def base64_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.fixture(scope="module")
def index(index_path: Path) -> HammingIndex:
    found = open_index(index_path)
    assert isinstance(found, HammingIndex)
    return found


def test_text_search_shows_pictures(page: Any, service: Running) -> None:
    page.get_by_text("150 documents indexed").wait_for()
    assert page.evaluate("document.activeElement.id") == "words"
    found = search(page, WORDS)
    assert found == expected_captions(service, text=WORDS) and len(found) == 24
    until(page, "[...document.querySelectorAll('.hit img')].slice(0, 8)"
                           ".every((img) => img.complete && img.naturalWidth > 0)")  # fmt: skip
    hit = page.locator(".hit").first
    best = service.post("/v1/search", {"text": WORDS, "k": 1}).json()["hits"][0]
    assert f"distance {best['distance']}" in hit.inner_text()
    assert f"{best['confidence']:.0%} confidence" in hit.inner_text()
    page.click("#more")
    until(page, "document.querySelectorAll('.hit').length == 72")
    assert captions(page)[:24] == found


def test_text_search_shows_texts(page: Any, service: Running) -> None:
    page.check("[value=text]")
    assert search(page, WORDS) == expected_captions(service, text=WORDS, target="text")


def test_nearest_caption_is_shown(browser: Any, encoder: Encoder, tmp_path: Path) -> None:
    code = encoder.encode_texts([WORDS])
    far = BinaryCodes(~code.packed, code.bits)
    index = HammingIndex(encoder.bits)
    fields = {"text": ["a blue star", WORDS]}
    index.add(["x"], text=[BinaryCodes.concatenate([far, code])], image=far, fields=[fields])
    with running(encoder, index, pictures=tmp_path) as alone, opened(browser, alone) as page:
        assert search(page, WORDS) == ["a blue star"]  # found by its picture: the first caption
        page.check("[value=text]")
        until(page, "document.querySelector('.foot').textContent.includes('distance 0')")
        assert captions(page) == [WORDS]
        page.click(".open")
        assert page.locator("#document-title").inner_text() == WORDS
        assert f"a blue star\n{WORDS}" in page.locator("#document-fields").inner_text()


@pytest.mark.parametrize("action", ["drop", "paste", "file", "camera"])
def test_picture_search_by_drop_paste_and_file_dialog(
    page: Any, service: Running, index: HammingIndex, action: str
) -> None:
    path = picture(index, 7)
    if action in ("file", "camera"):
        page.set_input_files(f"#{action}", path)
    else:
        page.evaluate(DROP if action == "drop" else PASTE, [base64_of(path), path.name])
    page.wait_for_selector(".hit")
    assert captions(page) == expected_captions(service, image=base64_of(path))
    assert page.locator("#query-label").inner_text() == path.name
    page.get_by_role("radio", name="Texts").check()
    until(page, "document.querySelector('.foot').textContent.includes('confidence')")
    assert captions(page) == expected_captions(service, image=base64_of(path), target="text")
    page.click("#reset")
    assert page.locator("#words").is_visible() and captions(page) == []


def test_large_photo_is_scaled_before_upload(page: Any, tmp_path: Path) -> None:
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 255, (5000, 6000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg", quality=60)
    # Above the service's limits of pixels and, in base64, of bytes.
    assert (tmp_path / "photo.jpg").stat().st_size > 12_000_000
    page.set_input_files("#file", tmp_path / "photo.jpg")
    page.wait_for_selector(".hit")


def test_filters_are_applied_and_kept_in_the_url(page: Any, service: Running) -> None:
    search(page, WORDS)
    for colour in ("blue", "green"):
        page.locator("#fields").get_by_label(colour).check()
    until(page, "document.querySelector('#filters-count').textContent == '(2)'")
    until(page, "![...document.querySelectorAll('.caption')]"
                           ".some((caption) => caption.textContent.includes('red'))")  # fmt: skip
    filtered = expected_captions(service, text=WORDS, where={"colour": ["blue", "green"]})
    assert captions(page) == filtered
    page.reload()
    page.wait_for_selector(".hit")
    assert captions(page) == filtered and page.locator("#words").input_value() == WORDS
    page.go_back()
    until(page, "document.querySelector('#filters-count').textContent == '(1)'")
    page.click("#clear")
    until(page, "document.querySelector('#filters-count').textContent == ''")
    page.wait_for_selector("#results:not([aria-busy])")
    assert captions(page) == expected_captions(service, text=WORDS)


def test_more_like_this_and_back(page: Any, service: Running) -> None:
    search(page, WORDS)
    best = service.post("/v1/search", {"text": WORDS, "k": 1}).json()["hits"][0]
    page.locator(".like").first.click()
    page.get_by_text(f"more like {best['id']}").wait_for()
    until(page, "!document.querySelector('.foot').textContent.includes('confidence')")
    assert captions(page) == expected_captions(service, like=best["id"])
    page.go_back()
    until(page, "document.querySelector('.foot').textContent.includes('confidence')")
    assert captions(page) == expected_captions(service, text=WORDS)


def test_no_match_shows_a_hint(page: Any, service: Running) -> None:
    facets = {one["name"]: one["values"] for one in service.get("/v1/filters").json()["fields"]}
    options = page.locator("#confidence option").evaluate_all("all => all.map(one => one.value)")
    # The largest confidence that the model of this test can have.
    confidence = max(
        (value for value in options if value and _accepts(service, float(value))), key=float
    )
    places = [one["value"] for one in facets["place"]]
    places = [one for one in places if sum(one in other for other in places) == 1]
    colour, place = next(
        (colour["value"], place)
        for colour in facets["colour"]
        for place in places  # whose label is in no other label
        if not expected_captions(
            service,
            text=WORDS,
            where={"colour": colour["value"], "place": place},
            min_confidence=float(confidence),
        )
    )
    search(page, WORDS)
    page.locator("#fields").get_by_label(colour).check()
    page.locator("#fields").get_by_label(place).check()
    page.select_option("#confidence", confidence)
    page.get_by_text("No match: try fewer filters").wait_for()
    assert page.locator(".hit").count() == 0 and page.locator("#more").is_hidden()


def _accepts(service: Running, confidence: float) -> bool:
    body = {"text": WORDS, "k": 1, "min_confidence": confidence}
    return bool(service.post("/v1/search", body).status_code == 200)


def test_errors_are_shown(page: Any, tmp_path: Path) -> None:
    assert search(page, "!!!") == []
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text()
    (tmp_path / "words.png").write_text("not a picture")
    page.set_input_files("#file", tmp_path / "words.png")
    page.get_by_text("not a picture in a known format").wait_for()
    assert page.locator(".hit").count() == 0


@pytest.fixture(autouse=True)
def ignore_expected_console_errors(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chromium logs each failed request to its console; some tests provoke these."""
    if request.node.name in ("test_errors_are_shown", "test_token_is_requested_once",
                             "test_unreachable_service_is_reported"):  # fmt: skip
        real = opened.__exit__

        def exit_(self: opened, *args: Any) -> None:
            self.messages = [
                m for m in self.messages if not m.startswith("Failed to load resource")
            ]
            real(self, *args)

        monkeypatch.setattr(opened, "__exit__", exit_)


def test_a_focused_hit_that_moves_keeps_the_focus(page: Any) -> None:
    def search(words: str) -> None:
        page.evaluate(
            "words => { const form = document.querySelector('#form');"
            " document.querySelector('#words').value = words; form.requestSubmit(); }",
            words,
        )
        url = f"/?q={words.replace(' ', '+')}"
        until(page, f"document.querySelector('#hits').dataset.query == '{url}'")

    ids = "[...document.querySelectorAll('#hits .like')].map((one) => one.ariaLabel)"
    search(WORDS)
    before = page.evaluate(ids)
    search("a red circle")
    after = page.evaluate(ids)
    search(WORDS)
    steps = {one: before.index(one) - after.index(one) for one in before if one in after}
    moved = max(steps, key=lambda one: steps[one])
    assert steps[moved] > 0
    page.evaluate("n => document.querySelectorAll('.open')[n].focus()", before.index(moved))
    search("a red circle")
    assert (
        page.evaluate("document.activeElement.closest('.hit')?.querySelector('.like').ariaLabel")
        == moved
    )


def test_keyboard_navigation(page: Any) -> None:
    page.locator("h1").click()
    page.keyboard.press("/")
    page.keyboard.type(WORDS)
    page.keyboard.press("Enter")
    until(page, f"document.querySelector('#hits').dataset.query == '/?q={WORDS.replace(' ', '+')}'")
    focused = "[...document.querySelectorAll('.open')].indexOf(document.activeElement)"
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == 0
    columns = page.evaluate(
        "getComputedStyle(document.querySelector('#hits')).gridTemplateColumns.split(' ').length"
    )
    for key, position in (("ArrowRight", 1), ("ArrowDown", 1 + columns), ("ArrowUp", 1)):
        page.keyboard.press(key)
        assert page.evaluate(focused) == position
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


def test_controls_are_44_pixels_high(page: Any) -> None:
    search(page, WORDS)
    small = page.evaluate("""() => [...document.querySelectorAll('.button')]
        .filter((one) => one.checkVisibility())
        .filter((one) => one.getBoundingClientRect().height < 44).length""")
    assert small == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_layout_fits_a_phone(browser: Any, service: Running, scheme: str) -> None:
    options = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme, "has_touch": True}
    with opened(browser, service, "/?q=a+red+circle", **options) as page:
        page.wait_for_selector(".hit")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("#filters-box").get_attribute("open") is None
        boxes = [page.locator(".hit").nth(n).bounding_box() for n in (0, 1)]
        assert boxes[0]["y"] == boxes[1]["y"] and boxes[1]["x"] > boxes[0]["x"]
        shot = Image.open(io.BytesIO(page.screenshot())).convert("L")
        assert (shot.getpixel((5, 5)) < 60) is (scheme == "dark")
        page.tap("summary")
        page.locator("#fields").get_by_label("blue").check()
        page.get_by_text("(1)").wait_for()


ODD_FIELDS = {
    **{
        name: "a"
        for name in ("constructor", "toString", "then", "id", "distance", "where.a.b", '"')
    },
    "<b>": "<img src=x onerror=\"document.title='taken'\">",
    "🔴 " * 333: "emoji",
    "nothing": None,
    "nested": {"a": [1, {"__proto__": None}]},
    "mixed": [1, "x", None, {"b": 2}],
    "number": 12345678901234567890,
    "large": "x" * 500_000,
    "empty": "",
}


def test_fields_and_ids_may_be_any_text(browser: Any, encoder: Encoder) -> None:
    index = HammingIndex(encoder.bits)
    ids = ["__proto__", "a&b=c?#/../%00", "<script>1</script>", "n" * 1000, " "]
    texts: list[Any] = [{"a": 1}, None, ["", "second"], "<i>red</i>", "word " * 20_000]
    fields = [ODD_FIELDS | {"__proto__": f"p{n % 2}", "text": texts[n]} for n in range(5)]
    codes = BinaryCodes.concatenate([encoder.encode_texts(["red"])] * 5)
    index.add(ids, image=codes, fields=fields)
    with running(encoder, index) as service, opened(browser, service, "/?q=red") as page:
        page.wait_for_selector(".hit")
        assert page.locator(".hit").count() == 5
        assert "<i>red</i>" in captions(page) and max(map(len, captions(page))) < 400
        for number in range(5):
            page.locator(".open").nth(number).click()
            shown = page.locator("#document-fields").inner_text()
            assert "12345678901234567890" in shown and '{"a":[1,{"__proto__":null}]}' in shown
            page.keyboard.press("Escape")
        for field, value in (("__proto__", "p1"), ("constructor", "a"), ("🔴 " * 50, "emoji")):
            box = page.locator(
                "#fields fieldset", has=page.locator("legend", has_text=field.strip())
            )
            box.get_by_label(value).first.check()
        until(page, "document.querySelectorAll('.hit').length == 2")
        assert page.locator(".chip").count() == 3
        page.reload()
        page.wait_for_selector(".hit")
        assert page.locator(".hit").count() == 2
        for number, id_ in enumerate(ids):
            page.goto(f"{service.url}/?{urlencode({'like': id_})}")
            page.wait_for_selector(".hit")
            assert page.locator(".hit").count() == 4, number
        assert page.title() == "xmodal search" and page.locator("main script, main i").count() == 0


def test_ranges_of_numbers_and_dates(browser: Any, encoder: Encoder) -> None:
    index = HammingIndex(encoder.bits)
    codes = BinaryCodes.concatenate([encoder.encode_texts(["red"])] * 30)
    fields = [
        {"text": f"red {n}", "price": n + 0.5, "day": f"2024-05-{n + 1:02}"} for n in range(30)
    ]
    index.add([f"{n:02}" for n in range(30)], image=codes, fields=fields)
    with running(encoder, index) as service:
        with opened(browser, service, "/?q=red&find=image", locale="de-DE") as page:
            page.wait_for_selector(".hit")
            for name, value in (
                ("price: von", "3"),
                ("price: bis", "9.5"),
                ("day: bis", "2024-05-08"),
            ):
                page.get_by_label(name).fill(value)
                page.get_by_label(name).blur()
            until(page, "document.querySelectorAll('.hit').length == 5")
            assert {int(one.split()[1]) for one in captions(page)} == set(range(3, 8))
            page.locator(".open").first.click()
            fields_shown = page.locator("#document-fields").inner_text()
            assert ",5" in fields_shown and ".05.2024" in fields_shown
            page.locator("#document .value").first.click()
            until(page, "document.querySelectorAll('.hit').length == 1")
            while page.locator(".chip").count():
                page.locator(".chip").first.click()
            until(page, "document.querySelectorAll('.hit').length == 24")


def test_search_as_you_type(page: Any, service: Running) -> None:
    page.get_by_text("150 documents indexed").wait_for()
    search(page, "a green star")
    length = page.evaluate("history.length")
    for part in ("", WORDS):
        page.fill("#words", "")
        page.type("#words", part)
    until(page, f"document.querySelector('#hits').dataset.query == '/?q={WORDS.replace(' ', '+')}'")
    assert captions(page) == expected_captions(service, text=WORDS)
    assert page.evaluate("history.length") == length and WORDS.split()[-1] in page.url
    page.keyboard.press("Enter")
    until(page, f"history.length == {length + 1}")
    page.go_back()
    until(page, "document.querySelector('#hits').dataset.query == '/?q=a+green+star'")
    assert page.locator("#words").input_value() == "a green star"
    page.uncheck("#live")
    page.fill("#words", "blue")
    page.wait_for_timeout(200)
    assert page.locator("#hits").get_attribute("data-query") == "/?q=a+green+star"
    page.check("#live")


def test_back_restores_number_of_hits_and_position(page: Any, service: Running) -> None:
    search(page, WORDS)
    page.click("#more")
    until(page, "document.querySelectorAll('.hit').length == 72")
    page.evaluate("scrollTo(0, 2500)")
    until(page, "history.state?.y > 2400")
    page.locator(".like").nth(40).click()
    until(page, "document.querySelector('#hits').dataset.query.includes('like') && scrollY == 0")
    page.go_back()
    until(page, "document.querySelectorAll('.hit').length == 72 && scrollY > 2000")
    assert captions(page) == expected_captions(service, text=WORDS, k=72)
    requests: list[dict[str, Any]] = []
    page.on("request", lambda one: one.post_data_json and requests.append(one.post_data_json))
    page.click("#more")
    until(page, "document.querySelectorAll('.hit').length == 120")
    assert {key: requests[0][key] for key in ("k", "offset")} == {"k": 48, "offset": 72}
    page.click("#more")
    until(page, "document.querySelectorAll('.hit').length == 150")
    assert page.locator("#more").is_hidden()


def check_accessibility(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [one for one in found if one["impact"] in ("serious", "critical")] == []


@pytest.mark.parametrize(
    ("locale", "scheme", "width"),
    [
        ("en-GB", "light", 1280),
        ("de-DE", "dark", 1280),
        ("zh-CN", "dark", 390),
        ("fr", "light", 390),
    ],
)
def test_axe_finds_no_serious_problem(
    browser: Any, service: Running, locale: str, scheme: str, width: int
) -> None:
    options = {"viewport": {"width": width, "height": 800}, "reduced_motion": "reduce"}
    options |= {"locale": locale, "color_scheme": scheme, "has_touch": width < 500}

    with opened(browser, service, "/?q=a+red+circle&where.colour=red", **options) as page:
        page.wait_for_selector(".hit")
        page.wait_for_selector("#fields label", state="attached")
        expected = {"de-DE": "Treffer", "zh-CN": "结果"}.get(locale, "hits")
        assert expected in page.locator("#status").inner_text()
        assert page.locator("#camera").is_visible() is (width < 500)
        assert page.locator("#file").get_attribute("capture") is None
        page.evaluate("document.querySelector('#filters-box').open = true")
        check_accessibility(page)
        page.locator(".open").first.click()
        check_accessibility(page)
        page.keyboard.press("ArrowRight")
        assert page.locator("#position").inner_text().startswith(("2", "第 2"))
        page.keyboard.press("Escape")
        page.locator("h1, .open").last.focus()
        page.keyboard.press("?")
        check_accessibility(page)


def test_limits_of_the_service_are_one_line_each(browser: Any, service: Running) -> None:
    filters = "&".join(f"where.field{n}=a" for n in range(33))
    for query, text in (
        ("like=" + "i" * 2049, "too long"),
        (f"q=red&{filters}", "at most 32 fields"),
    ):
        with opened(browser, service, f"/?{query}") as page:
            page.locator("#problem", has_text=text).wait_for()
            assert page.locator(".hit").count() == 0


def test_texts_are_complete_in_each_language(page: Any) -> None:
    texts = page.evaluate("import('/page/texts.js').then((module) => module.TEXTS)")
    places = re.compile(r"\{\w+\}")
    for language, own in texts.items():
        assert own.keys() == texts["en"].keys(), language
        for key, text in own.items():
            forms = [text] if isinstance(text, str) else list(text.values())
            english = texts["en"][key]
            expected = english if isinstance(english, str) else english["other"]
            assert {*places.findall(forms[-1])} == {*places.findall(expected)}, (language, key)
    used = page.evaluate("""() => [...document.querySelectorAll('*')].flatMap((one) =>
        ['text', 'label', 'hint', 'tip'].map((name) => one.dataset?.[name]).filter(Boolean))""")
    assert {*used} <= {*texts["en"]}


def test_token_is_requested_once(
    browser: Any, encoder: Encoder, index_path: Path, photos_folder: Path
) -> None:
    tokens = (Token("page", "correct-horse-battery"),)
    with running(encoder, index_path, tokens=tokens, pictures=photos_folder) as service:
        with opened(browser, service, "/?q=red") as page:
            page.wait_for_selector("#token-dialog[open]")
            check_accessibility(page)
            page.fill("#token", "not ASCII: ü")
            page.get_by_role("button", name="Continue").click()
            assert page.locator("#token-problem").inner_text()
            check_accessibility(page)
            page.fill("#token", "correct-horse-battery")
            page.get_by_role("button", name="Continue").click()
            page.wait_for_selector(".hit")
            until(page, "document.querySelector('.hit img').naturalWidth > 0")
            page.reload()
            page.wait_for_selector(".hit")
            assert page.locator("#token-dialog").is_hidden()


def test_unreachable_service_is_reported(browser: Any, encoder: Encoder, index_path: Path) -> None:
    with running(encoder, index_path) as service:
        context = opened(browser, service)
        page = context.__enter__()
        page.get_by_text("documents indexed").wait_for()
    page.fill("#words", "red")
    page.keyboard.press("Enter")
    page.get_by_text("The service is not reachable").wait_for()
    context.__exit__(None, None, None)
