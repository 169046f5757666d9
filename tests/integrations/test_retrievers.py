"""Retrievers of LangChain, LlamaIndex and Haystack answer as Retriever.search, id by id."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import haystack
import pytest
from haystack.dataclasses import ByteStream
from langchain_core.structured_query import Comparator, Comparison
from llama_index.core.schema import ImageNode, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from xmodal.encoders.index_model import record_model
from xmodal.errors import ConfigError, ExtraMissing, IndexMissing
from xmodal.index.contract import Hit, open_index
from xmodal.index.local import HammingIndex
from xmodal.integrations.haystack import XmodalRetriever as HaystackRetriever
from xmodal.integrations.langchain import XmodalRetriever as LangChainRetriever
from xmodal.integrations.llama_index import XmodalRetriever as LlamaIndexRetriever
from xmodal.retrieval.opening import open_retriever
from xmodal.retrieval.retriever import Retriever

if TYPE_CHECKING:
    from xmodal_opensearch.node.process import Node

TEXT = "a red circle on the left"


class Opened(NamedTuple):
    """An index with its model, the retriever of xmodal, and a retriever of each library."""

    uri: str
    model: Path
    own: Retriever
    langchain: LangChainRetriever
    llama_index: Callable[..., LlamaIndexRetriever]
    haystack: HaystackRetriever


@pytest.fixture(scope="module", params=["local", "opensearch"])
def opened(request: pytest.FixtureRequest, model: Path, index_path: Path) -> Iterator[Opened]:
    uri = str(index_path)
    if request.param == "opensearch":
        node: Node = request.getfixturevalue("node")
        uri = f"opensearch://127.0.0.1:{node.port}/retrievers"
        local = HammingIndex.load(index_path, bits=None, fingerprint=None)
        with open_index(uri, bits=local.bits, fingerprint=local.fingerprint, create=True) as index:
            for batch in local.batches():
                index.add(batch)
    own = open_retriever(uri, model)
    yield Opened(
        uri,
        model,
        own,
        LangChainRetriever(retriever=own),
        lambda **options: LlamaIndexRetriever(own, **options),
        HaystackRetriever(uri, str(model)),
    )
    own.index.close()


def of_documents(documents: list[Any], metadata: str) -> list[tuple[Any, ...]]:
    """Id, distance and confidence of documents, from their attribute ``metadata``."""
    found = [getattr(document, metadata) for document in documents]
    return [(one["id"], one["distance"], one["confidence"]) for one in found]


def of_hits(hits: list[Hit]) -> list[tuple[Any, ...]]:
    assert hits
    return [(hit.id, hit.distance, hit.confidence) for hit in hits]


def test_answers_equal_those_of_search(opened: Opened) -> None:
    expected = of_hits(opened.own.search(text=TEXT, k=30))
    documents = opened.langchain.invoke(TEXT, k=30)
    nodes = opened.llama_index(k=30).retrieve(TEXT)
    found = opened.haystack.run(query=TEXT, top_k=30)["documents"]
    assert of_documents(documents, "metadata") == expected
    assert of_documents(nodes, "metadata") == expected
    assert of_documents(found, "meta") == expected
    assert (
        [one.id for one in documents] == [one.id for one in found] == [one[0] for one in expected]
    )
    scores = [node.score for node in nodes]
    assert scores == [one.score for one in found] == sorted(scores, reverse=True)


def test_filtered_answers_equal_those_of_search(opened: Opened) -> None:
    where = {"colour": ["red", "blue"], "shape": {"not": "circle"}}
    expected = of_hits(opened.own.search(text=TEXT, k=10, where=where))
    colours, shape = where["colour"], "circle"
    documents = LangChainRetriever(
        retriever=opened.own, options={"where": {"shape": {"not": shape}}}
    ).invoke(TEXT, filter=Comparison(Comparator.IN, "colour", colours))
    filters = MetadataFilters(
        filters=[
            MetadataFilter(key="colour", operator="in", value=colours),
            MetadataFilter(key="shape", operator="!=", value=shape),
        ]
    )
    nodes = opened.llama_index(k=10, filters=filters).retrieve(TEXT)
    conditions = [
        {"field": "meta.colour", "operator": "in", "value": colours},
        {"field": "meta.shape", "operator": "!=", "value": shape},
    ]
    answer = opened.haystack.run(query=TEXT, filters={"operator": "AND", "conditions": conditions})
    assert of_documents(documents, "metadata") == expected
    assert of_documents(nodes, "metadata") == expected
    assert of_documents(answer["documents"], "meta") == expected


def test_picture_queries_equal_those_of_search(opened: Opened, photos_folder: Path) -> None:
    picture = next(photos_folder.rglob("*.png"))
    for target in ("image", "text"):
        expected = of_hits(opened.own.search(image=picture, target=target))
        options = {"target": target}
        documents = opened.langchain.invoke("", image=picture, **options)
        bundle = QueryBundle("", image_path=str(picture))
        nodes = opened.llama_index(**options).retrieve(bundle)
        assert {isinstance(node.node, ImageNode) for node in nodes} == {target == "image"}
        component = HaystackRetriever(opened.uri, str(opened.model), options=options)
        for image in (picture, ByteStream(picture.read_bytes())):
            assert of_documents(component.run(image=image)["documents"], "meta") == expected
        assert of_documents(documents, "metadata") == expected
        assert of_documents(nodes, "metadata") == expected


def test_asynchronous_answers_are_the_same(opened: Opened) -> None:
    async def search() -> list[list[Any]]:
        answer = await opened.haystack.run_async(query=TEXT)
        return [
            await opened.langchain.ainvoke(TEXT, k=10),
            await opened.llama_index().aretrieve(TEXT),
            answer["documents"],
        ]

    documents, nodes, found = asyncio.run(search())
    assert documents == opened.langchain.invoke(TEXT)
    assert nodes == opened.llama_index().retrieve(TEXT)
    assert found == opened.haystack.run(query=TEXT)["documents"]


def test_documents_have_caption_picture_and_fields(opened: Opened) -> None:
    (hit,) = opened.own.search(text=TEXT, k=1)
    (document,) = opened.langchain.invoke(TEXT, k=1)
    (node,) = opened.llama_index(k=1).retrieve(TEXT)
    (found,) = opened.haystack.run(query=TEXT, top_k=1)["documents"]
    assert document.page_content == node.node.text == found.content == hit.fields["text"]
    assert document.metadata == node.metadata == found.meta
    assert document.metadata.items() >= dict(hit.fields).items()
    assert node.node.image_path == hit.fields["image"]


def test_a_pipeline_is_stored_and_loaded(index_path: Path, model: Path) -> None:
    pipeline = haystack.Pipeline()
    filters = {"field": "meta.colour", "operator": "==", "value": "red"}
    component = HaystackRetriever(
        str(index_path), str(model), top_k=3, filters=filters, options={"target": "text"}
    )
    pipeline.add_component("retriever", component)
    loaded = haystack.Pipeline.loads(
        pipeline.dumps(), allowed_modules=["xmodal.integrations.haystack"]
    )
    query = {"retriever": {"query": TEXT}}
    assert loaded.run(query) == pipeline.run(query)
    assert len(loaded.run(query)["retriever"]["documents"]) == 3


def test_mistakes_have_one_line(index_path: Path, model: Path, tmp_path: Path) -> None:
    retriever = LangChainRetriever.open(index_path, model)
    with pytest.raises(ConfigError, match="expected a text, a picture or a document"):
        retriever.invoke("")
    with pytest.raises(ConfigError, match="no document has the field 'nothing'"):
        retriever.invoke(TEXT, where={"nothing": 1})
    with pytest.raises(ConfigError, match="option 'top_k': expected one of text, image, "):
        retriever.invoke(TEXT, top_k=3)
    with pytest.raises(ConfigError, match="filter operator"):
        HaystackRetriever(str(index_path), filters={"field": "a", "operator": "~", "value": 1})
    with pytest.raises(IndexMissing, match="no index at"):
        HaystackRetriever(str(tmp_path / "none")).warm_up()


def test_a_local_index_records_its_model(index_path: Path, model: Path, tmp_path: Path) -> None:
    uri = tmp_path / "copy.index"
    local = HammingIndex.load(index_path, bits=None, fingerprint=None)
    with open_index(uri, bits=local.bits, fingerprint=local.fingerprint, create=True) as index:
        for batch in local.batches():
            index.add(batch)
    record_model(str(uri), model, str(local.fingerprint))
    (node,) = LlamaIndexRetriever.open(uri, k=1).retrieve(TEXT)
    assert node.metadata["id"] == open_retriever(index_path, model).search(text=TEXT)[0].id


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("llama_index", "llama_index", "llama-index"),
        ("haystack", "haystack", "haystack"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    module: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"xmodal.integrations.{module}")
    with pytest.raises(ExtraMissing, match=rf"needs packages .*\[{extra}\]"):
        import_module(f"xmodal.integrations.{module}")
