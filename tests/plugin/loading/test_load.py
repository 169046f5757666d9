"""Loading: all documents, each once; what was noted goes on; settings come back whatever happens.

Kills of real processes are in test_load_kills.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.filled import BITS, batch, kept, random_codes, settings_of, wanted

from xmodal.data.dataset import Dataset
from xmodal.encoders.encoder import Encoder
from xmodal.errors import CodeError, ConfigError, IndexFailure
from xmodal.index.documents import DocumentBatch, empty_columns
from xmodal.index.local import HammingIndex
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.diagnostics import repair
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.loading.load import Checkpoint, check_count, load, settings_for_loading

Rest = Callable[..., Any]
QUIET = {"refresh_interval": "-1", "number_of_replicas": "0", "auto_expand_replicas": "0-1"}
AS_MADE = {**QUIET, "refresh_interval": None}


class Killed(BaseException):
    """The end of a process, as far as one process can play it."""


@pytest.fixture
def index(address: Callable[..., str]) -> Iterator[OpenSearchIndex]:
    """A new index of 64 bits."""
    with open_opensearch(address(), bits=BITS, create=True) as opened:
        yield opened


def parts(n: int = 6000, seed: int = 0) -> list[DocumentBatch]:
    """Three additions: three batches, for a batch has 2,000 documents."""
    return [batch(n // 3, start=place * n // 3, seed=seed) for place in range(3)]


def all_wanted(every: list[DocumentBatch]) -> dict[str, Any]:
    return {id_: document for one in every for id_, document in wanted(one).items()}


# ---- what is stored --------------------------------------------------------------------------


def test_a_local_index_arrives_whole(
    address: Callable[..., str], index_path: Path, rest: Rest, tmp_path: Path
) -> None:
    local = HammingIndex.load(index_path, bits=None, fingerprint=None)
    local.add(["only a picture"], image=random_codes(1, bits=32), fields=[{"nr": 1.5}])
    local.add(["only a text"], text=random_codes(1, seed=1, bits=32))
    with open_opensearch(address(), bits=32, fingerprint=local.fingerprint, create=True) as index:
        report = load(index, local.batches(size=40), checkpoints=tmp_path)
        assert (report.stored, report.failed, len(index)) == (152, {}, 152)
        for side in ("image", "text"):
            ids, codes = local.codes(side)
            assert index.get(ids).codes(side) == (ids, codes)
        found = kept(rest, index.handle.name)
        for one in local.batches():
            for id_, fields in one.fields_by_id().items():
                ours = ("xmodal", "image_code", "text_code")
                assert {k: v for k, v in found[id_].items() if k not in ours} == fields
                assert ("image_code" in found[id_]) == (one.image is not None)
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_fills_it_directly(
    address: Callable[..., str], encoder: Encoder, dataset: Dataset, cache: Path, tmp_path: Path
) -> None:
    told = []
    with open_opensearch(address(), bits=32, fingerprint=encoder.fingerprint, create=True) as index:
        report = load(
            index,
            encoder.batches(dataset, cache=cache, size=64),
            checkpoints=tmp_path,
            total=len(dataset),
            progress=lambda what, done, total: told.append((what, done, total)),
        )
        assert report.results == {"created": 150}
        queries = encoder.encode_texts([str(item.text) for item in dataset.items[:5]])
        local = HammingIndex(32)
        for one in encoder.batches(dataset, cache=cache):
            local.add(one)
        assert index.search(queries, 20, target="image") == local.search(
            queries, 20, target="image"
        )
    assert told == [("stored", 150, 150)]


def test_bad_documents_are_named_and_the_others_stored(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path
) -> None:
    rest("PUT", f"/{index.handle.name}/_mapping", {"properties": {"day": {"type": "date"}}})
    good = batch(4)
    bad = {
        "": {},
        "\ud800": {},
        "xmodal-self-test": {},
        "x" * 600: {},
        "ours": {"image_code": 1},
        "no day": {"day": "yesterday"},
    }
    ids = [*good.ids[:2], *bad, *good.ids[2:]]
    fields = [*good.fields[:2], *map(json.dumps, bad.values()), *good.fields[2:]]
    packed, present = empty_columns(len(ids), BITS)
    packed["image"][:], present["image"][:] = random_codes(len(ids)).packed, True
    report = load(index, [DocumentBatch(ids, packed, present, fields)], checkpoints=tmp_path)
    assert report.failed.keys() == bad.keys()
    assert "failed to parse field [day]" in report.failed["no day"]
    assert "expected text that is not empty" in report.failed[""]
    assert "has 600 bytes" in report.failed["x" * 600]
    assert "which is reserved: rename" in report.failed["ours"]
    assert report.results == {"created": 4}
    assert kept(rest, index.handle.name).keys() == set(good.ids)
    check_count(index, 4)
    with pytest.raises(IndexFailure, match="4 documents can be found, 5 were stored: run the same"):
        check_count(index, 5)
    with pytest.raises(IndexFailure, match="an earlier load left others in this unfinished"):
        check_count(index, 3, exactly=True)


@pytest.mark.parametrize("way", ["script", "long"])
def test_codes_of_another_width_are_refused(
    address: Callable[..., str], rest: Rest, tmp_path: Path, way: str
) -> None:
    with open_opensearch(address(strategy=way), bits=BITS, create=True) as index:
        short = DocumentBatch.of(["a"], image=random_codes(1, bits=32))
        with pytest.raises(CodeError, match="codes have 32 bits, this index holds 64"):
            load(index, [short], checkpoints=tmp_path)
        assert (len(index), settings_of(rest, index.handle.name)) == (0, AS_MADE)


def test_loading_again_replaces(index: OpenSearchIndex, rest: Rest, tmp_path: Path) -> None:
    load(index, parts(), checkpoints=tmp_path)
    again = parts(seed=7)
    report = load(index, again, checkpoints=tmp_path, workers=3)
    assert report.results == {"updated": 6000}
    assert kept(rest, index.handle.name) == all_wanted(again)


def test_equal_ids_in_one_load(index: OpenSearchIndex, tmp_path: Path) -> None:
    same = DocumentBatch.of(["a"] * 4000, image=random_codes(4000), fields=[{"n": 1}] * 4000)
    assert load(index, [same], checkpoints=tmp_path).stored == 4000  # two batches with equal ids
    assert len(index) == 1


# ---- settings --------------------------------------------------------------------------------


def test_settings_while_it_loads_and_after(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path
) -> None:
    seen = []
    load(
        index,
        parts(),
        checkpoints=tmp_path,
        progress=lambda *_: seen.append(settings_of(rest, index.handle.name)),
    )
    assert seen == [QUIET] * 3
    assert settings_of(rest, index.handle.name) == AS_MADE
    assert "xmodal_load" not in index.handle.read_meta()


def test_a_users_own_settings_come_back(index: OpenSearchIndex, rest: Rest, tmp_path: Path) -> None:
    own = {"refresh_interval": "7s", "number_of_replicas": "2", "auto_expand_replicas": "false"}
    rest("PUT", f"/{index.handle.name}/_settings", own)
    seen = []
    load(
        index,
        parts(),
        checkpoints=tmp_path,
        no_replicas=True,
        progress=lambda *_: seen.append(settings_of(rest, index.handle.name)),
    )
    assert seen[0] == {**own, "refresh_interval": "-1", "number_of_replicas": "0"}
    assert settings_of(rest, index.handle.name) == own


def test_replicas_changed_meanwhile_stay_changed(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path
) -> None:
    change = {"number_of_replicas": "3", "auto_expand_replicas": "false"}
    load(
        index,
        parts(),
        checkpoints=tmp_path,
        progress=lambda *_: rest("PUT", f"/{index.handle.name}/_settings", change),
    )
    assert settings_of(rest, index.handle.name) == {**change, "refresh_interval": None}


def test_settings_come_back_after_a_failure(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path
) -> None:
    def broken() -> Iterator[DocumentBatch]:
        yield batch(10)
        raise OSError("the disk with the pictures was unplugged")

    with pytest.raises(OSError, match="unplugged"):
        load(index, broken(), checkpoints=tmp_path, no_replicas=True)
    assert settings_of(rest, index.handle.name) == AS_MADE
    assert "xmodal_load" not in index.handle.read_meta()


def left_by_a_kill(index: OpenSearchIndex, rest: Rest, *, no_replicas: bool) -> None:
    """The state of an index whose loader was killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xmodal_opensearch.loading.load.restore_settings", lambda index: False)
        with settings_for_loading(index, no_replicas=no_replicas):
            pass
    assert settings_of(rest, index.handle.name)["refresh_interval"] == "-1"


