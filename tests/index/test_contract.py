"""open_index: selection of a backend by address; Hit; checks that all backends share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import xmodal.index.contract
from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError, ConfigError, IndexMismatch
from xmodal.index.contract import (
    Hit,
    Index,
    nearest_source,
    nearest_to_json,
    open_index,
    shown_source,
)
from xmodal.index.local import HammingIndex
from xmodal.index.validation import check_identity
from xmodal.modality import MODALITIES

CODES = BinaryCodes.from_hex(["00"])


class Entry:
    """An entry point whose backend returns its arguments."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> Any:
        return lambda address, **options: (self.name, address, options)


def test_open_index_accepts_paths_and_file_addresses(tmp_path: Path) -> None:
    index = open_index(tmp_path / "a", bits=8, create=True)
    assert isinstance(index, HammingIndex)
    assert isinstance(index, Index)
    index.add(["x"], image=CODES)
    index.close()
    for address in (tmp_path / "a", str(tmp_path / "a"), f"file://{tmp_path / 'a'}"):
        assert len(open_index(address)) == 1


def test_open_index_selects_the_backend_of_the_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xmodal.index.contract, "BACKENDS", {})
    monkeypatch.setattr(
        xmodal.index.contract, "entry_points", lambda group: [Entry("file"), Entry("far")]
    )
    opened: Any = open_index("far://host:1/x?y", bits=8, fingerprint="e", create=True)
    assert opened == ("far", "far://host:1/x?y", {"bits": 8, "fingerprint": "e", "create": True})
    local: Any = open_index("some/where")
    assert local == ("file", "some/where", {"bits": None, "fingerprint": None, "create": False})
    with pytest.raises(ConfigError, match=r"near://, .* one of far://"):
        open_index("near://host")


def test_open_index_rejects_an_unknown_scheme() -> None:
    with pytest.raises(ConfigError, match="ftp://, expected a folder"):
        open_index("ftp://host/index")


def test_hit_has_none_for_unknown_values() -> None:
    hit = Hit("a", 3, {"x": 1})
    assert (hit.id, hit.distance, hit.fields) == ("a", 3, {"x": 1})
    assert (hit.score, hit.confidence, hit.ranks, hit.nearest) == (None, None, None, None)
    assert MODALITIES == ("image", "text")


@pytest.mark.parametrize(
    ("fields", "nearest", "expected"),
    [
        ({"text": ["one", "two"]}, 1, "two"),
        ({"text": "one"}, 0, "one"),
        ({"text": "one"}, 1, None),
        ({"text": ["one"]}, None, None),
        ({"text": [1]}, 0, "1"),
        ({"image": "a.jpg"}, 0, None),
    ],
)
def test_nearest_source_is_the_field_at_the_position_of_the_code(
    fields: dict[str, Any], nearest: int | None, expected: str | None
) -> None:
    hit = Hit("a", 3, fields, nearest=nearest)
    assert nearest_source(hit, "text") == expected
    position = None if nearest is None else {"position": nearest, "text": expected}
    assert nearest_to_json(hit, "text") == position


def test_shown_source_is_the_nearest_of_the_target_and_the_first_of_the_other_modality() -> None:
    fields = {"text": ["one", "two"], "image": ["a.jpg", "b.jpg"]}
    hit = Hit("a", 3, fields, nearest=1)
    assert (shown_source(hit, "text", "text"), shown_source(hit, "image", "text")) == (
        "two",
        "a.jpg",
    )
    assert (shown_source(hit, "text", "image"), shown_source(hit, "image", "image")) == (
        "one",
        "b.jpg",
    )
    assert shown_source(hit._replace(nearest=None), "text", "text") == "one"
    assert shown_source(Hit("a", 3, {"text": []}), "text", "text") is None


@pytest.mark.parametrize(
    ("stored", "expected", "message"),
    [
        ((8, None), (16, None), "here holds codes of 8 bits.* 16"),
        ((8, "e1"), (8, "e2"), "here .* e1, .* e2"),
        ((8, None), (8, "e2"), None),
        ((8, "e1"), (None, None), None),
        ((8, "e1"), (8, "e1"), None),
    ],
)
def test_check_identity_rejects_other_bits_and_fingerprints(
    stored: tuple[int, str | None],
    expected: tuple[int | None, str | None],
    message: str | None,
) -> None:
    arguments: dict[str, Any] = {
        "bits": stored[0],
        "fingerprint": stored[1],
        "expected_bits": expected[0],
        "expected_fingerprint": expected[1],
    }
    if message is None:
        assert check_identity("here", **arguments) is None
    else:
        with pytest.raises(IndexMismatch, match=message):
            check_identity("here", **arguments)


def test_check_identity_rejects_an_invalid_width() -> None:
    with pytest.raises(CodeError, match="bits is 7"):
        check_identity("here", bits=8, fingerprint=None, expected_bits=7, expected_fingerprint=None)
