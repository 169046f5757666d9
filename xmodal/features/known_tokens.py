"""Tokens that a text backbone knows: pieces of texts, longer than one letter, of its vocabulary.

A tokenizer cuts a script that it was not trained on into unknown pieces, single letters or bytes,
whose features have no meaning.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

MIN_IDEOGRAPHS = 2000
"""Single ideographs in a vocabulary from which a single ideograph is a known token."""
_MARKS = re.compile(r"^(?:##|\u2581|\u0120)+|</w>$")
"""Marks of the start, the inside and the end of a word."""


class KnownTokens:
    """Test of the tokens of one tokenizer.

    ``decode``: from token ids to a text without unknown and special tokens. ``vocabulary``: all
    tokens.
    """

    def __init__(self, decode: Callable[[list[int]], str], vocabulary: Iterable[str]) -> None:
        self._decode = decode
        pieces = (_MARKS.sub("", token) for token in vocabulary)
        ideographs = sum(len(piece) == 1 and _is_ideograph(piece) for piece in pieces)
        self._single_ideographs = ideographs >= MIN_IDEOGRAPHS

    def any_of(self, ids: Iterable[int]) -> bool:
        """Return whether one of the tokens of a text is known."""
        return any(self._is_known(self._decode([id_])) for id_ in dict.fromkeys(ids))

    def _is_known(self, decoded: str) -> bool:
        piece = _MARKS.sub("", decoded)
        if "\ufffd" in piece:  # some of the bytes of a character
            return False
        kinds = [unicodedata.category(character) for character in piece]
        if sum(kind[0] in "LN" for kind in kinds) > 1 or "So" in kinds:
            return True
        return self._single_ideographs and any(map(_is_ideograph, piece))


def _is_ideograph(character: str) -> bool:
    """Return whether a character is a Chinese ideograph."""
    return "\u3400" <= character <= "\u9fff" or character >= "\U00020000"
