"""Property: behind a proxy that damages answers, every operation is right or an error of xmodal.

``XMODAL_FAULTS=1000`` sets the number of damaged answers, ``XMODAL_FAULTS_SEED`` the draw.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import pytest
from support.damaging_proxy import FAULTS, DamagingProxy
from support.filled import batch, random_codes
from support.hamming_server import Server as Rest

from xmodal.errors import XmodalError
from xmodal.index.contract import WordsQuery
from xmodal.index.documents import DocumentBatch
from xmodal.index.query_codes import QueryCodes
from xmodal_opensearch.client import bulk
from xmodal_opensearch.index.exact_search import pages_of_hits
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.loading.load import load

STRATEGIES = ("hamming", "script", "knn", "long")
BITS, DOCUMENTS, RETRY_TIMEOUT = 64, 60, 0.6
Place = Callable[[str], str]


class Sides(NamedTuple):
    """One index, opened directly and through the proxy."""

    direct: OpenSearchIndex
    damaged: OpenSearchIndex


def documents(draw: random.Random) -> DocumentBatch:
    """Return a few documents of the index, with new codes and fields."""
    start, n = draw.randrange(DOCUMENTS), draw.randint(1, 8)
    made = batch(n, start=start, seed=draw.randrange(1000))
    colours = [{"colour": draw.choice(("red", "blue")), "number": i} for i in range(n)]
    return DocumentBatch.of(
        made.ids, image=made.codes("image")[1], text=made.codes("text")[1], fields=colours
    )


def some_ids(draw: random.Random) -> list[str]:
    numbers = draw.sample(range(DOCUMENTS + 20), draw.randint(1, 10))
    return [f"d{number:05}" for number in numbers]


# ---- reading: the answer through the proxy equals the direct one -----------------------------


def search(index: OpenSearchIndex, draw: random.Random) -> Any:
    options: dict[str, Any] = {"target": draw.choice(("image", "text"))}
    if draw.random() < 0.5:
        options["where"] = {"colour": draw.choice(("red", "blue"))}
    if draw.random() < 0.3:
        options["radius"] = draw.randrange(BITS)
    queries = random_codes(draw.randint(1, 4), draw.randrange(1000))
    return index.search(queries, draw.choice((1, 10, 70)), **options)


def weighted(index: OpenSearchIndex, draw: random.Random) -> Any:
    rng = np.random.default_rng(draw.randrange(1000))
    weights = rng.integers(0, 16, (2, BITS), dtype=np.uint8)
    return index.search(QueryCodes(random_codes(2, draw.randrange(99)), weights), 5, target="image")


def fused(index: OpenSearchIndex, draw: random.Random) -> Any:
    """The two rankings that a retriever fuses."""
    queries = [WordsQuery(draw.choice(("red", "blue", "red d00003"))) for _ in range(2)]
    words = index.search_words(queries, 10, target="text")
    codes = index.search(random_codes(2, draw.randrange(99)), 10, target="text")
    return words, codes


def count(index: OpenSearchIndex, draw: random.Random) -> Any:
    where = {"colour": draw.choice(("red", "blue"))}
    return index.count("image", where), len(index), index.count_codes()


def facets(index: OpenSearchIndex, draw: random.Random) -> Any:
    return index.facets()


def get(index: OpenSearchIndex, draw: random.Random) -> Any:
    return as_rows(index.get(some_ids(draw)))


def measure(index: OpenSearchIndex, draw: random.Random) -> Any:
    return index.measure(random_codes(1, 5), some_ids(draw), target="image")


def scan(index: OpenSearchIndex, draw: random.Random) -> Any:
    pages = index.handle.scan({"match_all": {}}, 25, ["colour"])
    return sorted((hit["_id"], str(hit["_source"])) for page in pages for hit in page)


def entries(index: OpenSearchIndex, draw: random.Random) -> Any:
    return list(index.entries())


def pages(index: OpenSearchIndex, draw: random.Random) -> Any:
    query = random_codes(1, draw.randrange(99))
    if index.handle.strategy.build is None:
        return index.search(query, 60, target="image")
    return list(pages_of_hits(index.handle, query, 25, target="image"))


def explain(index: OpenSearchIndex, draw: random.Random) -> Any:
    found = sorted(index.get([f"d{n:05}" for n in range(DOCUMENTS)]).ids)
    return index.explain(draw.choice(found), random_codes(1, 3), target="image", words="red")


READS = (
    search,
    search,
    weighted,
    fused,
    count,
    facets,
    get,
    measure,
    scan,
    entries,
    pages,
    explain,
)


def as_rows(found: DocumentBatch) -> list[Any]:
    columns = [found.codes(modality) for modality in ("image", "text")]
    return [found.ids, found.fields, *((ids, codes.to_hex()) for ids, codes in columns)]


def check_read(read: Callable[..., Any], sides: Sides, seed: int) -> bool:
    """Return whether the read through the proxy succeeded, which must be with the right answer."""
    expected = read(sides.direct, random.Random(seed))
    try:
        found = read(sides.damaged, random.Random(seed))
    except XmodalError as error:
        check_message(error)
        return False
    assert found == expected, (read.__name__, sides.direct.handle.strategy.name, seed)
    return True


def check_message(error: XmodalError) -> None:
    assert str(error) and "\n" not in str(error) and "Traceback" not in str(error)


# ---- writing: after success the documents are stored, after an error it is repeated -----------


def add(index: OpenSearchIndex, draw: random.Random, folder: Path) -> int:
    return index.add(documents(draw))


def load_some(index: OpenSearchIndex, draw: random.Random, folder: Path) -> int:
    report = load(index, [documents(draw)], checkpoints=folder)
    assert not report.failed
    return report.stored


def update(index: OpenSearchIndex, draw: random.Random, folder: Path) -> Any:
    """Partial updates of existing documents, as of enrich."""
    ids = index.get(some_ids(draw)).ids
    change = {"colour": draw.choice(("red", "blue"))}
    report = index.handle.send(bulk.batches(bulk.update_line(id_, change) for id_ in ids))
    assert not report.failed and report.stored == len(ids)
    return ids


def delete(index: OpenSearchIndex, draw: random.Random, folder: Path) -> int:
    return index.delete(some_ids(draw))


WRITES = (add, load_some, update, delete)


def check_write(write: Callable[..., Any], sides: Sides, seed: int, folder: Path) -> bool:
    """Return whether a write through the proxy succeeded, which must be with the right result."""
    before = stored(sides.direct)
    try:
        found = write(sides.damaged, random.Random(seed), folder)
        succeeded = True
    except XmodalError as error:
        check_message(error)
        succeeded = False
    after = stored(sides.direct) if succeeded else None
    expected = write(sides.direct, random.Random(seed), folder)
    if succeeded:
        if write is delete:
            expected = len(before) - len(stored(sides.direct))
        assert found == expected, (write.__name__, seed)
        assert after == stored(sides.direct), (write.__name__, seed)
    return succeeded


def stored(index: OpenSearchIndex) -> dict[str, Any]:
    index.handle.refresh_always()
    found = index.handle.scan({"exists": {"field": "xmodal.id"}}, 500, True)
    return {hit["_id"]: hit["_source"] for page in found for hit in page}


# ---- opening and creating ----------------------------------------------------------------------


def check_opening(place: Place, sides: Sides) -> bool:
    """Open through the proxy; the index must be the same."""
    try:
        opened = open_opensearch(place(sides.direct.handle.address.index), bits=BITS)
    except XmodalError as error:
        check_message(error)
        return False
    assert opened.handle.uuid == sides.direct.handle.uuid
    assert opened.fingerprint == sides.direct.fingerprint
    opened.handle.server.close()
    return True


def check_creation(place: Place, direct: Place, name: str) -> bool:
    """Create an index through the proxy; it must be usable, or creating it again is possible."""
    try:
        open_opensearch(place(name), bits=BITS, create=True).handle.server.close()
        created = True
    except XmodalError as error:
        check_message(error)
        created = False
    with open_opensearch(direct(name), bits=BITS, create=not created) as index:
        index.add(["a"], image=random_codes(1))
        assert [hit.id for hit in index.search(random_codes(1), 3, target="image")[0]] == ["a"]
    return created


# ---- the property --------------------------------------------------------------------------------


@pytest.fixture
def prefix(plugin_url: str) -> Iterator[str]:
    name = f"damaged-{uuid4().hex[:8]}"
    yield name
    Rest(plugin_url)("DELETE", f"{name}-*")


def test_every_operation_is_right_or_an_error(
    plugin_url: str, prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = int(os.environ.get("XMODAL_FAULTS", "20"))
    draw = random.Random(int(os.environ.get("XMODAL_FAULTS_SEED", "0")))
    outcomes: Counter[tuple[str, bool]] = Counter()
    with DamagingProxy(plugin_url, draw.randrange(10**6)) as proxy:

        def place(name: str, port: int = proxy.port) -> str:
            strategy = name.rpartition("-")[2]
            chosen = strategy if strategy in STRATEGIES else "hamming"
            return f"opensearch://127.0.0.1:{port}/{name}?strategy={chosen}"

        def direct(name: str) -> str:
            return place(name, int(plugin_url.rpartition(":")[2]))

        sides = [opened(place, direct, f"{prefix}-{name}") for name in STRATEGIES]
        for number in range(100 * wanted):
            if proxy.faults.total() >= wanted:
                break
            chosen, seed, kind = draw.choice(sides), draw.randrange(10**6), draw.random()
            proxy.rate = 0.35
            if kind < 0.7:
                read = draw.choice(READS)
                outcomes[read.__name__, check_read(read, chosen, seed)] += 1
            elif kind < 0.9:
                write = draw.choice(WRITES)
                succeeded = check_write(write, chosen, seed, tmp_path / str(number))
                outcomes[write.__name__, succeeded] += 1
            elif kind < 0.95:
                outcomes["open", check_opening(place, chosen)] += 1
            else:
                name = f"{prefix}-{number}"
                outcomes["create", check_creation(place, direct, name)] += 1
        proxy.rate = 0
        for side in sides:
            side.damaged.close()
            side.direct.close()
        faults = proxy.faults
    assert faults.total() >= wanted
    assert any(succeeded for _, succeeded in outcomes)
    if wanted > 100:
        assert set(faults) == set(FAULTS)
        with capsys.disabled():
            print(f"\n{faults.total()} faults: {dict(faults)}")
            print({name: (outcomes[name, True], outcomes[name, False]) for name, _ in outcomes})


def opened(place: Place, direct: Place, name: str) -> Sides:
    """Create and fill an index, and open it through the proxy, which damages nothing yet."""
    index = open_opensearch(direct(name), bits=BITS, create=True)
    made = batch(DOCUMENTS)
    fields = [{"colour": "red" if n % 3 else "blue", "number": n} for n in range(DOCUMENTS)]
    index.add(made.ids, image=made.codes("image")[1], text=made.codes("text")[1], fields=fields)
    index.handle.refresh()
    damaged = open_opensearch(place(name), bits=BITS)
    damaged.handle.server.retry_timeout = RETRY_TIMEOUT
    return Sides(index, damaged)
