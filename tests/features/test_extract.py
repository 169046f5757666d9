"""Features: aligned rows, cache, unusable pictures and texts."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.data.preprocessing import Preprocessing
from xmodal.data.problems import Problems
from xmodal.errors import DataError
from xmodal.features.backbones.builtin import RawPixels, Words
from xmodal.features.cache import content_hash, default_cache
from xmodal.features.extract import image_features, pair_sources, text_features

BATCH = 32


class Corners:
    """Image backbone: features are the pixels of a 2 x 2 square. ``computed`` counts pictures."""

    spec = "corners"
    dim = 12
    raw = False
    batch = BATCH
    space = None

    def __init__(
        self, fingerprint: str = "corners-1", resample: Any = "bicubic", delay: float = 0
    ) -> None:
        self.fingerprint = fingerprint
        self.preprocessing = Preprocessing(size=2, fit="squash", resample=resample)
        self.delay = delay
        self.computed = 0

    def forward(self, pixels: Any) -> Any:
        self.computed += len(pixels)
        time.sleep(self.delay)
        return pixels.reshape(len(pixels), -1).astype(np.float32)


class Letters:
    """Text backbone: features are counts of the letters a, b and c. ``computed``: its texts."""

    spec = "letters"
    dim = 3
    batch = 2 * BATCH
    space = None

    def __init__(self, fingerprint: str = "letters-1") -> None:
        self.fingerprint = fingerprint
        self.computed: list[str] = []

    def forward(self, texts: Sequence[str]) -> Any:
        self.computed += texts
        return np.array([[text.count(c) for c in "abc"] for text in texts], np.float32)


def pictures(folder: Path, n: int, seed: int = 0) -> list[Path]:
    """Write ``n`` small random pictures that all differ."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = []
    for number in range(n):
        paths.append(folder / f"{number:03d}.png")
        Image.fromarray(rng.integers(1, 255, (4, 4, 3), dtype=np.uint8)).save(paths[-1])
    return paths


def extract(folder: str, cache: str, delay: str) -> None:
    """Main function of the processes that :func:`start_process` starts."""
    paths = sorted(Path(folder).iterdir())
    backbone = Corners(delay=float(delay))
    features, _ = image_features(
        backbone, paths, cache=Path(cache), progress=lambda *done: print(done, flush=True)
    )
    print("computed", backbone.computed, "sum", float(features.astype(float).sum()))


def start_process(folder: Path, cache: Path, delay: float) -> subprocess.Popen[str]:
    code = f"import test_extract; test_extract.extract({str(folder)!r}, {str(cache)!r}, {delay})"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )


# ---- values and types ------------------------------------------------------------------------


def test_features_are_float16_of_length_1(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "p", 5)
    features, usable = image_features(Corners(), paths)
    assert (features.shape, features.dtype) == ((5, 12), np.float16)
    assert usable.tolist() == [True] * 5
    assert np.linalg.norm(features.astype(float), axis=1) == pytest.approx(1, abs=2e-3)
    for row, path in enumerate(paths):
        small = Corners().preprocessing.pixels(path).astype(float).ravel()
        assert features[row] == pytest.approx(small / np.linalg.norm(small), abs=1e-3)


def test_text_features_equal_values_computed_by_hand() -> None:
    features, usable = text_features(Letters(), ["ab", "cc", "aab"])
    expected = [[1 / 2**0.5, 1 / 2**0.5, 0], [0, 0, 1], [2 / 5**0.5, 1 / 5**0.5, 0]]
    assert features.astype(float) == pytest.approx(np.array(expected), abs=1e-3)
    assert (features.dtype, usable.tolist()) == (np.float16, [True, True, True])


def test_raw_pixels_stay_uint8_and_black_pictures_are_usable(tmp_path: Path) -> None:
    black = tmp_path / "black.png"
    Image.new("RGB", (64, 64)).save(black)
    for cache in (None, tmp_path / "c", tmp_path / "c"):
        features, usable = image_features(RawPixels(), [black], cache=cache)
        assert (features.dtype, features.shape, features.max()) == (np.uint8, (1, 12288), 0)
        assert usable.tolist() == [True]


