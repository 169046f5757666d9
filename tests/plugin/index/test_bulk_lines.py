"""Documents as lines of bulk bodies, and the ids and field names that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal.index.documents import DocumentBatch
from xmodal_opensearch.client.bulk import batches, update_line
from xmodal_opensearch.index.bulk_lines import check_id, index_line, index_lines, is_usable
from xmodal_opensearch.index.mapping import LAYOUTS, SELF_TEST_ID
from xmodal_opensearch.index.store import open_opensearch


def test_index_line_has_the_action_and_the_document() -> None:
    line = index_line("é", {"image_code": [-128, 1]}, {"caption": "日本", "n": 1.0, "yes": True})
    assert line.id == "é"
    assert line.body.decode() == (
        '{"index":{"_id":"é"}}\n'
        '{"caption": "日本", "n": 1, "yes": true, "xmodal":{"id":"é"},"image_code":[-128,1]}\n'
    )


def test_index_line_without_fields_or_codes() -> None:
    head = '{"index":{"_id":"a"}}\n'
    assert index_line("a", {}, {}).body.decode() == head + '{"xmodal":{"id":"a"}}\n'
    assert index_line("a", {"text_code": [1]}, {}).body.decode() == (
        head + '{"xmodal":{"id":"a"},"text_code":[1]}\n'
    )


@given(
    id_=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    fields=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(lambda name: f"f{name}"),
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])) | st.lists(st.integers()),
    ),
)  # fmt: skip
def test_index_line_is_two_lines_of_json_for_any_fields(id_: str, fields: dict[str, Any]) -> None:
    head, source, rest = index_line(id_, {"image_code": [1]}, fields).body.split(b"\n")
    assert json.loads(head) == {"index": {"_id": id_}}
    assert json.loads(source) == fields | {"xmodal": {"id": id_}, "image_code": [1]}
    assert rest == b""


def test_index_line_writes_whole_floats_as_integers_at_any_depth() -> None:
    fields = {"a": 10.0, "b": [1.0, 1.5, -0.0], "c": {"d": 2.0}, "e": (3.0,), "f": 1e20}
    source = json.loads(index_line("a", {}, fields).body.split(b"\n")[1])
    del source["xmodal"]
    expected = {"a": 10, "b": [1, 1.5, 0], "c": {"d": 2}, "e": [3], "f": 10**20}
    assert repr(source) == repr(expected)
    assert fields["a"] == 10.0 and isinstance(fields["a"], float)  # the argument is unchanged


@pytest.mark.parametrize(
    "name", ["xmodal", "image_code", "text_code", "self_test_code", "xmodal.id", "image_code.w0"]
)
def test_index_line_refuses_reserved_field_names(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}', which is reserved"):
        index_line("a", {}, {"x": 1, name: 2})
    index_line("a", {}, {"deep": {name: 2}, f"x.{name}": 3, f"my_{name}": 4})


@pytest.mark.parametrize("id_", ["a" * 513, "é" * 257, "日" * 171, SELF_TEST_ID])
def test_check_id_refuses_long_and_reserved_ids(id_: str) -> None:
    with pytest.raises(ConfigError, match=r"512|self-test"):
        check_id(id_)
    assert not is_usable(id_)


@pytest.mark.parametrize("id_", ["a" * 512, "é" * 256, "日" * 170, SELF_TEST_ID + "s"])
def test_check_id_accepts_up_to_512_bytes(id_: str) -> None:
    check_id(id_)
    assert is_usable(id_)


def test_index_lines_of_a_batch() -> None:
    codes = BinaryCodes.from_hex(["01", "02"])
    made = index_lines(DocumentBatch.of(["a", "b"], image=codes), LAYOUTS["faiss"])
    assert [line.body.split(b"\n")[1] for line in made] == [
        b'{"xmodal":{"id":"a"},"image_code":[1]}',
        b'{"xmodal":{"id":"b"},"image_code":[2]}',
    ]


@pytest.mark.parametrize("value", [float("inf"), float("nan"), object()])
def test_index_line_refuses_values_that_are_not_json(value: Any) -> None:
    with pytest.raises(ConfigError, match="fields of 'b'"):
        index_line("b", {}, {"x": value})


def test_documents_sent_twice_are_stored_once(address: Callable[..., str]) -> None:
    ids = [f"{number:04d}" for number in range(1000)]
    codes = BinaryCodes.from_hex([f"{number:04x}" for number in range(1000)])
    with open_opensearch(address(), bits=16, create=True) as index:
        lines = [*index_lines(DocumentBatch.of(ids, image=codes), index.handle.layout)]
        for result in ("created", "updated"):
            report = index.handle.send(batches(lines, 64), workers=3)
            assert (report.results, report.failed) == ({result: 1000}, {})
            assert len(index) == 1000
        found, stored = index.get(ids).codes("image")
        assert (found, stored) == (ids, codes)
        stale = update_line("0000", {"n": 1}, version=(0, 1))
        report = index.handle.send([[stale]])
        assert "version conflict" in report.failed["0000"]
