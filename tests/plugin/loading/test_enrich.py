"""Codes for somebody's own documents: right, resumable, and nothing else changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Dataset, Problems
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.load import load_encoder
from xmodal.errors import ConfigError, IndexMismatch, IndexMissing
from xmodal.retrieval.retriever import Retriever
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.mapping import RESERVED_FIELDS
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.loading import enrich as enriching
from xmodal_opensearch.loading.enrich import Source, enrich, prepare

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
    """The end of a process, as far as one process can play it."""


class Own(NamedTuple):
    """An index of a user's own."""

    uri: str
    name: str
    photos: Path


def document(number: int, title: str) -> dict[str, Any]:
    """A product of a shop."""
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
            shutil.copy(str(item.image), photos / "a" / f"{number}.png")
            rest("PUT", f"/{name}/_doc/p{number}", document(number, str(item.text)))
        rest("POST", f"/{name}/_refresh")
        return Own(uri, name, photos)

    return make


@pytest.fixture
def run(encoder: Encoder, cache: Path) -> Iterator[Callable[..., Any]]:
    """``run(own)`` -> the index, the report and the problems of one enriching."""
    opened: list[OpenSearchIndex] = []

    def go(mine: Own, source: Source = BOTH, by: Encoder | None = None, **more: Any) -> Any:
        used = by or encoder
        address = parse_address(mine.uri)
        source = Source(source.image, source.text, source.folder and mine.photos, source.download)
        index = prepare(Server(address), address, used.bits, used.fingerprint, source)
        opened.append(index)
        problems = Problems()

        def encode(data: Dataset) -> Any:
            return used.encode_data(data, cache=cache, problems=problems)

        return index, enrich(index, source, encode, problems=problems, **more), problems

    yield go
    for one in opened:
        one.close()


@pytest.fixture(scope="session")
def other(other_model: Path) -> Encoder:
    """Another encoder of the same width."""
    return load_encoder(other_model)


def without_ours(rest: Rest, name: str) -> dict[str, Any]:
    """All documents but the self-test, and of them what is not ours."""
    rest("POST", f"/{name}/_refresh")
    found = rest("POST", f"/{name}/_search", {"size": 999})["hits"]["hits"]
    return {
        hit["_id"]: {k: v for k, v in hit["_source"].items() if k not in RESERVED_FIELDS}
        for hit in found
        if hit["_id"] != "xmodal-self-test"
    }


def codes(index: OpenSearchIndex, side: Any, ids: list[str]) -> BinaryCodes:
    """The stored codes, all of which are there."""
    found, out = index.get(ids).codes(side)
    assert found == ids
    return out


IDS = [f"p{number}" for number in range(COUNT)]


@pytest.mark.parametrize(
    ("settings", "layout"),
    [({}, "flat"), ({"index.knn": True}, "lucene-hnsw"), ({"number_of_shards": 3}, "flat")],
)
def test_documents_get_their_codes_and_nothing_else_changes(
    own: Callable[..., Own], run: Any, rest: Rest, encoder: Encoder, dataset: Dataset,
    settings: dict[str, Any], layout: str,
) -> None:  # fmt: skip
    mine = own(**settings)
    before = without_ours(rest, mine.name)
    told: list[tuple[str, int, int]] = []
    index, report, problems = run(mine, progress=lambda *one: told.append(one))
    assert (report.results, report.failed, len(problems)) == ({"updated": COUNT}, {}, 0)
    assert told[-1] == ("encoded", COUNT, COUNT)
    assert without_ours(rest, mine.name) == before
    assert rest("GET", f"/{mine.name}/_mapping")[mine.name]["mappings"]["_meta"]["mine"] == 1
    assert index.handle.layout.name == layout and len(index) == COUNT
    texts = [str(item.text) for item in dataset.items[:COUNT]]
    assert codes(index, "text", IDS) == encoder.encode_texts(texts)
    images = [str(mine.photos / f"a/{number}.png") for number in range(COUNT)]
    assert codes(index, "image", IDS) == encoder.encode_images(images)

    (hits,) = index.search(encoder.encode_texts([texts[3]]), 50, target="text")
    assert len(hits) == COUNT
    assert [hit.distance for hit in hits] == sorted(
        encoder.encode_texts([texts[3]]).distances(encoder.encode_texts(texts))[0]
    )
    assert {hit.id: hit.fields for hit in hits} == before
    assert run(mine)[1].results == {}  # nothing is left to do


