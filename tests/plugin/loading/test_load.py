"""load: each document once, continuation after a kill, restoration of settings.

Kills of real processes are in test_load_kills.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.filled import BITS, as_stored, batch, random_codes, settings_of, stored_documents

from xmodal.data.dataset import Dataset
from xmodal.encoders.encoder import Encoder
from xmodal.errors import CodeError, ConfigError, IndexFailure
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import HammingIndex
from xmodal.modality import MODALITIES
from xmodal_opensearch.client import bulk
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.diagnostics.inspection import inspect, repair
from xmodal_opensearch.index.mapping import user_fields
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.loading import line_building
from xmodal_opensearch.loading import load as load_module
from xmodal_opensearch.loading.load import Checkpoint, check_count, load, settings_for_loading

Rest = Callable[..., Any]
LOADING = {"refresh_interval": "-1", "number_of_replicas": "0", "auto_expand_replicas": "0-1"}
DEFAULTS = {**LOADING, "refresh_interval": None}


class Killed(BaseException):
    """Simulates the end of the process."""


BATCH = 200
"""Documents of a request, in place of 2,000."""


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "batches", partial(bulk.batches, max_lines=BATCH))
    monkeypatch.setattr(line_building, "PART", BATCH)


@pytest.fixture
def index(address: Callable[..., str]) -> Iterator[OpenSearchIndex]:
    """A new index of 64 bits."""
    with open_opensearch(address(), bits=BITS, create=True) as opened:
        yield opened


def parts(n: int = 3 * BATCH, seed: int = 0) -> list[DocumentBatch]:
    """Return three batches of documents; without ``n``, each is one request."""
    return [batch(n // 3, start=place * n // 3, seed=seed) for place in range(3)]


def all_as_stored(every: list[DocumentBatch]) -> dict[str, Any]:
    return {id_: document for part in every for id_, document in as_stored(part).items()}


# ---- documents -------------------------------------------------------------------------------


def test_load_of_a_local_index(
    address: Callable[..., str], index_path: Path, rest: Rest, tmp_path: Path
) -> None:
    local = HammingIndex.load(index_path, bits=None, fingerprint=None)
    vector = np.ones((1, 32), np.int8)
    picture, text = random_codes(1, bits=32), random_codes(1, seed=1, bits=32)
    only = {"image": picture, "fields": [{"nr": 1.5}], "image_vectors": vector}
    local.add(DocumentBatch.of(["only a picture"], **only))
    local.add(DocumentBatch.of(["only a text"], text=text, text_vectors=vector))
    with open_opensearch(address(), bits=32, fingerprint=local.fingerprint, create=True) as index:
        report = load(index, local.batches(size=40), checkpoints=tmp_path)
        assert (report.stored, report.failed, len(index)) == (152, {}, 152)
        for modality in MODALITIES:
            ids, codes = local.codes(modality)
            assert index.get(ids).codes(modality) == (ids, codes)
        (part,) = local.batches()
        np.testing.assert_array_equal(index.get(part.ids).vectors["image"], part.vectors["image"])
        found = stored_documents(rest, index.handle.name)
        for part in local.batches():
            with_image = set(part.codes("image")[0])
            for id_, fields in part.fields_by_id().items():
                assert user_fields(found[id_]) == fields
                assert ("image_code" in found[id_]) == (id_ in with_image)
    assert list(tmp_path.iterdir()) == []


def test_load_of_encoded_batches(
    address: Callable[..., str], encoder: Encoder, dataset: Dataset, cache: Path, tmp_path: Path
) -> None:
    steps = []
    with open_opensearch(address(), bits=32, fingerprint=encoder.fingerprint, create=True) as index:
        report = load(
            index,
            encoder.batches(dataset, cache=cache, size=64),
            checkpoints=tmp_path,
            total=len(dataset),
            progress=lambda *step: steps.append(step),
        )
        assert report.results == {"created": 150}
        queries = encoder.encode_texts([str(item.captions[0]) for item in dataset.items[:5]])
        local = HammingIndex(32)
        for part in encoder.batches(dataset, cache=cache):
            local.add(part)
        assert index.search(queries, 20, target="image") == local.search(
            queries, 20, target="image"
        )
    assert steps == [("stored", 150, 150)]


def test_invalid_documents_are_named_and_others_stored(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path
) -> None:
    rest("PUT", f"/{index.handle.name}/_mapping", {"properties": {"day": {"type": "date"}}})
    good = batch(4)
    bad = {
        "": {},
        "\ud800": {},
        "xmodal-self-test": {},
        "x" * 600: {},
        "reserved": {"image_code": 1},
        "no day": {"day": "yesterday"},
    }
    ids = [*good.ids[:2], *bad, *good.ids[2:]]
    fields = [*good.fields[:2], *map(json.dumps, bad.values()), *good.fields[2:]]
    codes = DocumentBatch.of([str(n) for n in range(len(ids))], image=random_codes(len(ids)))
    batches = [DocumentBatch(ids, codes.packed, codes.offsets, fields)]
    report = load(index, batches, checkpoints=tmp_path)
    assert report.failed.keys() == bad.keys()
    assert "failed to parse field [day]" in report.failed["no day"]
    assert "not usable" in report.failed[""]
    assert "600 bytes" in report.failed["x" * 600]
    assert "image_code" in report.failed["reserved"]
    assert report.results == {"created": 4}
    assert stored_documents(rest, index.handle.name).keys() == set(good.ids)
    check_count(index, 4)
    with pytest.raises(IndexFailure, match="4 documents, expected 5"):
        check_count(index, 5)
    with pytest.raises(IndexFailure, match="4 documents, expected 3"):
        check_count(index, 3, exactly=True)


@pytest.mark.parametrize("strategy", ["script", "long"])
def test_codes_of_another_width_raise(
    address: Callable[..., str], rest: Rest, tmp_path: Path, strategy: str
) -> None:
    with open_opensearch(address(strategy=strategy), bits=BITS, create=True) as index:
        short = DocumentBatch.of(["a"], image=random_codes(1, bits=32))
        with pytest.raises(CodeError, match="codes have 32 bits, this index holds 64"):
            load(index, [short], checkpoints=tmp_path)
        assert (len(index), settings_of(rest, index.handle.name)) == (0, DEFAULTS)


def test_second_load_replaces_documents(index: OpenSearchIndex, rest: Rest, tmp_path: Path) -> None:
    load(index, parts(), checkpoints=tmp_path)
    again = parts(seed=7)
    report = load(index, again, checkpoints=tmp_path, workers=3)
    assert report.results == {"updated": 600}
    assert stored_documents(rest, index.handle.name) == all_as_stored(again)


def test_equal_ids_in_one_load_are_one_document(index: OpenSearchIndex, tmp_path: Path) -> None:
    same = DocumentBatch.of(["a"] * 400, image=random_codes(400), fields=[{"n": 1}] * 400)
    assert load(index, [same], checkpoints=tmp_path).stored == 400  # two batches with equal ids
    assert len(index) == 1


# ---- settings --------------------------------------------------------------------------------


def test_settings_during_and_after_a_load(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path
) -> None:
    seen = []
    load(
        index,
        parts(),
        checkpoints=tmp_path,
        progress=lambda *_: seen.append(settings_of(rest, index.handle.name)),
    )
    assert seen == [LOADING] * 3
    assert settings_of(rest, index.handle.name) == DEFAULTS
    assert "xmodal_load" not in index.handle.read_meta()


def test_settings_of_the_user_are_restored(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path
) -> None:
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


def test_replicas_changed_during_a_load_stay_changed(
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


def test_settings_are_restored_after_an_error(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path
) -> None:
    def broken() -> Iterator[DocumentBatch]:
        yield batch(10)
        raise OSError("the disk with the pictures was unplugged")

    with pytest.raises(OSError, match="unplugged"):
        load(index, broken(), checkpoints=tmp_path, no_replicas=True)
    assert settings_of(rest, index.handle.name) == DEFAULTS
    assert "xmodal_load" not in index.handle.read_meta()


def test_settings_are_restored_if_another_load_ends_meanwhile(
    index: OpenSearchIndex, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = settings_for_loading(index)
    first.__enter__()
    change = load_module._set
    calls = []

    def end_first_before(index: OpenSearchIndex, settings: Any) -> None:
        calls.append(settings)
        if len(calls) == 1:  # the second load has saved the settings and not yet changed them
            first.__exit__(None, None, None)
        change(index, settings)

    monkeypatch.setattr(load_module, "_set", end_first_before)
    with settings_for_loading(index):
        assert settings_of(rest, index.handle.name)["refresh_interval"] == "-1"
    assert settings_of(rest, index.handle.name) == DEFAULTS
    assert "xmodal_load" not in index.handle.read_meta()


def left_by_a_kill(index: OpenSearchIndex, rest: Rest, *, no_replicas: bool) -> None:
    """Leave an index in the state after its loader was killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xmodal_opensearch.loading.load.restore_settings", lambda *arguments: False)
        with settings_for_loading(index, no_replicas=no_replicas):
            pass
    assert settings_of(rest, index.handle.name)["refresh_interval"] == "-1"


