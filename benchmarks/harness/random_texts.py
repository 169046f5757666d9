"""Random texts for comparisons of encoders: all scripts, and texts that programs misread."""

from __future__ import annotations

import random
import sys
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache

MAX_CHARACTERS = 10_000
BLANK = (
    " ",
    "\t",
    "\n",
    "\r\n",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\xa0",
    "\u2003",
    "\u2028",
    "\u3000",
)
INVISIBLE = (
    "\x00",
    "\x01",
    "\x07",
    "\x7f",
    "\xad",
    "\u200b",
    "\u200d",
    "\u202e",
    "\u2066",
    "\ufeff",
)
WORDS = {
    "en": "a the red green blue circle square star dog boat runs left right two people in front of",
    "de": "ein der rote grüne blaue Kreis Stern Hund läuft Straße über zwei Leute vor großem Boot",
    "zh": "一只 红色 的 圆 绿色 星星 在 左边 两个 人 船 跑 上面 狗 大 小",
    "ar": "دائرة حمراء نجمة خضراء كلب يجري على اليسار رجلان أمام قارب كبير",
    "ru": "красный круг зелёная звезда собака бежит слева двое людей перед большой лодкой",
}
JSON_LIKE = (
    '{{"query": {{"match": {{"text": "{0}"}}}}, "size": {1}}}',
    '"{0}", "text_docs": ["{0}"]',
    '{{"text": "{0}',
    '\\"{0}\\" \\\\ \\n \\u00e9 \\',
    '["{0}", {1}, null, true]]}}',
    "{0}: [1, 2, {1}] # yaml",
    '"',
    "\\",
)
TEMPLATE_LIKE = (
    "${{input_map.docs}} {0} ${{parameters.{0}}}",
    "$.ext.ml_inference..text {0}",
    "{{{{{0}}}}} {{{{{{ctx.{0}}}}}}} {{{{#toJson}}}}{0}{{{{/toJson}}}}",
    "<#if {0}>{1}</#if> #{{{0}}} %s %d {{0}} $1 $& \\1",
    "<b class='{0}'>{0}</b> &amp; <script>alert({1})</script>",
    "'; DROP TABLE {0}; -- {1}",
    "[CLS] {0} [SEP] [MASK] [PAD] [UNK] <s> {0} </s> <|endoftext|>",
    "${{code}} ${{text}} doc['{0}'].value; return {1}",
)


@cache
def _scripts() -> tuple[str, ...]:
    """Letters, marks and digits grouped by the first word of their names ("LATIN"); the rest."""
    groups: dict[str, list[str]] = {}
    for character in map(chr, range(sys.maxunicode + 1)):
        if name := unicodedata.name(character, ""):
            is_letter = unicodedata.category(character)[0] in "LMN"
            groups.setdefault(name.split()[0] if is_letter else "", []).append(character)
    return tuple("".join(group) for group in groups.values() if len(group) >= 10)


def _phrase(rng: random.Random) -> str:
    language = rng.choice(sorted(WORDS))
    words = rng.choices(WORDS[language].split(), k=rng.randint(1, 20))
    return ("" if language == "zh" else " ").join(words)


def _script(rng: random.Random) -> str:
    script = rng.choice(_scripts())
    lengths = [rng.randint(1, 9) for _ in range(rng.randint(1, 12))]
    return " ".join("".join(rng.choices(script, k=length)) for length in lengths)


def _all_of_unicode(rng: random.Random) -> str:
    return "".join(rng.choice(rng.choice(_scripts())) for _ in range(rng.randint(1, 80)))


def _blank(rng: random.Random) -> str:
    return "".join(rng.choices(BLANK, k=rng.choice((0, 0, 1, 2, 20))))


def _invisible(rng: random.Random) -> str:
    parts = [*_phrase(rng).split(), *rng.choices(INVISIBLE + BLANK, k=rng.randint(1, 6))]
    rng.shuffle(parts)
    return rng.choice(("", " ")).join(parts)


def _long(rng: random.Random) -> str:
    make = rng.choice((_phrase, _script, _all_of_unicode))
    text = ""
    while len(text) < MAX_CHARACTERS:
        text += make(rng) + " "
    return text[:MAX_CHARACTERS]


def _from(templates: tuple[str, ...]) -> Callable[[random.Random], str]:
    def make(rng: random.Random) -> str:
        count = rng.randint(1, 3)
        return " ".join(
            rng.choice(templates).format(_phrase(rng), rng.randint(0, 99)) for _ in range(count)
        )

    return make


KINDS: dict[str, tuple[int, Callable[[random.Random], str]]] = {
    "captions": (20, _phrase),
    "one script": (35, _script),
    "all of Unicode": (10, _all_of_unicode),
    "like JSON": (15, _from(JSON_LIKE)),
    "like templates": (12, _from(TEMPLATE_LIKE)),
    "invisible characters": (4, _invisible),
    "empty or blank": (2, _blank),
    "10,000 characters": (2, _long),
}
"""Kinds of texts: share in percent, and function that makes one."""


def random_texts(count: int, seed: int) -> list[tuple[str, str]]:
    """Return ``count`` pairs of a kind and a text, the same for the same seed."""
    rng = random.Random(seed)
    shares = [share for share, _ in KINDS.values()]
    kinds = rng.choices(list(KINDS), weights=shares, k=count)
    return [(kind, KINDS[kind][1](rng)) for kind in kinds]


def captions(count: int, seed: int) -> Iterator[str]:
    """Yield ``count`` English captions of 9 to 14 words."""
    rng, words = random.Random(seed), WORDS["en"].split()
    for _ in range(count):
        yield " ".join(rng.choices(words, k=rng.randint(9, 14)))