def test_no_sources_give_no_rows(tmp_path: Path) -> None:
    for cache in (None, tmp_path):
        features, usable = image_features(Corners(), [], cache=cache)
        assert (features.shape, usable.shape) == ((0, 12), (0,))
        features, usable = text_features(Letters(), [], cache=cache)
        assert (features.shape, usable.shape) == ((0, 3), (0,))


def test_path_bytes_and_image_have_equal_features(tmp_path: Path) -> None:
    [path] = pictures(tmp_path / "p", 1)
    sources = [path, str(path), path.read_bytes(), Image.open(path)]
    for cache in (None, tmp_path / "c"):
        features, _ = image_features(Corners(), sources, cache=cache)
        assert (features == features[0]).all()


# ---- the cache -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3 * BATCH + 1])
def test_second_call_reads_all_rows_from_the_cache(tmp_path: Path, n: int) -> None:
    paths = pictures(tmp_path / "p", n)
    first, again = Corners(), Corners()
    computed, _ = image_features(first, paths, cache=tmp_path / "c")
    cached, usable = image_features(again, paths, cache=tmp_path / "c")
    assert (first.computed, again.computed) == (n, 0)
    assert np.array_equal(computed, cached)
    assert usable.all()
    assert np.array_equal(computed, image_features(Corners(), paths)[0])


def test_cached_texts_are_not_computed(tmp_path: Path) -> None:
    texts = [f"{'a' * (i % 7)}b{'c' * (i % 11)}" for i in range(200)]
    first, again = Letters(), Letters()
    computed, _ = text_features(first, texts, cache=tmp_path)
    cached, _ = text_features(again, ["new b", *texts], cache=tmp_path)
    assert sorted(first.computed) == sorted(set(texts))
    assert again.computed == ["new b"]
    assert np.array_equal(cached[1:], computed)


def test_equal_texts_are_computed_once() -> None:
    backbone = Letters()
    features, usable = text_features(backbone, ["ab", "c", "ab", "ab", "c"])
    assert sorted(backbone.computed) == ["ab", "c"]
    assert usable.all()
    assert np.array_equal(features[[0, 0, 0]], features[[0, 2, 3]])
    assert np.array_equal(features[1], features[4])
    assert not np.array_equal(features[0], features[1])


def test_cache_finds_copied_files_and_misses_changed_files(tmp_path: Path) -> None:
    one, two = pictures(tmp_path / "p", 2)
    cache = tmp_path / "c"
    before, _ = image_features(Corners(), [one, two], cache=cache)
    copied = tmp_path / "copy.png"
    shutil.copy(one, copied)
    backbone = Corners()
    found, _ = image_features(backbone, [copied], cache=cache)
    assert backbone.computed == 0
    assert np.array_equal(found[0], before[0])
    shutil.copy(two, one)  # the same name, other content
    found, _ = image_features(backbone, [one], cache=cache)
    assert np.array_equal(found[0], before[1])
    Image.new("RGB", (4, 4), "red").save(two)
    image_features(backbone, [two], cache=cache)
    assert backbone.computed == 1


def test_cache_misses_other_content_of_the_same_size_and_time(tmp_path: Path) -> None:
    path, cache = tmp_path / "a.bmp", tmp_path / "c"
    Image.new("RGB", (4, 4), "red").save(path)
    before = path.stat()
    image_features(Corners(), [path], cache=cache)
    Image.new("RGB", (4, 4), "blue").save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    found, _ = image_features(Corners(), [path], cache=cache)
    expected, _ = image_features(Corners(), [path])
    assert np.array_equal(found, expected)


