"""Killed loaders and a stopped server: no document is lost or stored twice."""

from __future__ import annotations

import json
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.filled import BITS, as_stored, batch, settings_of, stored_documents
from support.forks import Ended, Forks, forks

from xmodal.errors import ServerFailure
from xmodal.index.documents import DocumentBatch
from xmodal.modality import MODALITIES
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.loading.load import load
from xmodal_opensearch.node.process import Node

pytestmark = pytest.mark.slow
Rest = Callable[..., Any]
COUNT = 2000
KILLS = 8


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Forks]:
    """A process that forks for each load; its imports are done."""
    folder = tmp_path / "output"
    folder.mkdir()
    with forks(folder, "support.loader") as started:
        yield started


def results_of(ended: Ended) -> dict[str, int] | None:
    """Return the results of a loader, None if it was killed."""
    if ended.status == -signal.SIGKILL:
        return None
    assert ended.status == 0, ended.err
    results: dict[str, int] = json.loads(ended.out)
    return results


def test_killed_loads_lose_nothing(
    process: Forks, address: Callable[..., str], rest: Rest, tmp_path: Path
) -> None:
    uri, checkpoints = address(), tmp_path / "checkpoints"
    name = f"{uri.rpartition('/')[2]}-000001"
    assert results_of(process.run(uri, checkpoints, COUNT, 0)) == {"created": COUNT}
    began = time.monotonic()  # the first load of a node takes several times as long
    assert results_of(process.run(uri, checkpoints, COUNT, 1)) == {"updated": COUNT}
    duration = time.monotonic() - began
    own = {"refresh_interval": "11s", "number_of_replicas": "0", "auto_expand_replicas": "false"}
    rest("PUT", f"/{name}/_settings", own)

    rng = random.Random(0)
    kills, seed, skipped = 0, 1, 0
    # All kills may come before the first batch is in a checkpoint.
    while kills < KILLS or (not skipped and kills < 3 * KILLS):
        seed += 1  # new content: the same ids
        results, hits = None, 0
        while results is None and hits < 4:
            seconds = rng.uniform(0, duration)
            results = results_of(process.run(uri, checkpoints, COUNT, seed, kill_after=seconds))
            hits += results is None
        results = results or results_of(process.run(uri, checkpoints, COUNT, seed))
        assert results is not None
        kills += hits
        skipped += COUNT - sum(results.values())
        assert stored_documents(rest, name) == as_stored(batch(COUNT, seed=seed)), (
            f"{hits} kills, seed {seed}"
        )
        assert settings_of(rest, name) == own
        assert rest("GET", f"/{name}/_mapping")[name]["mappings"]["_meta"].keys() == {"xmodal"}
        assert list(checkpoints.iterdir()) == []
    assert skipped > 0  # some runs continued a killed one


class Loading(threading.Thread):
    """A slow load into its own index, during which the server can be stopped."""

    def __init__(
        self, uri: str, every: list[DocumentBatch], folder: Path, retry_timeout: float
    ) -> None:
        super().__init__(daemon=True)
        self.index = open_opensearch(uri, bits=BITS, create=True)
        self.index.handle.server.retry_timeout = retry_timeout
        self.reached, self.error = threading.Event(), None
        self._every, self._folder = every, folder

    def run(self) -> None:
        try:
            self.report = load(
                self.index, self._every, checkpoints=self._folder, progress=self._progress
            )
        except BaseException as error:
            self.error = error

    def _progress(self, what: str, done: int, total: int) -> None:
        if done >= 6000:
            self.reached.set()
            time.sleep(0.3)


def test_load_continues_after_a_restart_of_the_server(node_parts: None, tmp_path: Path) -> None:
    every = [batch(2000, start=2000 * place) for place in range(12)]
    with Node.start(tmp_path / "node", heap="512m") as node:
        url = f"opensearch://127.0.0.1:{node.port}"
        patient = Loading(f"{url}/patient", every, tmp_path, 90)
        hasty = Loading(f"{url}/hasty", every, tmp_path, 0.5)
        for one in (patient, hasty):
            one.start()
        assert patient.reached.wait(60) and hasty.reached.wait(60)
        node.stop()
        hasty.join(60)
        assert isinstance(hasty.error, ServerFailure)
        assert re.match(r"no server answers at ", str(hasty.error))
        assert patient.is_alive()
        with Node.start(tmp_path / "node", port=node.port, heap="512m") as again:
            patient.join(120)
            assert patient.error is None and patient.report.failed == {}

            settings = again.get("/hasty-000001/_settings?flat_settings=true")["hasty-000001"]
            assert settings["settings"]["index.refresh_interval"] == "-1"  # not restored
            hasty.index.handle.server.retry_timeout = 90
            report = load(hasty.index, every, checkpoints=tmp_path)
            assert 0 < report.stored <= 24_000 - 6000
            settings = again.get("/hasty-000001/_settings?flat_settings=true")["hasty-000001"]
            assert "index.refresh_interval" not in settings["settings"]

            for index in (patient.index, hasty.index):
                assert len(index) == 24_000
                for part in every:
                    for modality in MODALITIES:
                        assert index.get(part.ids).codes(modality) == part.codes(modality)
                index.close()
