"""The operations of ``assets/roles.json``, run by a user of a node with the security plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from support.secured_node import SecuredNode

from xmodal.codes import BinaryCodes
from xmodal.data.dataset import Dataset
from xmodal.data.problems import Problems
from xmodal.index.contract import WordsQuery
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import open_folder
from xmodal.index.query_codes import QueryCodes
from xmodal_opensearch.cli.commands import commands
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.loading.document_sources import Source
from xmodal_opensearch.loading.enrich import enrich
from xmodal_opensearch.loading.preparation import prepare

NAME, BITS, DIM, FINGERPRINT = "shelf", 64, 8, "f" * 64


def documents(count: int, prefix: str = "d") -> DocumentBatch:
    """Return documents with codes, vectors and fields; one has two text codes."""
    rng = np.random.default_rng(count)
    codes = BinaryCodes(rng.integers(0, 256, (count + 1, BITS // 8), dtype=np.uint8), BITS)
    text = [codes[[row, count]] if row == 0 else codes[[row]] for row in range(count)]
    batch = DocumentBatch.of(
        [f"{prefix}{row}" for row in range(count)],
        image=codes[:count],
        text=text,
        fields=[{"caption": f"red boat {row}"} for row in range(count)],
    )
    vectors = {
        modality: rng.integers(-127, 128, (len(batch.packed[modality]), DIM)).astype(np.int8)
        for modality in batch.packed
    }
    return replace(batch, vectors=vectors)


@dataclass
class Encoded:
    """Codes of one modality as an encoder returns them: one code an item."""

    ids: list[str]
    codes: BinaryCodes
    vectors: None = None

    @property
    def offsets(self) -> Any:
        return np.arange(len(self.ids) + 1, dtype=np.int64)

    @property
    def positions(self) -> Any:
        return np.zeros(len(self.ids), np.int64)


def encode(data: Dataset) -> Mapping[Any, Encoded]:
    ids = [item.id for item in data.items]
    return {"image": Encoded([], codes(0)), "text": Encoded(ids, codes(len(ids)))}


def codes(count: int) -> BinaryCodes:
    return BinaryCodes(np.ones((count, BITS // 8), np.uint8), BITS)


@dataclass
class Operations:
    """Operations on indexes called NAME; ``folder`` has the local files."""

    node: SecuredNode
    folder: Path
    _prepared: tuple[str, Any] = ("", None)

    @property
    def address(self) -> str:
        return self.node.address(NAME)

    def by_name(self) -> dict[str, tuple[Callable[[], None], Callable[[], object]]]:
        """Return for each operation its preparation as the administrator, and itself."""
        return {
            "search": (self.filled, self.search),
            "add": (self.empty, self.add),
            "create": (self.absent, lambda: self.run("create", self.address, "--bits", BITS)),
            "load": (self.absent, self.load),
            "new-version": (self.loaded, lambda: self.load("--new-version", "--delete-old")),
            "delete": (self.filled, lambda: self.run("delete", self.address, "--yes")),
            "enrich": (self.own, self.enrich),
            "doctor": (self.filled, lambda: self.run("doctor", self.address)),
            "plugin-check": (self.absent, self.check_plugin),
        }

    def prepare(self, name: str) -> None:
        """Prepare an operation, unless the server is as the last preparation for it left it."""
        if self._prepared != (name, self.state()):
            self.by_name()[name][0]()
            self._prepared = name, self.state()

    def state(self) -> Any:
        """Return the definitions of the indexes and the number of writes and deletions in each."""
        names, absent = f"{NAME},{NAME}-*", "ignore_unavailable=true"
        found = self.node("GET", f"{names}/_stats/indexing?{absent}")["indices"]
        writes = [
            (name, one["primaries"]["indexing"][f"{kind}_total"])
            for name, one in sorted(found.items())
            for kind in ("index", "delete")
        ]
        return self.node("GET", f"{names}?{absent}"), writes

    def run(self, *arguments: object) -> str:
        """Run a command; raise its error."""
        result = CliRunner().invoke(commands, list(map(str, arguments)))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    # ---- preparations --------------------------------------------------------------------------

    def absent(self) -> None:
        self.node("DELETE", f"{NAME},{NAME}-*?ignore_unavailable=true")

    def filled(self) -> None:
        """An index with documents."""
        self.absent()
        with self.node.acting_as("admin"):
            with open_opensearch(self.address, bits=BITS, create=True) as index:
                index.add(documents(5))

    def empty(self) -> None:
        self.absent()
        with self.node.acting_as("admin"):
            open_opensearch(self.address, bits=BITS, create=True).close()

    def loaded(self) -> None:
        self.absent()
        with self.node.acting_as("admin"):
            self.load()

    def own(self) -> None:
        self.absent()
        for number in range(3):
            body = {"title": f"red boat {number}"}
            self.node("PUT", f"{NAME}/_doc/{number}?refresh=true", body)

    # ---- operations ----------------------------------------------------------------------------

    def search(self) -> None:
        with open_opensearch(self.address) as index:
            query = codes(2)
            vectors = np.ones((2, DIM), np.int8)
            index.search(query, 3, target="text")
            index.search(QueryCodes(query, vectors=vectors), 3, target="image")
            index.search_words([WordsQuery("red")], 3, target="image")
            index.facets()
            index.count("image", {"caption": "none"})
            index.explain("d1", query[:1], target="image")
            index.handle.window = 2
            index.search(query[:1], 4, target="image")

    def add(self) -> None:
        with open_opensearch(self.address) as index:
            index.add(documents(3, "new"))
            index.delete(["new1"])
            assert len(index.get(["new0", "new1"])) == 1
            index.delete(["new0", "new2"])

    def load(self, *options: str) -> str:
        local, cache = self.folder / "local.index", self.folder / "cache"
        if not local.exists():
            with open_folder(local, bits=BITS, create=True) as index:
                index.add(documents(5))
        return self.run("load", local, "--index", self.address, "--cache", cache, *options)

    def enrich(self) -> None:
        address, source = parse_address(self.address), Source(text="title")
        with prepare(Server(address), address, BITS, FINGERPRINT, source) as index:
            problems = Problems()
            result = enrich(index, source, encode, problems=problems)
            assert result.updated == 3, problems.count_by_kind()

    def check_plugin(self) -> str:
        return self.run("plugin", "check", self.node.address(""))
