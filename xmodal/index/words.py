"""Division of texts and documents into the words of full-text search.

The words are computed here for every index, so that all backends find the same documents: they are
stored and searched as they are, separated by spaces.

A text is normalised (NFKC, accents removed, case folded) and cut into runs:

- letters and digits are separate words: ``mp3`` is ``mp 3``. A word in mixed case is cut at each
  capital and is also a word as a whole: ``RedShoes`` is ``red shoe redshoe``;
- runs of scripts that are written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese),
  and of Korean, whose words end in particles, become pairs of neighbouring characters, so that a
  word is found inside a sentence;
- single symbols, for example emoji, are words.

Words of ASCII letters are reduced to their stems, see :func:`stem`.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

VERSION = "1"
"""Version of the rules of this module; words of two versions cannot be compared."""
MAX_LENGTH = 64
"""Characters of a word that are kept; engines cut or drop words that are far longer."""
UNSPACED_RANGES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1100, 0x11FF),  # Hangul Jamo
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # CJK radicals
    (0x3005, 0x3007),  # iteration mark, closing mark, number zero
    (0x3021, 0x3029),  # Hangzhou numerals
    (0x3031, 0x303C),  # kana repeat marks, numerals, masu mark
    (0x3040, 0x318F),  # Hiragana, Katakana, Bopomofo, Hangul compatibility Jamo
    (0x31A0, 0x31BF),  # Bopomofo extended
    (0x31F0, 0x31FF),  # Katakana phonetic extensions
    (0x3400, 0x4DBF),  # CJK extension A
    (0x4E00, 0x9FFF),  # CJK
    (0xA960, 0xA97F),  # Hangul Jamo extended A
    (0xA9E0, 0xA9FF),  # Myanmar extended B
    (0xAA60, 0xAA7F),  # Myanmar extended A
    (0xAC00, 0xD7FF),  # Hangul
    (0xF900, 0xFAFF),  # CJK compatibility ideographs
    (0x1AFF0, 0x1B16F),  # kana extensions
    (0x20000, 0x3FFFF),  # CJK extensions B and later
)
"""Code points of the scripts whose runs are cut into pairs of characters."""
_ACCENTS = re.compile("[\u0300-\u036f]")
_IGNORED = re.compile(
    "[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff]"
)
"""Characters without a meaning of their own: soft hyphen, joiners, directions, variations."""
_POSSESSIVE = re.compile(r"(?<=\w)['\u2019]s\b", re.IGNORECASE)
_ENDS = re.compile(r"^[^\w]+|[^\w]+$")
"""Characters around a word of a text."""
_SUFFIX = re.compile(r"\.[^\W_]{1,5}$")

_STEMMERS = threading.local()
"""The stemmer of each thread: it keeps the state of the word that it works on."""

# Kinds of characters: U capital, l other letter, m mark, d digit, c unspaced, s symbol, space.
_RUNS = re.compile("[Ul][Ulm]*|d+|c[cm]*|s")
_ASCII_RUNS = re.compile("[A-Za-z]+|[0-9]+")
_CAMEL = re.compile("(?:Um*)+(?![lm])|(?:Um*)?(?:lm*)+|(?:Um*)+(?=U)")
_CHARACTERS = re.compile("cm*")


class _Kinds(dict[int, str]):
    """Table for ``str.translate``: code point to kind, computed when a character is first seen."""

    def __missing__(self, code: int) -> str:
        kind = self[code] = _kind(chr(code))
        return kind


def tokens(text: str) -> list[str]:
    """Return the words of a query, in order, repetitions included."""
    return _cut(text, singles=False)


def document_words(fields: Mapping[str, Any], id: str) -> list[str]:
    """Return the words of a document, from its fields and its id.

    These are the words of its captions (field "text") and of all other fields with text or lists of
    text, without "image". A document without captions has the words of its id and of the names of
    its pictures and their folders too. Each character of a pair of an unspaced script is also a
    word, because a query can be a single character.
    """
    captions = _words_of(_texts(fields.get("text")))
    others = (value for name, value in fields.items() if name not in ("text", "image"))
    names = [] if captions else _words_of(_names(fields.get("image"), id))
    return captions + _words_of(text for value in others for text in _texts(value)) + names


def as_typed(text: str, words: Iterable[str]) -> tuple[str, ...]:
    """Return ``words`` of a query as they are written in its ``text``, in that order.

    A part of a text without spaces is returned as it is.
    """
    wanted, found = set(words), dict[str, None]()
    for typed in text.split():
        for word in tokens(typed):
            if word in wanted:
                wanted.discard(word)
                inside = not word.isascii() and word in typed
                found[word if inside else _ENDS.sub("", typed)] = None
    return tuple(found)


def stem(word: str) -> str:
    """Return the stem of a word of ASCII letters: ``heels`` and ``heeled`` are ``heel``.

    Porter, English (Porter2) stemmer of Snowball. It is applied to every language that is written
    in ASCII letters: queries and documents have the same stems.
    """
    stemmers = _STEMMERS.__dict__
    if "english" not in stemmers:
        import snowballstemmer  # needed by searches by words only

        stemmers["english"] = snowballstemmer.stemmer("english")
    return str(stemmers["english"].stemWord(word))


def _words_of(texts: Iterable[str]) -> list[str]:
    return [word for text in texts for word in _cut(text, singles=True)]


def _cut(text: str, *, singles: bool) -> list[str]:
    """Return the words of a text; with ``singles`` also each character of unspaced runs."""
    words: list[str] = []
    if "'" in text or "\u2019" in text:
        text = _POSSESSIVE.sub("", text)
    if text.isascii():  # most texts; the other way gives the same words
        for run in _ASCII_RUNS.findall(text):
            words += _words_of_run(run)
        return words
    text = _normalised(text)
    kinds = text.translate(_KINDS)
    for match in _RUNS.finditer(kinds):
        start, end = match.span()
        if kinds[start] == "c":
            words += _pairs(text[start:end], kinds[start:end], singles)
        else:
            words += _words_of_run(text[start:end])
    return words


@lru_cache(maxsize=65536)
def _words_of_run(run: str) -> tuple[str, ...]:
    """Return the words of a run of letters, of digits, or of a symbol."""
    parts: list[str] = []
    if not (run.islower() or run[1:].islower() or run.isupper()):
        parts = [run[m.start() : m.end()] for m in _CAMEL.finditer(run.translate(_KINDS))]
    return tuple(map(_word, [*parts, run] if len(parts) > 1 else [run]))


def _word(run: str) -> str:
    word = run.casefold()[:MAX_LENGTH]
    return stem(word) if word.isascii() and word.isalpha() else word


def _pairs(run: str, kinds: str, singles: bool) -> list[str]:
    """Return the pairs of neighbouring characters, with their marks; a character alone as it is."""
    characters = [run[m.start() : m.end()][: MAX_LENGTH // 2] for m in _CHARACTERS.finditer(kinds)]
    if len(characters) == 1:
        return characters
    pairs = [one + other for one, other in pairwise(characters)]
    return pairs + characters if singles else pairs


def _normalised(text: str) -> str:
    """Return a text without accents and ignored characters, in NFKC."""
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", _IGNORED.sub("", text)))
    return unicodedata.normalize("NFC", plain)


def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Mn", "Mc"):
        return "m"
    if category == "So":
        return "s"
    if category == "Nd":
        return "d"
    if not character.isalnum():
        return " "
    if any(start <= ord(character) <= end for start, end in UNSPACED_RANGES):
        return "c"
    return "U" if category in ("Lu", "Lt") else "l" if character.isalpha() else "d"


_KINDS = _Kinds()


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a field: a text, or a list of texts, of any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _names(images: Any, id: str) -> Iterator[str]:
    """Yield, each once, the parts of an id, and the names of pictures and of their folders."""
    paths = [id, *("/".join(re.split(r"[/\\]", path)[-2:]) for path in _texts(images))]
    parts = (part for path in paths for part in re.split(r"[/\\]", path))
    yield from dict.fromkeys(_SUFFIX.sub("", part) for part in parts)
