"""prepare and undo: each state that a killed or refused run leaves can be completed or undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.data.problems import Problems
from xmodal.encoders.encoder import EncodedSources
from xmodal.errors import ConfigError, IndexMismatch, ServerFailure
from xmodal.vectors import to_int8
from xmodal_opensearch.client.address import Address, parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.bit_order_check import read_self_test
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.loading import preparation
from xmodal_opensearch.loading.document_sources import Source
from xmodal_opensearch.loading.enrich import Result, enrich
from xmodal_opensearch.loading.preparation import prepare
from xmodal_opensearch.loading.preview import preview
from xmodal_opensearch.loading.selection import Selection
from xmodal_opensearch.loading.undo import undo

Rest = Callable[..., Any]
FIRST, SECOND = "a" * 16, "b" * 16
TITLE = Source(text="title")


class Shop:
    """An index with six documents, and codes that a function of their titles gives."""

    def __init__(self, uri: str, rest: Rest, **body: Any) -> None:
        self.uri, self.rest = uri, rest
        self.address: Address = parse_address(uri)
        self.name = self.address.index
        self.server = Server(self.address)
        rest("PUT", f"/{self.name}", body)
        routed = body.get("mappings", {}).get("_routing")
        for number in range(6):
            self.put(f"d{number}", {"title": f"title {number % 4}"}, routing="x" if routed else "")

    def put(self, id_: str, body: Any, routing: str = "") -> None:
        more = f"&routing={routing}" if routing else ""
        self.rest("PUT", f"/{self.name}/_doc/{id_}?refresh=true{more}", body)

    def documents(self) -> dict[str, Any]:
        hits = self.rest("POST", f"/{self.name}/_search", {"size": 99})["hits"]["hits"]
        return {hit["_id"]: hit["_source"] for hit in hits}

    def mappings(self) -> Any:
        return self.rest("GET", f"/{self.name}/_mapping")[self.name]["mappings"]

    def prepare(self, fingerprint: str = FIRST, bits: int = 32, **options: Any) -> Any:
        return prepare(self.server, self.address, bits, fingerprint, TITLE, **options)

    def enrich(self, fingerprint: str = FIRST, **options: Any) -> Result:
        replace = options.pop("replace", False)
        index = self.prepare(fingerprint, replace=replace)
        return enrich(index, TITLE, encode, problems=Problems(), **options)

    def codes(self) -> dict[str, Any]:
        with open_opensearch(self.uri) as index:
            batch = index.get(list(self.documents()))
            return {
                id_: batch.codes("text")[1].packed[row].tolist()
                for row, id_ in enumerate(batch.codes("text")[0])
            }

    def undo(self) -> int:
        return undo(self.server, self.address, problems=Problems())


def encode(data: Any) -> Any:
    """Codes and vectors of the texts "title N": bit N is set."""
    items = [item for item in data if item.captions]
    outputs = np.full((len(items), 32), -1.0, np.float32)
    for row, item in enumerate(items):
        outputs[row, int(item.captions[0].split()[1])] = 1.0
    codes = BinaryCodes(np.packbits(outputs > 0, axis=1), 32)
    offsets, zeros = np.arange(len(items) + 1), np.zeros(len(items), np.int64)
    none = EncodedSources(
        [], BinaryCodes.empty(32), np.zeros(1, np.int64), zeros[:0], to_int8(outputs[:0])
    )
    ids = [item.id for item in items]
    return {"image": none, "text": EncodedSources(ids, codes, offsets, zeros, to_int8(outputs))}


@pytest.fixture
def shop(address: Callable[..., str], rest: Rest) -> Callable[..., Shop]:
    return lambda **body: Shop(address(), rest, **body)


EXPECTED = {f"d{n}": [128 >> n % 4, 0, 0, 0] for n in range(6)}


@pytest.mark.parametrize("step", ["store_self_test", "_write_meta"])
def test_preparation_that_ended_early_is_completed(
    shop: Callable[..., Shop], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = shop(mappings={"_meta": {"own": 1}})
    before = mine.documents()
    with monkeypatch.context() as patch:

        def killed(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(preparation, step, killed)
        with pytest.raises(KeyboardInterrupt):
            mine.prepare()
    assert mine.mappings()["_meta"] == {"own": 1}  # no search treats it as an index with codes
    assert mine.undo() == 0 and mine.documents() == before
    with monkeypatch.context() as patch:
        patch.setattr(preparation, step, killed)
        with pytest.raises(KeyboardInterrupt):
            mine.prepare()
    assert mine.enrich().updated == 6 and mine.codes() == EXPECTED
    assert mine.mappings()["_meta"]["own"] == 1


def test_self_test_is_stored_before_the_index_has_codes(
    shop: Callable[..., Shop], rest: Rest
) -> None:
    mine = shop(mappings={"_routing": {"required": True}})
    refusing = {"processors": [{"fail": {"message": "no"}}]}
    rest("PUT", f"/_ingest/pipeline/{mine.name}", refusing)
    pipeline = {"index.default_pipeline": mine.name, "index.final_pipeline": mine.name}
    rest("PUT", f"/{mine.name}/_settings", pipeline)
    with pytest.raises(ServerFailure):  # a final pipeline cannot be bypassed
        mine.prepare()
    assert "_meta" not in mine.mappings() and read_self_test(mine.server, mine.name) is None
    rest("PUT", f"/{mine.name}/_settings", {"index.final_pipeline": None})
    assert mine.enrich().updated == 6 and mine.codes() == EXPECTED
    assert read_self_test(mine.server, mine.name) is not None
    assert mine.undo() == 6 and read_self_test(mine.server, mine.name) is None
    rest("PUT", f"/{mine.name}/_settings", {"index.default_pipeline": None})
    rest("DELETE", f"/_ingest/pipeline/{mine.name}")


def test_lost_self_test_is_stored_again(shop: Callable[..., Shop], rest: Rest) -> None:
    mine = shop()
    mine.enrich()
    rest("DELETE", f"/{mine.name}/_doc/xmodal-self-test?routing=xmodal-self-test&refresh=true")
    assert mine.enrich() == Result() and mine.codes() == EXPECTED
    # A run that ended before the self-test document names the encoder is completed.
    test = f"/{mine.name}/_update/xmodal-self-test?routing=xmodal-self-test&refresh=true"
    rest("POST", test, {"doc": {"xmodal": {"encoder": SECOND}}})
    mine.prepare()
    stored = read_self_test(mine.server, mine.name)
    assert stored is not None and stored["xmodal"] == {"encoder": FIRST}


@pytest.mark.parametrize("knn", [False, True])
def test_undo_restores_the_documents(shop: Callable[..., Shop], knn: bool) -> None:
    mine = shop(settings={"index.knn": knn, "number_of_shards": 2}, mappings={"_meta": {"own": 1}})
    before = mine.documents()
    mine.enrich()
    stored = mine.documents()
    assert set(stored["d0"]) == {"title", "xmodal", "text_code", "text_vector"}
    mine.put("late", {"title": "title 1"})
    assert mine.undo() == 6
    assert mine.documents() == before | {"late": {"title": "title 1"}}
    assert mine.mappings()["_meta"] == {"own": 1}
    assert mine.rest("GET", f"/{mine.name}/_alias")[mine.name]["aliases"] == {}
    with pytest.raises(IndexMismatch):
        open_opensearch(mine.uri)
    assert mine.undo() == 0
    assert mine.enrich(SECOND).updated == 7  # the fields of the mapping are used again
    assert mine.codes() == EXPECTED | {"late": [64, 0, 0, 0]}
    assert set(mine.documents()["late"]) == set(stored["d0"])  # with vectors


def test_codes_of_another_encoder(shop: Callable[..., Shop]) -> None:
    mine = shop()
    mine.enrich()
    with pytest.raises(IndexMismatch, match=r"encoder a{16}, expected b{16}: .*--replace"):
        mine.enrich(SECOND)
    assert mine.codes() == EXPECTED
    assert mine.enrich(SECOND, replace=True).updated == 6 and mine.codes() == EXPECTED
    with pytest.raises(IndexMismatch, match="codes of 32 bits, expected 64"):
        mine.prepare(SECOND, bits=64)
    assert mine.undo() == 6
    with pytest.raises(IndexMismatch, match="expected bit vectors of 64 bits"):
        mine.prepare(SECOND, bits=64)


@pytest.mark.parametrize("block", ["write", "read_only_allow_delete"])
def test_blocked_index_is_not_changed(shop: Callable[..., Shop], rest: Rest, block: str) -> None:
    mine = shop()
    before = mine.mappings()
    rest("PUT", f"/{mine.name}/_settings", {f"index.blocks.{block}": True})
    with pytest.raises(ConfigError, match=f"index.blocks.{block}"):
        mine.prepare()
    assert mine.mappings() == before
    rest("PUT", f"/{mine.name}/_settings", {f"index.blocks.{block}": None})


def test_undo_refuses_other_indexes(shop: Callable[..., Shop], address: Any) -> None:
    mine = shop()
    with pytest.raises(ConfigError, match="has no codes"):
        mine.undo()
    made = address()
    with open_opensearch(made, bits=32, create=True) as index:
        with pytest.raises(IndexMismatch, match="was created by xmodal"):
            undo(index.handle.server, parse_address(made), problems=Problems())


def test_preview_counts_and_changes_nothing(shop: Callable[..., Shop]) -> None:
    mine = shop(mappings={"properties": {"photo": {"type": "keyword"}}})
    source = Source("photo", "title")
    mine.put("p", {"photo": ["nowhere.png", "https://jo:pw@a.example/b.png", 3]})
    mine.put("q", {"photo": "https://a.example/c.png"})
    mine.put("none", {"other": 1})
    before = mine.mappings()
    problems = Problems()

    def count(selection: Selection, fingerprint: str = FIRST) -> Any:
        return preview(
            mine.server,
            mine.address,
            32,
            fingerprint,
            source,
            selection=selection,
            problems=problems,
        )

    found = count(Selection())
    assert (found.documents, found.encoded, found.other, found.to_encode) == (9, 0, 0, 8)
    assert (found.texts, found.files, found.addresses, found.without) == (6, 0, 2, 0)
    assert found.hosts == {"a.example": 2}
    assert problems.count_by_kind() == {
        "picture with a value of a wrong type": 1,
        "picture not available": 1,
    }
    assert mine.mappings() == before
    mine.enrich()
    found = count(Selection())
    assert (found.documents, found.encoded, found.to_encode) == (9, 6, 2)
    found = count(Selection(again=True), SECOND)
    assert (found.encoded, found.other, found.to_encode) == (0, 6, 8)