@pytest.mark.parametrize("restored_by", ["load", "doctor"])
@pytest.mark.parametrize("refresh", ["9s", None])
def test_settings_of_a_killed_load_are_restored(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path, restored_by: str, refresh: str | None
) -> None:
    before = {**DEFAULTS, "refresh_interval": refresh}
    rest("PUT", f"/{index.handle.name}/_settings", {"refresh_interval": refresh})
    left_by_a_kill(index, rest, no_replicas=False)
    left_by_a_kill(index, rest, no_replicas=True)  # a second killed load with another option
    assert settings_of(rest, index.handle.name) == {**LOADING, "auto_expand_replicas": "false"}
    if restored_by == "load":
        load(index, parts(), checkpoints=tmp_path)
    else:
        address = parse_address(str(index.handle.address))
        assert len(repair(inspect(Server(address), address))) == 1
    assert settings_of(rest, index.handle.name) == before
    assert index.handle.read_meta().keys() == {"xmodal"}


# ---- continuation ---------------------------------------------------------------------------


def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that receives the number of documents of each later request to ``_bulk``."""
    counts: list[int] = []
    real = Server.bulk

    def counted(self: Server, index: str, body: bytes, **more: Any) -> Any:
        counts.append(body.count(b'{"index":'))
        return real(self, index, body, **more)

    monkeypatch.setattr(Server, "bulk", counted)
    return counts


@pytest.mark.parametrize("processes", [(2, 1), (1, 2)])
def test_continued_load_sends_missing_batches_only(
    index: OpenSearchIndex,
    rest: Rest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    processes: tuple[int, int],
) -> None:
    options: list[dict[str, Any]]
    options = [{"checkpoints": tmp_path, "processes": count} for count in processes]

    def die(what: str, done: int, total: int) -> None:
        if done >= 400:
            raise Killed

    with pytest.raises(Killed):
        load(index, parts(1002), **options[0], workers=1, progress=die)
    (file,) = tmp_path.iterdir()
    assert file.name == f"{index.handle.uuid}.load"
    assert [line.split()[0] for line in file.read_text().splitlines()] == ["0", "1"]

    counts, steps = sent(monkeypatch), []
    report = load(
        index,
        parts(1002),
        **options[1],
        total=1002,
        progress=lambda what, done, total: steps.append((done, total)),
    )
    assert sum(counts) == report.stored == 602
    assert steps[-1] == (1002, 1002)
    assert stored_documents(rest, index.handle.name) == all_as_stored(parts(1002))
    assert list(tmp_path.iterdir()) == []
    assert load(index, parts(1002), checkpoints=tmp_path).results == {"updated": 1002}


def test_continued_load_of_changed_documents(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(what: str, done: int, total: int) -> None:
        if done >= 600:
            raise Killed

    with pytest.raises(Killed):
        load(index, parts(900), checkpoints=tmp_path, workers=1, progress=die)
    changed = [*parts(900)[:1], *parts(900, seed=3)[1:]]  # from document 300 on
    counts = sent(monkeypatch)
    load(index, changed, checkpoints=tmp_path)
    assert sum(counts) == 700  # the first batch of 200 is the same
    assert stored_documents(rest, index.handle.name) == all_as_stored(changed)


def test_load_killed_after_the_last_batch_is_refreshed_by_the_next(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest("PUT", f"/{index.handle.name}/_settings", {"refresh_interval": "-1"})
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
        assert len(again) == 0  # not refreshed
        assert load(again, parts(), checkpoints=tmp_path).results == {}
        check_count(again, 600)


_real_request = Server.request


def _no_refresh(self: Server, method: str, path: str, *args: Any, **more: Any) -> Any:
    return {} if path.endswith("/_refresh") else _real_request(self, method, path, *args, **more)


def test_refused_documents_are_reported_again_by_the_next_run(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path
) -> None:
    rest("PUT", f"/{index.handle.name}/_mapping", {"properties": {"day": {"type": "date"}}})
    good = batch(500)
    fields = ['{"day": "never"}' if n in (10, 450) else "{}" for n in range(500)]
    documents = replace(good, fields=fields)

    def die(what: str, done: int, total: int) -> None:
        if done >= 400:
            raise Killed

    with pytest.raises(Killed):
        load(index, [documents], checkpoints=tmp_path, workers=1, progress=die)
    report = load(index, [documents], checkpoints=tmp_path)
    assert set(report.failed) == {"d00010", "d00450"}
    check_count(index, 498)


def test_load_into_an_enriched_index_raises(
    index: OpenSearchIndex, rest: Rest, tmp_path: Path
) -> None:
    meta = rest("GET", f"/{index.handle.name}/_mapping")[index.handle.name]["mappings"]["_meta"]
    meta["xmodal"]["added"] = True
    rest("PUT", f"/{index.handle.name}/_mapping", {"_meta": meta})
    with open_opensearch(str(index.handle.address)) as opened:
        with pytest.raises(ConfigError, match="your own documents"):
            load(opened, parts(), checkpoints=tmp_path)
        rest("POST", f"/{index.handle.name}/_refresh")
        assert rest("GET", f"/{index.handle.name}/_count")["count"] == 1  # the self-test document
    assert json.dumps(settings_of(rest, index.handle.name)) == json.dumps(DEFAULTS)