def test_key_of_an_open_image_includes_palette_and_orientation(tmp_path: Path) -> None:
    indices = np.arange(16, dtype=np.uint8).reshape(4, 4)
    recoloured = []
    for colours in (range(48), range(200, 152, -1)):
        image = Image.fromarray(indices)
        image.putpalette(list(colours))
        recoloured.append(image)
    turned = Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8))
    upright = turned.copy()
    turned.getexif()[0x0112] = 6  # a quarter turn
    for one, other in (recoloured, (turned, upright)):
        found, _ = image_features(Corners(), [one, other], cache=tmp_path)
        assert np.array_equal(found, image_features(Corners(), [one, other])[0])
        assert not np.array_equal(found[0], found[1])
    backbone = Corners()
    image_features(backbone, [*recoloured, turned, upright], cache=tmp_path)
    assert backbone.computed == 0


@pytest.mark.parametrize("other", [Corners(fingerprint="corners-2"), Corners(resample="bilinear")])
def test_another_backbone_or_preprocessing_shares_no_rows(tmp_path: Path, other: Corners) -> None:
    paths = pictures(tmp_path / "p", 3)
    image_features(Corners(), paths, cache=tmp_path / "c")
    other.computed = 0
    image_features(other, paths, cache=tmp_path / "c")
    assert other.computed == 3


def test_another_text_backbone_shares_no_rows(tmp_path: Path) -> None:
    text_features(Letters(), ["a"], cache=tmp_path)
    other = Letters("letters-2")
    text_features(other, ["a"], cache=tmp_path)
    assert other.computed == ["a"]