@pytest.mark.parametrize(
    ("where", "fits"),
    [
        ({"shop": "south"}, lambda n: n % 2 == 1),
        ({"price": {"gte": 1, "lt": 2}}, lambda n: 4 <= n < 8),
        ({"price": [0.25, 2.5]}, lambda n: n in (1, 10)),
        ({"sale": True, "shop": ["north"]}, lambda n: n % 6 == 0),
        ({"since": {"gte": "2026-03-01", "lte": "2026-05-31"}}, lambda n: n in (2, 3, 4, 11)),
        ({"since": "2026-02-15"}, lambda n: n in (1, 10)),
        ({"media.size": 4}, lambda n: True),
        ({"nothing": {"exists": False}, "shop": {"exists": True}}, lambda n: True),
        ({"media.photo": {"exists": False}}, lambda n: False),
    ],
)
def test_filters_on_their_own_types(
    own: Callable[..., Own], run: Any, encoder: Encoder, where: Any, fits: Callable[[int], bool]
) -> None:
    index, _, _ = run(own())
    found = index.search(encoder.encode_texts(["a red circle"]), 50, target="image", where=where)[0]
    assert {hit.id for hit in found} == {f"p{n}" for n in range(COUNT) if fits(n)}
    with pytest.raises(ConfigError, match="'title' is analysed text without a keyword beside it"):
        index.search(encoder.encode_texts(["a"]), 5, target="image", where={"title": "a"})


def test_documents_that_lack_something(own: Callable[..., Own], run: Any, rest: Rest) -> None:
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
    before = without_ours(rest, mine.name)
    index, report, problems = run(mine)
    assert report.stored == COUNT + 3
    assert without_ours(rest, mine.name) == before
    some = ["broken picture, text", "a list", "dots in the name"]
    assert set(index.get(list(odd)).codes("text")[0]) == set(some[:2])
    assert set(index.get(list(odd)).codes("image")[0]) == set(some[1:])
    counts = problems.counts()
    assert counts.pop("picture not usable") == 3
    assert sum(counts.values()) == 3, problems.lines()
    told = "; ".join(problems.lines())
    for words in ("broken.png", "nowhere.png", "null byte", "no Unicode"):
        assert words in told


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
    index, report, problems = run(mine)
    assert report.stored == COUNT and index.get(["bad"]).codes("image")[0] == []
    (line,) = problems.lines()
    assert line.startswith("1 x picture not to be had: bad (")
    assert "lies outside of" in line or name == "loop.png"


def test_one_field_alone(own: Callable[..., Own], run: Any) -> None:
    mine = own()
    index, report, _ = run(mine, Source(None, "title"))
    assert report.stored == len(index) == COUNT
    assert index.get(IDS).codes("image")[0] == []
    index, report, _ = run(mine)
    assert report.stored == 0  # they have codes; who wants both says so
    index, report, _ = run(mine, again=True)
    assert report.stored == COUNT and index.get(IDS).codes("image")[0] == IDS
    with pytest.raises(ConfigError, match="name the field of the picture, of the text, or both"):
        Source()


