"""Division of texts into the weighted grams of the backbone ``words``.

A text is normalised (NFKC, case folded) and cut into runs of letters, marks and digits. Marks, for
example Indic vowel signs, belong to the letter before them. Three kinds of runs:

- words of scripts that are written with spaces: the word, its character 3- to 5-grams, and pairs of
  neighbouring words;
- runs of scripts that are written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese and
  others), and of Korean, whose words end in particles: 1-, 2- and 3-grams of characters with their
  marks, so that a word shares grams with every sentence that contains it;
- single symbols, for example emoji: like words.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby, pairwise

Gram = tuple[str, float]
"""A gram and its weight."""
UNSPACED_WEIGHTS = {1: 1.0, 2: 1.0, 3: 0.5}
"""Weight of the n-grams of scripts without spaces."""
UNSPACED_RANGES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1100, 0x11FF),  # Hangul Jamo
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x2E80, 0x2FDF),  # CJK radicals
    (0x3005, 0x3007),  # iteration mark, closing mark, number zero
    (0x3021, 0x3029),  # Hangzhou numerals
    (0x3031, 0x303C),  # kana repeat marks, numerals, masu mark
    (0x3040, 0x318F),  # Hiragana, Katakana, Bopomofo, Hangul compatibility Jamo
    (0x31A0, 0x31BF),  # Bopomofo extended
    (0x31F0, 0x31FF),  # Katakana phonetic extensions
    (0x3400, 0x4DBF),  # CJK extension A
    (0x4E00, 0xA4CF),  # CJK, Yi
    (0xA960, 0xA97F),  # Hangul Jamo extended A
    (0xA980, 0xA9FF),  # Javanese, Myanmar extended B
    (0xAA60, 0xAADF),  # Myanmar extended A, Tai Viet
    (0xAC00, 0xD7FF),  # Hangul
    (0xF900, 0xFAFF),  # CJK compatibility ideographs
    (0x1AFF0, 0x1B16F),  # kana extensions
    (0x20000, 0x3FFFF),  # CJK extensions B and later
)
"""Code points of the scripts that are cut into n-grams, sorted."""
_STARTS = [start for start, _ in UNSPACED_RANGES]
_IGNORED = re.compile(
    "[\u00ad\u200c-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff]"
)
"""Characters without a meaning of their own: soft hyphen, joiners, directions, variations."""


def grams_1(text: str) -> Iterator[Gram]:
    """Yield the grams of "words-1": words are cut at marks, runs without spaces are not cut."""
    yield from _spaced(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def grams_2(text: str) -> Iterator[Gram]:
    """Yield the grams of "words-2"; for ASCII texts they are those of :func:`grams_1`."""
    normal = unicodedata.normalize("NFKC", text).casefold()
    if normal.isascii():
        yield from _spaced(re.findall(r"\w+", normal))
        return
    words: list[str] = []
    for kind, run in _runs(_IGNORED.sub("", normal)):
        if kind == "unspaced":
            yield from _unspaced(run)
        else:
            words.append(run)
    yield from _spaced(words)


def _spaced(words: list[str]) -> Iterator[Gram]:
    """Yield words, the character n-grams of each, and pairs of neighbours."""
    for word in words:
        yield word, 1.0
        bounded = f"<{word}>"
        for n in (3, 4, 5):
            for start in range(len(bounded) - n + 1):
                yield f"{n}{bounded[start : start + n]}", 0.25
    for first, second in pairwise(words):
        yield f"{first} {second}", 0.5


def _unspaced(run: str) -> Iterator[Gram]:
    """Yield the 1- to 3-grams of the characters of a run; marks belong to their character."""
    characters: list[str] = []
    for character in run:
        if characters and _kind(character) == "mark":
            characters[-1] += character
        else:
            characters.append(character)
    for n, weight in UNSPACED_WEIGHTS.items():
        for start in range(len(characters) - n + 1):
            yield "".join(characters[start : start + n]), weight


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, run) for each run of one kind; a mark has the kind of the letter before it."""
    kinds: list[str] = []
    for character in text:
        kind = _kind(character)
        if kind == "mark":
            before = kinds[-1] if kinds else "other"
            kind = before if before in ("word", "unspaced") else "word"
        kinds.append(kind)
    position = 0
    for kind, members in groupby(kinds):
        length = sum(1 for _ in members)
        run = text[position : position + length]
        position += length
        if kind == "symbol":
            yield from (("word", symbol) for symbol in run)
        elif kind != "other":
            yield kind, run


@lru_cache(maxsize=65536)
def _kind(character: str) -> str:
    """Return "word", "unspaced", "mark", "symbol" or "other"."""
    category = unicodedata.category(character)
    if category in ("Mn", "Mc"):
        return "mark"
    if category == "So":
        return "symbol"
    if not (character.isalnum() or character == "_"):
        return "other"
    position = bisect_right(_STARTS, ord(character)) - 1
    unspaced = position >= 0 and ord(character) <= UNSPACED_RANGES[position][1]
    return "unspaced" if unspaced and category != "Nd" else "word"


GRAMS = {"words-1": grams_1, "words-2": grams_2}
"""Gram functions of each fingerprint of the backbone ``words``."""