@pytest.mark.parametrize("mended_by", ["load", "doctor"])
@pytest.mark.parametrize("refresh", ["9s", None])
def test_settings_that_a_killed_load_left(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path, mended_by: str, refresh: str | None
) -> None:
    before = {**AS_MADE, "refresh_interval": refresh}
    rest("PUT", f"/{index.handle.name}/_settings", {"refresh_interval": refresh})
    left_by_a_kill(index, rest, no_replicas=False)
    left_by_a_kill(index, rest, no_replicas=True)  # run again with another option, killed again
    assert settings_of(rest, index.handle.name) == {**QUIET, "auto_expand_replicas": "false"}
    if mended_by == "load":
        load(index, parts(), checkpoints=tmp_path)
    else:
        address = parse_address(str(index.handle.address))
        told = repair(Server(address), address)
        assert told == ["the settings are as they were before the load"]
        assert repair(Server(address), address) == ["nothing was to be repaired"]
    assert settings_of(rest, index.handle.name) == before
    assert index.handle.read_meta().keys() == {"xmodal"}


# ---- loads that go on ------------------------------------------------------------------------


def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many documents each request to ``_bulk`` brings, from now on."""
    counts: list[int] = []
    real = Server.bulk

    def counted(self: Server, index: str, body: bytes, **more: Any) -> Any:
        counts.append(body.count(b'{"index":'))
        return real(self, index, body, **more)

    monkeypatch.setattr(Server, "bulk", counted)
    return counts


def test_a_resumed_load_sends_only_what_is_missing(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(what: str, done: int, total: int) -> None:
        if done >= 4000:
            raise Killed

    with pytest.raises(Killed):
        load(index, parts(10_002), checkpoints=tmp_path, workers=1, progress=die)
    (file,) = tmp_path.iterdir()
    assert file.name == f"{index.handle.uuid}.load"
    assert [line.split()[0] for line in file.read_text().splitlines()] == ["0", "1"]

    counts, told = sent(monkeypatch), []
    report = load(
        index,
        parts(10_002),
        checkpoints=tmp_path,
        total=10_002,
        progress=lambda what, done, total: told.append((done, total)),
    )
    assert sum(counts) == report.stored == 6002
    assert told[-1] == (10_002, 10_002)
    assert kept(rest, index.handle.name) == all_wanted(parts(10_002))
    assert list(tmp_path.iterdir()) == []
    assert load(index, parts(10_002), checkpoints=tmp_path).results == {"updated": 10_002}


def test_a_resumed_load_of_changed_documents(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(what: str, done: int, total: int) -> None:
        if done >= 6000:
            raise Killed

    with pytest.raises(Killed):
        load(index, parts(9000), checkpoints=tmp_path, workers=1, progress=die)
    changed = [*parts(9000)[:1], *parts(9000, seed=3)[1:]]  # from document 3,000 on
    counts = sent(monkeypatch)
    load(index, changed, checkpoints=tmp_path)
    assert sum(counts) == 7000  # the first batch of 2,000 is the same
    assert kept(rest, index.handle.name) == all_wanted(changed)


def test_everything_was_stored_before_the_kill(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest("PUT", f"/{index.handle.name}/_settings", {"refresh_interval": "-1"})  # his own choice
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "remove", lambda self: (_ for _ in ()).throw(Killed))
        patch.setattr(
            Server,
            "request",
            lambda self, method, path, *a, **k: _no_refresh(self, method, path, *a, **k),
        )
        with pytest.raises(Killed):
            load(index, parts(), checkpoints=tmp_path)
    with open_opensearch(str(index.handle.address)) as again:
        assert len(again) == 0  # nobody has refreshed
        assert load(again, parts(), checkpoints=tmp_path).results == {}
        check_count(again, 6000)


_real_request = Server.request


def _no_refresh(self: Server, method: str, path: str, *args: Any, **more: Any) -> Any:
    return {} if path.endswith("/_refresh") else _real_request(self, method, path, *args, **more)


def test_refused_documents_are_named_by_the_next_run_as_well(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path
) -> None:
    rest("PUT", f"/{index.handle.name}/_mapping", {"properties": {"day": {"type": "date"}}})
    one = batch(5000)
    fields = [{"day": "never"} if n in (10, 4500) else {} for n in range(5000)]

    def die(what: str, done: int, total: int) -> None:
        if done >= 4000:
            raise Killed

    with pytest.raises(Killed):
        load(index, [one._replace(fields=fields)], checkpoints=tmp_path, workers=1, progress=die)
    report = load(index, [one._replace(fields=fields)], checkpoints=tmp_path)
    assert set(report.failed) == {"d00010", "d04500"}
    check_count(index, 4998)


def test_an_index_with_documents_of_somebodys_own_is_left_alone(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path
) -> None:
    meta = rest("GET", f"/{index.handle.name}/_mapping")[index.handle.name]["mappings"]["_meta"]
    meta["xmodal"]["added"] = True
    rest("PUT", f"/{index.handle.name}/_mapping", {"_meta": meta})
    with open_opensearch(str(index.handle.address)) as opened:
        with pytest.raises(ConfigError, match="holds documents of your own"):
            load(opened, parts(), checkpoints=tmp_path)
        rest("POST", f"/{index.handle.name}/_refresh")
        assert rest("GET", f"/{index.handle.name}/_count")["count"] == 1  # the self-test
    assert json.dumps(settings_of(rest, index.handle.name)) == json.dumps(AS_MADE)
