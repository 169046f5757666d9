"""Two tenants behind filtered aliases of one index with 10,000 documents: none sees the other's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen
from uuid import uuid4

import numpy as np
import pytest
from support.filled import random_codes
from support.hamming_server import Server

from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError, IndexMissing
from xmodal.index.documents import DocumentBatch
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import MODALITIES
from xmodal.retrieval.retriever import Retriever
from xmodal_opensearch.diagnostics.measurements import diagnose
from xmodal_opensearch.index.exact_search import pages_of_hits
from xmodal_opensearch.index.reading import sample_codes
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch

if TYPE_CHECKING:
    from xmodal.encoders.encoder import Encoder

DOCUMENTS = 10_000
TENANTS = ("north", "south")
Open = Callable[[str, str], OpenSearchIndex]


def few_codes(n: int, bits: int, seed: int) -> BinaryCodes:
    """Codes of which many are equal, so that documents of both tenants tie."""
    return BinaryCodes(random_codes(n, seed, bits).packed & 0x11, bits)


@pytest.fixture(scope="module")
def documents(encoder: Encoder) -> DocumentBatch:
    """Documents of two tenants in turn; every tenth has three codes of each modality."""
    codes = {
        modality: few_codes(3 * DOCUMENTS, encoder.bits, seed)
        for seed, modality in enumerate(MODALITIES)
    }
    counts = [3 if number % 10 == 0 else 1 for number in range(DOCUMENTS)]
    ends = np.cumsum(counts)
    columns = {
        modality: [all_codes[end - count : end] for end, count in zip(ends, counts, strict=True)]
        for modality, all_codes in codes.items()
    }
    return DocumentBatch.of(
        [f"{number:05}" for number in range(DOCUMENTS)],
        **columns,
        fields=[
            {
                "tenant": TENANTS[number % 2],
                "shade": f"s{number % 5}",
                "text": f"a red circle of {TENANTS[number % 2]}",
            }
            for number in range(DOCUMENTS)
        ],
    )


@pytest.fixture(scope="module")
def open_tenant(plugin_url: str, encoder: Encoder, documents: DocumentBatch) -> Iterator[Open]:
    """``open_tenant("knn", "north")`` opens the alias of a tenant with a strategy."""
    server, stem = Server(plugin_url), f"tenants-{uuid4().hex[:8]}"
    made: set[str] = set()

    def open_it(strategy: str, tenant: str) -> OpenSearchIndex:
        layout = "long" if strategy == "long" else "vector"
        base = f"{plugin_url.replace('http', 'opensearch')}/{stem}-{layout}"
        if layout not in made:
            made.add(layout)
            options = {"bits": encoder.bits, "fingerprint": encoder.fingerprint, "create": True}
            with open_opensearch(f"{base}?strategy={strategy}", **options) as index:
                index.add(documents)
                index.handle.refresh()
                actions = [
                    {
                        "add": {
                            "index": index.handle.name,
                            "alias": f"{stem}-{layout}-{one}",
                            "filter": {"term": {"tenant": one}},
                        }
                    }
                    for one in TENANTS
                ]
            server("POST", "_aliases", {"actions": actions})
        return open_opensearch(f"{base}-{tenant}?strategy={strategy}")

    yield open_it
    urlopen(Request(f"{plugin_url}/{stem}-*", method="DELETE")).close()


@pytest.mark.parametrize("tenant", TENANTS)
@pytest.mark.parametrize("strategy", ["hamming", "script", "knn", "long"])
def test_tenant_finds_its_own_documents_alone(
    open_tenant: Open, documents: DocumentBatch, encoder: Encoder, strategy: str, tenant: str
) -> None:
    own = list(range(TENANTS.index(tenant), DOCUMENTS, 2))
    ids = [documents.ids[row] for row in own]
    foreign = sorted(set(documents.ids) - set(ids))
    seen: list[str] = []

    def note(found: Iterable[str]) -> list[str]:
        found = list(found)
        seen.extend(found)
        return found

    with open_tenant(strategy, tenant) as index:
        queries = few_codes(2, encoder.bits, 77)
        distances = queries.distances(documents.codes("image")[1])
        nearest = np.minimum.reduceat(distances, documents.offsets["image"][:-1], axis=1)[:, own]
        expected = [
            [(ids[row], int(line[row])) for row in np.lexsort((ids, line))] for line in nearest
        ]
        for k in (50, DOCUMENTS):
            for hits, right in zip(index.search(queries, k, target="image"), expected, strict=True):
                assert [(hit.id, hit.distance) for hit in hits] == right[:k]
                note(hit.id for hit in hits)
        shaded = index.search(queries[:1], 40, target="image", where={"shade": ["s1", "s2"]})[0]
        kept = [pair for pair in expected[0] if int(pair[0]) % 5 in (1, 2)]
        assert [(hit.id, hit.distance) for hit in shaded] == kept[:40]
        weights = np.arange(encoder.bits, dtype=np.uint8)[None] % 16
        weighted = index.search(QueryCodes(queries[:1], weights), 30, target="text")[0]
        assert len(note(hit.id for hit in weighted)) == 30
        if strategy != "knn":
            pages = pages_of_hits(index.handle, queries[:1], 2000, target="image")
            paged = [(hit.id, hit.distance) for page in pages for hit in page]
            assert paged == expected[0]

        assert len(index) == index.count("text") == index.count("image") == len(ids)
        assert index.count("image", {"shade": "s1"}) == len(ids) // 5
        for modality, number in index.count_codes().items():
            assert number == documents.counts(modality)[own].sum()
        assert index.facets() == {
            "shade": [(f"s{n}", len(ids) // 5) for n in range(5)],
            "tenant": [(tenant, len(ids))],
        }
        assert note(entry.id for entry in index.entries()) == ids
        assert note(index.get(documents.ids).ids) == ids
        assert index.measure(queries[:1], foreign[:50], target="image") == {}
        assert len(note(sample_codes(index.handle, "text", 200)[0])) == 200

        id_, distance = expected[0][9]
        explained = index.explain(id_, queries[:1], target="image", words="red")
        assert (explained.code_rank, explained.distance) == (10, distance)
        with pytest.raises(IndexMissing, match=foreign[7]):
            index.explain(foreign[7], queries[:1], target="image")

        retriever = Retriever(encoder, index)
        fused = retriever.search(text=f"a red circle of {tenant}", k=60)
        assert len(note(hit.id for hit in fused)) == 60
        (other,) = set(TENANTS) - {tenant}
        assert retriever.search(text=other, k=60, by="words") == []
        alike = retriever.search(like=ids[30], target="image", k=40)
        assert len(note(hit.id for hit in alike)) == 40
        with pytest.raises(IndexMissing):
            retriever.search(like=foreign[30], target="image", k=40)

        with pytest.raises(ConfigError, match="read only"):
            index.delete(foreign[:1])
    strangers = set(seen) & set(foreign)
    print(f"{strategy}, {tenant}: {len(seen):,} documents returned, {len(strangers)} foreign")
    assert strangers == set()


def test_doctor_measures_a_tenant(open_tenant: Open) -> None:
    with open_tenant("script", "north") as index:
        report = diagnose(index)
        assert [stats.read for stats in report.modalities] == [
            index.count_codes()[modality] for modality in MODALITIES
        ]
