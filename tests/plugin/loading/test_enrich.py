"""enrich: codes of existing documents are correct, runs continue, other fields stay."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Dataset
from xmodal.data.problems import Problems
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.load import load_encoder
from xmodal.errors import ConfigError, IndexMismatch, IndexMissing, ServerFailure
from xmodal.retrieval.retriever import Retriever
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.mapping import user_fields
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.loading import enrich as enriching
from xmodal_opensearch.loading.document_sources import Source
from xmodal_opensearch.loading.enrich import Result, enrich
from xmodal_opensearch.loading.preparation import prepare
from xmodal_opensearch.loading.selection import Selection
from xmodal_opensearch.loading.shard_reader import Share

Rest = Callable[..., Any]
MAPPING = {
    "title": {"type": "text"},
    "shop": {"type": "keyword"},
    "since": {"type": "date"},
    "price": {"type": "scaled_float", "scaling_factor": 100},
    "sale": {"type": "boolean"},
    "media": {"properties": {"photo": {"type": "keyword", "index": False}}},
}
COUNT = 12
BOTH = Source("media.photo", "title", Path())


class Killed(BaseException):
    """Simulates the end of the process."""


class Own(NamedTuple):
    """An index of a user's documents, and the folder of their pictures."""

    uri: str
    name: str
    photos: Path


def document(number: int, title: str) -> dict[str, Any]:
    """Return a product of a shop."""
    return {
        "title": title,
        "shop": ["north", "south"][number % 2],
        "since": f"2026-0{1 + number % 9}-15",
        "price": number / 4,
        "sale": number % 3 == 0,
        "media": {"photo": f"a/{number}.png", "size": [3, 4]},
        "not mapped": {"as": [{"it": None}, {"is": []}]},
    }


def put(rest: Rest, name: str, id_: str, body: Any, more: str = "") -> None:
    rest("PUT", f"/{name}/_doc/{id_}?refresh=true{more}", body)


@pytest.fixture
def own(
    address: Callable[..., str], rest: Rest, dataset: Dataset, tmp_path: Path
) -> Callable[..., Own]:
    """``own(knn=True)`` -> an index of twelve products of a shop, with a folder of photos."""

    def make(**settings: Any) -> Own:
        uri = address()
        name = parse_address(uri).index
        body = {"settings": settings, "mappings": {"properties": MAPPING, "_meta": {"mine": 1}}}
        rest("PUT", f"/{name}", body)
        photos = tmp_path / "photos"
        (photos / "a").mkdir(parents=True, exist_ok=True)
        for number, item in enumerate(dataset.items[:COUNT]):
            shutil.copy(str(item.images[0]), photos / "a" / f"{number}.png")
            rest("PUT", f"/{name}/_doc/p{number}", document(number, str(item.captions[0])))
        rest("POST", f"/{name}/_refresh")
        return Own(uri, name, photos)

    return make


@pytest.fixture
def run(encoder: Encoder, cache: Path) -> Iterator[Callable[..., Any]]:
    """``run(own)`` -> the index, the result and the problems of one run of enrich."""
    opened: list[OpenSearchIndex] = []

    def go(
        mine: Own,
        source: Source = BOTH,
        by: Encoder | None = None,
        replace: bool = False,
        selection: Selection | None = None,
        **more: Any,
    ) -> Any:
        used = by or encoder
        address = parse_address(mine.uri)
        source = Source(source.image, source.text, source.folder and mine.photos, source.download)
        index = prepare(
            Server(address), address, used.bits, used.fingerprint, source, replace=replace
        )
        opened.append(index)
        problems = Problems()

        def encode(data: Dataset) -> Any:
            return used.encode_data(data, cache=cache)

        more |= {"problems": problems, "selection": selection}
        return index, enrich(index, source, encode, **more), problems

    yield go
    for one in opened:
        one.close()


@pytest.fixture(scope="session")
def other(other_model: Path) -> Encoder:
    """Another encoder of the same width."""
    return load_encoder(other_model)