def test_environment_sets_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XMODAL_CACHE", "/a")
    assert default_cache() == Path("/a")
    monkeypatch.delenv("XMODAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert default_cache() == Path("/b/xmodal")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "xmodal"
    with monkeypatch.context() as patch:  # as for a user without a home folder
        patch.setattr("os.path.expanduser", lambda path: path)
        assert default_cache() is None


# ---- processes -------------------------------------------------------------------------------


def test_killed_run_continues_with_the_missing_rows(tmp_path: Path) -> None:
    batch, n = BATCH, 6 * BATCH
    paths, cache = pictures(tmp_path / "p", n), tmp_path / "c"
    with start_process(tmp_path / "p", cache, delay=0.3) as running:
        assert running.stdout is not None
        lines = [running.stdout.readline() for _ in range(2)]
        running.send_signal(signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    assert lines == [f"('pictures', {batch}, {n})\n", f"('pictures', {2 * batch}, {n})\n"]
    backbone, shown = Corners(), []
    features, _ = image_features(
        backbone, paths, cache=cache, progress=lambda _what, done, _of: shown.append(done)
    )
    # Reported batches are stored; the next one may be.
    assert 0 < backbone.computed <= n - 2 * batch
    assert backbone.computed % batch == 0
    assert shown[-1] == n
    assert np.array_equal(features, image_features(Corners(), paths)[0])


def test_concurrent_processes_share_one_cache(tmp_path: Path) -> None:
    n = 4 * BATCH
    paths, cache = pictures(tmp_path / "p", n), tmp_path / "c"
    both = [start_process(tmp_path / "p", cache, delay=0.2) for _ in range(2)]
    last = []
    for running in both:
        out, _ = running.communicate(timeout=60)
        assert running.returncode == 0
        last.append(out.splitlines()[-1].split())
    assert last[0][3] == last[1][3]  # the sums
    backbone = Corners()
    features, _ = image_features(backbone, paths, cache=cache)
    assert backbone.computed == 0
    assert np.array_equal(features, image_features(Corners(), paths)[0])


# ---- damage and bad input --------------------------------------------------------------------


@pytest.mark.parametrize("where", ["start", "middle"])
def test_damaged_cache_raises_one_line(tmp_path: Path, where: str) -> None:
    paths, cache = pictures(tmp_path / "p", 200), tmp_path / "c"
    image_features(Corners(), paths, cache=cache)
    [file] = cache.glob("*.sqlite")
    data = bytearray(file.read_bytes())
    start = 0 if where == "start" else 4096  # the second page; the header is in the first
    data[start : start + 8192] = b"\xff" * 8192
    file.write_bytes(data)
    with pytest.raises(DataError, match="feature cache") as caught:
        image_features(Corners(), paths, cache=cache)
    message = str(caught.value)
    assert "\n" not in message
    assert str(cache) in message
    assert "XMODAL_CACHE" in message


def change_rows(cache: Path, change: Callable[[bytes, Any], tuple[Any, Any]]) -> None:
    """Replace each (key, value) of the one file of a cache."""
    [file] = cache.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as database, database:
        rows = [change(*row) for row in database.execute("SELECT key, value FROM features")]
        database.execute("DELETE FROM features")
        database.executemany("INSERT INTO features VALUES (?, ?)", rows)


DAMAGES: dict[str, Callable[[Any], Any]] = {
    "flipped bit": lambda value: bytes([value[0] ^ 1]) + value[1:],
    "flipped checksum": lambda value: value[:-1] + bytes([value[-1] ^ 1]),
    "short": lambda value: value[:-5],
    "long": lambda value: value + b"x",
    "text": lambda value: "red",
    "number": lambda value: 5,
    "nothing": lambda value: None,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_rows_are_counted_and_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    texts = ["a", "b", "cc", "abc"]
    whole, _ = text_features(Letters(), texts, cache=tmp_path)
    damaged: list[bytes] = []

    def change(key: bytes, value: bytes) -> tuple[bytes, Any]:
        damaged.append(key)
        return key, value if len(damaged) == 1 else DAMAGES[damage](value)

    change_rows(tmp_path, change)
    backbone = Letters()
    found, _ = text_features(backbone, texts, cache=tmp_path)
    assert np.array_equal(found, whole)
    assert len(backbone.computed) == 3
    assert "3 damaged features" in caplog.text
    again = Letters()
    assert np.array_equal(text_features(again, texts, cache=tmp_path)[0], whole)
    assert again.computed == []


def test_row_under_the_key_of_another_is_computed_again(tmp_path: Path) -> None:
    texts = ["a", "bb"]
    whole, _ = text_features(Letters(), texts, cache=tmp_path)
    keys = [content_hash(text.encode()) for text in texts]
    change_rows(tmp_path, lambda key, value: (keys[1 - keys.index(key)], value))
    assert np.array_equal(text_features(Letters(), texts, cache=tmp_path)[0], whole)


def test_rows_of_earlier_versions_without_a_checksum_are_used(tmp_path: Path) -> None:
    whole, _ = text_features(Letters(), ["a", "bb"], cache=tmp_path)
    change_rows(tmp_path, lambda key, value: (key, value[:-4]))
    backbone = Letters()
    found, _ = text_features(backbone, ["a", "bb"], cache=tmp_path)
    assert np.array_equal(found, whole) and backbone.computed == []


def test_cache_whose_damage_makes_messages_unreadable_raises(tmp_path: Path) -> None:
    text_features(Letters(), ["a"], cache=tmp_path)
    [file] = tmp_path.glob("*.sqlite")
    content = file.read_bytes()
    at = content.index(b"TABLE features")
    file.write_bytes(content[:at] + b"\xa0" + content[at + 1 :])  # SQLite shows it in its message
    with pytest.raises(DataError, match="feature cache"):
        text_features(Letters(), ["a"], cache=tmp_path)


def test_cache_folder_that_is_a_file_raises(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for cache in (file, file / "below"):
        with pytest.raises(DataError, match="feature cache"):
            text_features(Letters(), ["a"], cache=cache)


def test_unusable_pictures_are_recorded_and_rows_stay_aligned(tmp_path: Path) -> None:
    good = pictures(tmp_path / "p", 3)
    text, black = tmp_path / "text.png", tmp_path / "black.png"
    text.write_text("this is no picture")
    Image.new("RGB", (4, 4)).save(black)
    sources = [good[0], text, good[1], tmp_path / "missing.png", black, "null\0byte", good[2]]
    for _ in range(2):  # the second call reads the usable ones from the cache
        problems = Problems()
        features, usable = image_features(
            Corners(), sources, cache=tmp_path / "c", problems=problems
        )
        assert usable.tolist() == [True, False, True, False, False, False, True]
        assert not features[~usable].any()
        assert np.array_equal(features[usable], image_features(Corners(), good)[0])
        assert problems.count_by_kind() == {
            "picture not usable": 3,
            "picture without anything that the backbone can read": 1,
        }
        named = " ".join(problems.names("picture not usable"))
        assert all(part in named for part in ("text.png", "missing.png", "null"))
        [black_picture] = problems.names("picture without anything that the backbone can read")
        assert "black.png" in black_picture


@pytest.mark.parametrize("name", ["text.png", "missing.png", "black.png"])
def test_unusable_picture_raises_without_problems(tmp_path: Path, name: str) -> None:
    deep = tmp_path / ("a-folder-with-a-long-name-" * 4)  # messages contain the end of a path
    deep.mkdir()
    (deep / "text.png").write_text("this is no picture")
    Image.new("RGB", (4, 4)).save(deep / "black.png")
    with pytest.raises(DataError, match=name):
        image_features(Corners(), [*pictures(tmp_path / "p", 40), deep / name])


def test_texts_with_zero_features_are_recorded(tmp_path: Path) -> None:
    problems = Problems()
    features, usable = text_features(
        Words(), ["a dog", "!!!", "", "a dog", "!!!"], cache=tmp_path, problems=problems
    )
    assert usable.tolist() == [True, False, False, True, False]
    assert not features[~usable].any()
    assert features[0].any()
    with pytest.raises(DataError, match="'!!!'"):
        text_features(Words(), ["a dog", "!!!"])


def test_features_that_are_not_finite_raise_data_error() -> None:
    class Broken(Letters):
        def forward(self, texts: Sequence[str]) -> Any:
            return super().forward(texts) * float("nan")

    with pytest.raises(DataError, match="'a'"):
        text_features(Broken(), ["a"])


def test_equal_pictures_are_decoded_once(tmp_path: Path) -> None:
    first, second = pictures(tmp_path / "p", 2)
    copy = first.with_name("copy.png")
    copy.write_bytes(first.read_bytes())
    broken = [tmp_path / "broken.png"] * 2
    broken[0].write_text("no picture")
    sources = [first, second, copy, first, *broken]
    for cache, decoded in ((None, 3), (tmp_path / "c", 2)):
        corners, problems = Corners(), Problems()
        rows, usable = image_features(corners, sources, cache=cache, problems=problems)
        assert corners.computed == decoded and len(problems) == 1
        assert usable.tolist() == [True] * 4 + [False] * 2
        assert (rows[[2, 3]] == rows[0]).all() and (rows[1] != rows[0]).any()


def test_every_copy_of_an_unusable_picture_is_recorded(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg")]
    for path in paths:
        path.write_bytes(b"<html>not found</html>")
    problems = Problems()
    _, usable = image_features(
        Corners(), [*paths, paths[0]], cache=tmp_path / "cache", problems=problems
    )
    assert not usable.any()
    first, *others = problems.names("picture not usable")
    assert "a.jpg: an HTML page" in first
    assert [Path(name.partition(":")[0]).name for name in others] == ["b.jpg", "c.jpg"]


def test_pair_sources_raises_for_an_item_without_a_picture() -> None:
    with pytest.raises(DataError, match="'x' is not a pair"):
        pair_sources(Dataset((Item("x", captions=("a",)),)))


def test_progress_ends_at_the_number_of_sources(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "p", 70)
    paths[3].write_text("no picture")
    shown: list[tuple[str, int, int]] = []
    for _ in range(2):
        shown.clear()
        image_features(
            Corners(),
            paths,
            cache=tmp_path / "c",
            problems=Problems(),
            progress=lambda *step: shown.append(step),
        )
        assert shown[-1] == ("pictures", 70, 70)
    text_features(Letters(), ["a", "a", "b"], progress=lambda *step: shown.append(step))
    assert shown[-1] == ("texts", 3, 3)
