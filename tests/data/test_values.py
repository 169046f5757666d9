"""Cells of tables: texts that look like lists or objects and are none."""

from __future__ import annotations

import pytest

from xmodal.data.readers.values import clean_captions, clean_labels, clean_pictures


@pytest.mark.parametrize(
    "text",
    [
        "{'caption', ['x']}",  # a set cannot have a list in it
        "[{['a']: 'x'}]",  # an object has no list as a key
        "[" * 200 + "]",
        "[1 if 2 else 3]",
    ],
)
def test_texts_that_python_refuses_are_captions_as_they_are(text: str) -> None:
    assert clean_captions(text) == ((text,), True)


def test_unknown_escapes_are_no_warnings() -> None:
    assert clean_captions(r"['a \d' 'b']") == (("a \\d", "b"), True)
    assert clean_labels(r"['\q' 'b']") == ("\\q", "b")
    assert clean_pictures(r"['\d.png']") == ("\\d.png",)
