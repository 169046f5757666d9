"""Exceptions of xmodal: a message is one line, whatever the names in it contain."""

from __future__ import annotations

import pytest

from xmodal.errors import BulkFailure, DataError, XmodalError


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\u2028", "\x0b"])
def test_line_breaks_in_names_become_spaces(line_break: str) -> None:
    assert str(DataError(f"a{line_break}b.jpg: missing")) == "a b.jpg: missing"


def test_other_arguments_are_kept() -> None:
    error = BulkFailure("two\nlines", {"a": "full\ndisk"})
    assert str(error) == "two lines" and error.failed == {"a": "full\ndisk"}
    assert XmodalError(1, "a\nb").args == (1, "a b")