def user_documents(rest: Rest, name: str) -> dict[str, Any]:
    """Return all documents but the self-test document, without reserved fields."""
    rest("POST", f"/{name}/_refresh")
    found = rest("POST", f"/{name}/_search", {"size": 999})["hits"]["hits"]
    return {
        hit["_id"]: user_fields(hit["_source"]) for hit in found if hit["_id"] != "xmodal-self-test"
    }


def codes(index: OpenSearchIndex, modality: Any, ids: list[str]) -> BinaryCodes:
    """Return the stored codes, which all documents must have."""
    found, stored = index.get(ids).codes(modality)
    assert found == ids
    return stored


IDS = [f"p{number}" for number in range(COUNT)]


@pytest.mark.parametrize(
    ("settings", "layout"),
    [({}, "flat"), ({"index.knn": True}, "lucene-hnsw"), ({"number_of_shards": 3}, "flat")],
)
def test_enrich_adds_codes_and_changes_nothing_else(
    own: Callable[..., Own], run: Any, rest: Rest, encoder: Encoder, dataset: Dataset,
    settings: dict[str, Any], layout: str,
) -> None:  # fmt: skip
    mine = own(**settings)
    before = user_documents(rest, mine.name)
    steps: list[tuple[str, int, int]] = []
    index, result, problems = run(mine, progress=lambda *step: steps.append(step))
    assert (result, len(problems)) == (Result(read=COUNT, updated=COUNT), 0)
    assert steps[-1] == ("encoded", COUNT, COUNT)
    assert user_documents(rest, mine.name) == before
    assert rest("GET", f"/{mine.name}/_mapping")[mine.name]["mappings"]["_meta"]["mine"] == 1
    assert index.handle.layout.name == layout and len(index) == COUNT
    texts = [str(item.captions[0]) for item in dataset.items[:COUNT]]
    assert codes(index, "text", IDS) == encoder.encode_texts(texts)
    images = [str(mine.photos / f"a/{number}.png") for number in range(COUNT)]
    assert codes(index, "image", IDS) == encoder.encode_images(images)

    (hits,) = index.search(encoder.encode_texts([texts[3]]), 50, target="text")
    assert len(hits) == COUNT
    assert [hit.distance for hit in hits] == sorted(
        encoder.encode_texts([texts[3]]).distances(encoder.encode_texts(texts))[0]
    )
    assert {hit.id: hit.fields for hit in hits} == before
    assert run(mine)[1] == Result()  # all documents have codes


@pytest.mark.parametrize(
    ("where", "matches"),
    [
        ({"shop": "south"}, lambda n: n % 2 == 1),
        ({"price": {"gte": 1, "lt": 2}}, lambda n: 4 <= n < 8),
        ({"price": [0.25, 2.5]}, lambda n: n in (1, 10)),
        ({"sale": True, "shop": ["north"]}, lambda n: n % 6 == 0),
        ({"since": {"gte": "2026-03-01", "lte": "2026-05-31"}}, lambda n: n in (2, 3, 4, 11)),
        ({"since": "2026-02-15"}, lambda n: n in (1, 10)),
        ({"media.size": 4}, lambda n: True),
        ({"shop": {"exists": True}}, lambda n: True),
        ({"media.photo": {"exists": False}}, lambda n: False),
    ],
)
def test_filters_on_native_types(
    own: Callable[..., Own], run: Any, encoder: Encoder, where: Any, matches: Callable[[int], bool]
) -> None:
    index, _, _ = run(own())
    found = index.search(encoder.encode_texts(["a red circle"]), 50, target="image", where=where)[0]
    assert {hit.id for hit in found} == {f"p{n}" for n in range(COUNT) if matches(n)}
    with pytest.raises(ConfigError, match="'title' is analysed text"):
        index.search(encoder.encode_texts(["a"]), 5, target="image", where={"title": "a"})


