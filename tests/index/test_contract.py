"""The way from an address to a backend, and the checks that every backend shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import xmodal.index.contract
from xmodal.codes import BinaryCodes
from xmodal.errors import CodeError, ConfigError, IndexMismatch
from xmodal.index.contract import Hit, Index, open_index
from xmodal.index.local import HammingIndex
from xmodal.index.validation import check_identity
from xmodal.modality import MODALITIES

CODES = BinaryCodes.from_hex(["00"])


class Entry:
    """An entry point of a backend that only remembers how it was opened."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> Any:
        return lambda address, **options: (self.name, address, options)


def test_a_path_and_a_file_address_are_the_same_folder(tmp_path: Path) -> None:
    index = open_index(tmp_path / "a", bits=8, create=True)
    assert isinstance(index, HammingIndex)
    assert isinstance(index, Index)
    index.add(["x"], image=CODES)
    index.close()
    for address in (tmp_path / "a", str(tmp_path / "a"), f"file://{tmp_path / 'a'}"):
        assert len(open_index(address)) == 1


def test_a_scheme_goes_to_the_backend_that_announced_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        xmodal.index.contract, "entry_points", lambda group: [Entry("file"), Entry("far")]
    )
    opened: Any = open_index("far://host:1/x?y", bits=8, fingerprint="e", create=True)
    assert opened == ("far", "far://host:1/x?y", {"bits": 8, "fingerprint": "e", "create": True})
    local: Any = open_index("some/where")
    assert local == ("file", "some/where", {"bits": None, "fingerprint": None, "create": False})
    with pytest.raises(
        ConfigError, match=r"no index backend for near://, .* one of far://; is the"
    ):
        open_index("near://host")


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(ConfigError, match="no index backend for ftp://, expected a folder"):
        open_index("ftp://host/index")


def test_unknown_values_of_a_hit_are_none() -> None:
    hit = Hit("a", 3, {"x": 1})
    assert (hit.id, hit.distance, hit.fields) == ("a", 3, {"x": 1})
    assert (hit.score, hit.confidence, hit.ranks) == (None, None, None)
    assert MODALITIES == ("image", "text")


@pytest.mark.parametrize(
    ("held", "wanted", "words"),
    [
        ((8, None), (16, None), "here holds codes of 8 bits, asked for 16"),
        ((8, "e1"), (8, "e2"), "here was filled by encoder e1, this is encoder e2"),
        ((8, None), (8, "e2"), None),
        ((8, "e1"), (None, None), None),
        ((8, "e1"), (8, "e1"), None),
    ],
)
def test_an_index_is_used_only_with_what_made_it(
    held: tuple[int, str | None], wanted: tuple[int | None, str | None], words: str | None
) -> None:
    arguments: dict[str, Any] = {
        "bits": held[0],
        "fingerprint": held[1],
        "expected_bits": wanted[0],
        "expected_fingerprint": wanted[1],
    }
    if words is None:
        assert check_identity("here", **arguments) is None
    else:
        with pytest.raises(IndexMismatch, match=words):
            check_identity("here", **arguments)


def test_a_width_that_no_code_has_is_not_a_mismatch() -> None:
    with pytest.raises(CodeError, match="bits is 7"):
        check_identity("here", bits=8, fingerprint=None, expected_bits=7, expected_fingerprint=None)