def test_a_run_that_was_stopped_goes_on(
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
        assert 3 <= len(opened) <= 6  # what was sent when it ended may have been taken
        done = len(opened)
    index, report, _ = run(mine)
    assert report.stored == COUNT - done and len(index) == COUNT


def test_new_documents_later(own: Callable[..., Own], run: Any, rest: Rest) -> None:
    mine = own()
    rest("PUT", f"/{mine.name}/_settings", {"refresh_interval": "-1"})  # he refreshes himself
    run(mine)
    rest("PUT", f"/{mine.name}/_doc/new", {"title": "a green square"})
    rest("PUT", f"/{mine.name}/_doc/p1", document(1, "rewritten as a whole"))
    index, report, _ = run(mine)
    assert report.stored == 2 and len(index) == COUNT + 1


def test_what_changed_meanwhile_is_not_overwritten(
    own: Callable[..., Own], run: Any, rest: Rest, encoder: Encoder
) -> None:
    mine = own()

    def somebody(what: str, done: int, total: int) -> None:
        put(rest, mine.name, "p3", document(3, "a black star"))
        rest("DELETE", f"/{mine.name}/_doc/p4?refresh=true")

    index, report, _ = run(mine, progress=somebody)
    assert report.results == {"updated": COUNT - 2} and set(report.failed) == {"p3", "p4"}
    assert "version conflict" in report.failed["p3"]
    assert without_ours(rest, mine.name)["p3"] == document(3, "a black star")
    assert run(mine)[1].stored == 1
    assert codes(index, "text", ["p3"]) == encoder.encode_texts(["a black star"])


def test_custom_routing(own: Callable[..., Own], run: Any, rest: Rest, encoder: Encoder) -> None:
    mine = own(number_of_shards=3)
    titles = {f"r{n}": f"a {colour} star" for n, colour in enumerate(("red", "blue", "pink"))}
    for id_, title in titles.items():
        for route in ("x", "abc", "zz"):  # the same id thrice, in three shards perhaps
            body = document(1, f"{title} {['on the left', 'at the top', 'left'][len(route) % 3]}")
            put(rest, mine.name, id_, body, f"&routing={route}")
    alone = [f"s{n}" for n in range(6)]
    for id_ in alone:
        put(rest, mine.name, id_, document(2, "a blue cross"), f"&routing=to-{id_}")
    before = rest("GET", f"/{mine.name}/_count")["count"]
    index, report, _ = run(mine)
    assert report.failed == {} and len(index) == before
    assert rest("GET", f"/{mine.name}/_count")["count"] == before + 1  # the self-test
    hits = index.search(encoder.encode_texts(["a red star"]), 99, target="text")[0]
    assert len(hits) == before
    for hit in hits:  # each has the code of its own title
        query = encoder.encode_texts([str(hit.fields["title"])])
        assert query.distances(encoder.encode_texts(["a red star"]))[0, 0] == hit.distance
    assert index.get(list(titles)).codes("text")[0] == list(titles)
    assert index.get(alone).codes("text")[0] == alone
    assert {hit.id for hit in Retriever(None, index).search(like=alone[0], k=99)} >= set(alone[1:])


def test_searches_never_mix_two_encoders(
    own: Callable[..., Own], run: Any, encoder: Encoder, other: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    mine = own()
    old, _, _ = run(mine)
    monkeypatch.setattr(enriching, "PAGE", 3)
    asked = ["a red circle"]
    seen = []

    def look(what: str, done: int, total: int) -> None:
        with open_opensearch(mine.uri) as new:
            assert new.encoder == other.fingerprint
            theirs = {hit.id for hit in new.search(other.encode_texts(asked), 99, target="text")[0]}
        ours = {hit.id for hit in old.search(encoder.encode_texts(asked), 99, target="text")[0]}
        assert not ours & theirs
        seen.append((len(ours), len(theirs)))

    index, report, _ = run(mine, by=other, workers=1, progress=look)
    assert report.stored == COUNT and len(index) == COUNT and len(old) == 0
    for id_ in IDS:  # codes of another encoder are as good as none
        assert old.get([id_]).codes("text")[0] == []
    assert seen[0] == (COUNT, 0) and sum(seen[-1]) <= COUNT
    with pytest.raises(IndexMismatch, match=f"was filled by encoder {other.fingerprint}"):
        open_opensearch(mine.uri, fingerprint=encoder.fingerprint)


def test_fields_that_cannot_be_asked_for(
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
        index, report, problems = run(Own(uri, name, tmp_path), source)
        assert report.stored == (source.image is None)
        assert len(problems) == (source.image is not None)
    assert index.get(["a", "b"]).codes("text")[0] == ["a"]


def test_what_is_refused(own: Callable[..., Own], run: Any, rest: Rest, encoder: Encoder) -> None:
    mine = own()
    before = rest("GET", f"/{mine.name}/_mapping")
    with pytest.raises(ConfigError, match=r"has no field 'foto', expected one of media\.photo, "):
        run(mine, Source("foto", "title"))
    assert rest("GET", f"/{mine.name}/_mapping") == before
    with pytest.raises(IndexMissing, match="enrich adds codes to documents that are there"):
        run(Own(f"{mine.uri}-not", "", mine.photos))
    index, _, _ = run(mine)
    with pytest.raises(ConfigError, match="holds documents of your own, to which codes"):
        index.add(["x"], text=encoder.encode_texts(["a"]))
    documents = len(index)
    with pytest.raises(ConfigError, match="store or delete them by your own means"):
        index.delete([index.sample("text", 1)[0][0]])
    assert len(index) == documents > 0
    address = parse_address(mine.uri)
    with pytest.raises(IndexMismatch, match="has fields for codes of 32 bits, this encoder makes"):
        prepare(Server(address), address, 64, "f" * 16)
    assert index.handle.read_meta()["xmodal"]["encoder"] == encoder.fingerprint