def test_documents_with_missing_or_unusable_values(
    own: Callable[..., Own], run: Any, rest: Rest, encoder: Encoder
) -> None:
    mine = own()
    (mine.photos / "broken.png").write_bytes(b"\x89PNG nonsense")
    odd: dict[str, dict[str, Any]] = {
        "broken picture, text": {"title": "a red star", "media": {"photo": "broken.png"}},
        "missing picture": {"media": {"photo": "nowhere.png"}},
        "a folder": {"media": {"photo": "a"}},
        "empty text": {"title": "  "},
        "null": {"title": None, "media": None},
        "neither": {"shop": "north"},
        "a list": {"title": ["a blue cross", "another"], "media": [{"photo": "a/1.png"}]},
        "dots in the name": {"media.photo": "a/2.png"},
        "null byte": {"media": {"photo": "a\u0000.png"}},
        "no Unicode": {"title": "a \ud800"},
    }
    for id_, body in odd.items():
        put(rest, mine.name, id_.replace(" ", "%20"), body)
    before = user_documents(rest, mine.name)
    index, result, problems = run(mine)
    assert result.updated == COUNT + 3
    assert user_documents(rest, mine.name) == before
    assert codes(index, "text", 2 * ["a list"]) == encoder.encode_texts(odd["a list"]["title"])
    some = ["broken picture, text", "a list", "dots in the name"]
    assert set(index.get(list(odd)).codes("text")[0]) == set(some[:2])
    assert set(index.get(list(odd)).codes("image")[0]) == set(some[1:])
    assert problems.count_by_kind() == {
        "picture not available": 3,
        "picture not usable": 1,
        "text not usable": 2,
    }
    for kind in problems.count_by_kind():  # by the ids of their documents
        assert all(name.partition(" (")[0] in odd for name in problems.names(kind))
    assert "nowhere.png" in str(problems.names("picture not available"))
    assert problems.names("picture not usable")[0].startswith("broken picture, text (broken.png")


def test_values_of_wrong_types_are_named(
    own: Callable[..., Own], run: Any, rest: Rest, encoder: Encoder
) -> None:
    mine = own()
    hidden = {"properties": {"any": {"type": "object", "enabled": False}}}  # takes any value
    rest("PUT", f"/{mine.name}/_mapping", hidden)
    odd: dict[str, Any] = {
        "number": 7,
        "fraction": 2.5,
        "truth": True,
        "object": {"a": 1},
        "mixed": ["a red star", {"a": 1}, None, 3, [["a blue cross"]]],
        "empty": [],
    }
    for id_, value in odd.items():
        put(rest, mine.name, id_, {"any": value})
    index, result, problems = run(mine, Source("any", None, Path()))
    assert result.updated == 0
    assert problems.count_by_kind() == {
        "picture with a value of a wrong type": 6,
        "picture not available": 2,
    }
    rest("PUT", f"/{mine.name}/_mapping", {"properties": {"words": {"type": "text"}}})
    put(rest, mine.name, "number", {"words": 7})
    put(rest, mine.name, "list", {"words": ["a red star", 2.5, True]})
    index, result, problems = run(mine, Source(None, "words"))
    assert result.updated == 2
    assert problems.names("text with a value of a wrong type") == [
        "list (true or false, expected text)"
    ]
    expected = encoder.encode_texts(["7", "a red star", "2.5"])
    assert codes(index, "text", ["number", "list", "list"]) == expected


def test_pictures_that_were_not_available_are_encoded_later(
    own: Callable[..., Own], run: Any, rest: Rest, encoder: Encoder
) -> None:
    mine = own()
    pictures = [mine.photos / "a" / f"{n}.png" for n in (2, 3)]
    for picture in pictures:
        picture.rename(f"{picture}.away")
    put(rest, mine.name, "no-text", {"media": {"photo": "a/3.png"}})
    index, result, problems = run(mine)
    assert result.updated == COUNT and problems.count_by_kind() == {"picture not available": 3}
    assert len(index.get(IDS).codes("image")[0]) == COUNT - 2
    assert run(mine)[1] == Result(read=1)  # the document without codes
    assert run(mine, selection=Selection(incomplete=True))[1].read == 3
    for picture in pictures:
        Path(f"{picture}.away").rename(picture)
    index, result, problems = run(mine, selection=Selection(incomplete=True))
    assert (result.updated, len(problems)) == (3, 0)
    images = [str(mine.photos / f"a/{number}.png") for number in range(COUNT)]
    assert codes(index, "image", IDS) == encoder.encode_images(images)
    assert run(mine, selection=Selection(incomplete=True))[1] == Result()
    expected = encoder.encode_images(images)
    pictures[0].unlink()  # what this encoder computed before is kept
    index, result, problems = run(mine, selection=Selection(again=True))
    assert result.updated == COUNT + 1 and len(problems) == 1
    assert codes(index, "image", IDS) == expected


def test_shares_of_several_processes(own: Callable[..., Own], run: Any) -> None:
    mine = own()
    results = [run(mine, selection=Selection(share=Share(n, 3)))[1] for n in (1, 2, 3)]
    assert sum(result.updated for result in results) == COUNT
    assert run(mine)[1] == Result()


def test_run_ends_if_all_updates_are_refused(
    own: Callable[..., Own], run: Any, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = own()
    run(mine)
    monkeypatch.setattr(enriching, "MAX_REFUSED", 5)
    monkeypatch.setattr(enriching, "documents_with_fields", blocked(rest, mine.name))
    with pytest.raises(ServerFailure, match="the first 5 updates were refused"):
        run(mine, selection=Selection(again=True))
    rest("PUT", f"/{mine.name}/_settings", {"index.blocks.write": None})


def blocked(rest: Rest, name: str) -> Any:
    """Return ``documents_with_fields``, which before blocks writing to the index."""
    original = enriching.documents_with_fields

    def block(*arguments: Any) -> Any:
        rest("PUT", f"/{name}/_settings", {"index.blocks.write": True})
        return original(*arguments)

    return block


@pytest.mark.parametrize(
    "name", ["../outside.png", "{tmp}/outside.png", "link.png", "a/../../outside.png", "loop.png"]
)
def test_pictures_outside_of_the_folder_are_not_read(
    own: Callable[..., Own], run: Any, rest: Rest, tmp_path: Path, name: str
) -> None:
    mine = own()
    shutil.copy(mine.photos / "a/1.png", tmp_path / "outside.png")
    (mine.photos / "link.png").symlink_to(tmp_path / "outside.png")
    (mine.photos / "loop.png").symlink_to(mine.photos / "loop.png")
    put(rest, mine.name, "bad", {"media": {"photo": name.format(tmp=tmp_path)}})
    index, result, problems = run(mine)
    assert result.updated == COUNT and index.get(["bad"]).codes("image")[0] == []
    (line,) = problems.summary_lines()
    assert line.startswith("1 x picture not available: bad (")
    assert "outside" in line or name == "loop.png"


def test_enrich_with_one_field(own: Callable[..., Own], run: Any) -> None:
    mine = own()
    index, result, _ = run(mine, Source(None, "title"))
    assert result.updated == len(index) == COUNT
    assert index.get(IDS).codes("image")[0] == []
    index, result, _ = run(mine)
    assert result.updated == 0  # all documents have codes
    index, result, _ = run(mine, selection=Selection(again=True))
    assert result.updated == COUNT and index.get(IDS).codes("image")[0] == IDS
    with pytest.raises(ConfigError, match="no field given"):
        Source()


def test_stopped_run_continues(
    own: Callable[..., Own], run: Any, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = own()
    monkeypatch.setattr(enriching, "PAGE", 3)

    def die(what: str, done: int, total: int) -> None:
        if done >= 9:
            raise Killed

    with pytest.raises(Killed):
        run(mine, progress=die, workers=1)
    rest("POST", f"/{mine.name}/_refresh")
    with open_opensearch(mine.uri) as opened:
        assert 3 <= len(opened) <= 6  # requests in progress may be stored
        done = len(opened)
    index, result, _ = run(mine)
    assert result.updated == COUNT - done and len(index) == COUNT


def test_later_run_encodes_new_and_changed_documents(
    own: Callable[..., Own], run: Any, rest: Rest
) -> None:
    mine = own()
    rest("PUT", f"/{mine.name}/_settings", {"refresh_interval": "-1"})
    run(mine)
    rest("PUT", f"/{mine.name}/_doc/new", {"title": "a green square"})
    rest("PUT", f"/{mine.name}/_doc/p1", document(1, "rewritten as a whole"))
    index, result, _ = run(mine)
    assert result.updated == 2 and len(index) == COUNT + 1


def test_documents_that_change_meanwhile_are_read_again(
    own: Callable[..., Own], run: Any, rest: Rest, encoder: Encoder
) -> None:
    mine = own()
    changes = iter([0])

    def change(what: str, done: int, total: int) -> None:
        if next(changes, None) is not None:
            put(rest, mine.name, "p3", document(3, "a black star"))
            rest("DELETE", f"/{mine.name}/_doc/p4?refresh=true")
            put(rest, mine.name, "new", document(5, "a pink disc"))

    index, result, _ = run(mine, progress=change)
    assert result == Result(read=COUNT + 2, updated=COUNT, changed=2)
    assert user_documents(rest, mine.name)["p3"] == document(3, "a black star")
    titles = ["a black star", "a pink disc"]
    assert codes(index, "text", ["p3", "new"]) == encoder.encode_texts(titles)
    assert run(mine)[1] == Result()


def test_changes_while_documents_are_encoded_again(
    own: Callable[..., Own], run: Any, rest: Rest
) -> None:
    mine = own()
    run(mine)
    result = run(
        mine,
        selection=Selection(again=True),
        progress=lambda *_: put(rest, mine.name, "p3", document(3, "a black star")),
    )[1]
    assert result == Result(read=COUNT, updated=COUNT - 1, changed=1)
    assert run(mine)[1] == Result(read=1, updated=1)


def test_number_of_texts_of_a_document_changes(
    own: Callable[..., Own], run: Any, rest: Rest, encoder: Encoder
) -> None:
    mine = own()
    query = encoder.encode_texts(["a blue cross"])
    for titles in ("a red star", ["a red star", "a blue cross", "a red star"], "a pink disc"):
        put(rest, mine.name, "p3", document(3, "") | {"title": titles})
        index, result, _ = run(mine)
        assert result.refused == 0
        texts = [titles] if isinstance(titles, str) else titles
        expected = encoder.encode_texts(texts)
        assert codes(index, "text", len(texts) * ["p3"]) == expected
        distances = query.distances(expected)[0].tolist()
        [hits] = index.search(query, 99, target="text")
        [hit] = [hit for hit in hits if hit.id == "p3"]
        assert (hit.distance, hit.nearest) == (min(distances), distances.index(min(distances)))
        assert hit.fields["title"] == titles


def test_documents_with_custom_routing(
    own: Callable[..., Own], run: Any, rest: Rest, encoder: Encoder
) -> None:
    mine = own(number_of_shards=3)
    titles = {f"r{n}": f"a {colour} star" for n, colour in enumerate(("red", "blue", "pink"))}
    for id_, title in titles.items():
        for route in ("x", "abc", "zz"):  # one id three times, possibly in three shards
            body = document(1, f"{title} {['on the left', 'at the top', 'left'][len(route) % 3]}")
            put(rest, mine.name, id_, body, f"&routing={route}")
    alone = [f"s{n}" for n in range(6)]
    for id_ in alone:
        put(rest, mine.name, id_, document(2, "a blue cross"), f"&routing=to-{id_}")
    before = rest("GET", f"/{mine.name}/_count")["count"]
    index, result, _ = run(mine)
    assert result.refused == 0 and len(index) == before
    assert rest("GET", f"/{mine.name}/_count")["count"] == before + 1  # the self-test
    hits = index.search(encoder.encode_texts(["a red star"]), 99, target="text")[0]
    assert len(hits) == before
    for hit in hits:  # each has the code of its own title
        query = encoder.encode_texts([str(hit.fields["title"])])
        assert query.distances(encoder.encode_texts(["a red star"]))[0, 0] == hit.distance
    with pytest.raises(IndexMismatch, match="routing"):  # an id alone does not decide
        index.get(list(titles))
    assert index.get(alone).codes("text")[0] == alone
    assert {hit.id for hit in Retriever(None, index).search(like=alone[0], k=99)} >= set(alone[1:])


def test_searches_return_documents_of_one_encoder(
    own: Callable[..., Own], run: Any, encoder: Encoder, other: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    mine = own()
    old, _, _ = run(mine)
    monkeypatch.setattr(enriching, "PAGE", 3)
    query = ["a red circle"]
    counts = []
    with pytest.raises(IndexMismatch, match="--replace"):
        run(mine, by=other)
    assert len(old) == COUNT

    def compare(what: str, done: int, total: int) -> None:
        with open_opensearch(mine.uri) as new:
            assert new.fingerprint == other.fingerprint
            (new_hits,) = new.search(other.encode_texts(query), 99, target="text")
        (old_hits,) = old.search(encoder.encode_texts(query), 99, target="text")
        assert not {hit.id for hit in old_hits} & {hit.id for hit in new_hits}
        counts.append((len(old_hits), len(new_hits)))

    index, result, _ = run(mine, by=other, replace=True, workers=1, progress=compare)
    assert result.updated == COUNT and len(index) == COUNT and len(old) == 0
    for id_ in IDS:  # codes of another encoder are not returned
        assert old.get([id_]).codes("text")[0] == []
    assert counts[0] == (COUNT, 0) and sum(counts[-1]) <= COUNT
    with pytest.raises(IndexMismatch, match=f"encoder {other.fingerprint}"):
        open_opensearch(mine.uri, fingerprint=encoder.fingerprint)


def test_fields_that_cannot_be_searched(
    address: Callable[..., str], rest: Rest, run: Any, tmp_path: Path
) -> None:
    uri = address()
    name = parse_address(uri).index
    hidden = {"type": "keyword", "index": False, "doc_values": False}
    inner = {"type": "nested", "properties": {"words": {"type": "text"}}}
    rest("PUT", f"/{name}", {"mappings": {"properties": {"photo": hidden, "parts": inner}}})
    put(rest, name, "a", {"photo": "x.png", "parts": [{"words": "a red star"}, {"words": "b"}]})
    put(rest, name, "b", {"shop": "north"})
    for source in (Source("photo", None, tmp_path), Source(None, "parts.words")):
        index, result, problems = run(Own(uri, name, tmp_path), source)
        assert result.updated == (source.image is None)
        assert len(problems) == (source.image is not None)
    assert index.get(["a", "b"]).codes("text")[0] == ["a", "a"]  # two parts


def test_enrich_rejects_invalid_indexes_and_fields(
    own: Callable[..., Own], run: Any, rest: Rest, encoder: Encoder
) -> None:
    mine = own()
    before = rest("GET", f"/{mine.name}/_mapping")
    with pytest.raises(ConfigError, match=r"'foto', expected one of media\.photo, "):
        run(mine, Source("foto", "title"))
    assert rest("GET", f"/{mine.name}/_mapping") == before
    with pytest.raises(IndexMissing, match="no index"):
        run(Own(f"{mine.uri}-not", "", mine.photos))
    index, _, _ = run(mine)
    with pytest.raises(ConfigError, match="your own documents"):
        index.add(["x"], text=encoder.encode_texts(["a"]))
    count = len(index)
    with pytest.raises(ConfigError, match="your own documents"):
        index.delete(IDS[:1])
    assert len(index) == count > 0
    address = parse_address(mine.uri)
    with pytest.raises(IndexMismatch, match="codes of 32 bits, expected 64"):
        prepare(Server(address), address, 64, "f" * 16)
    assert index.handle.read_meta()["xmodal"]["encoder"] == encoder.fingerprint
