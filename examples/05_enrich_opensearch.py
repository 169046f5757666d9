"""Add codes to the documents of an existing OpenSearch index, and search it.

python examples/05_enrich_opensearch.py [opensearch://host:9200]     default: starts a node
"""

import sys
from contextlib import ExitStack
from pathlib import Path

from opensearchpy import OpenSearch

import xmodal
from xmodal.config import Options
from xmodal.data.problems import Problems
from xmodal.data.synthetic import write_synthetic_data
from xmodal_opensearch.client.address import parse_address
from xmodal_opensearch.client.server import Server
from xmodal_opensearch.loading.document_sources import Source
from xmodal_opensearch.loading.enrich import enrich
from xmodal_opensearch.loading.preparation import prepare

NAME = "example-05"


def create_shop_index(server: str, data: xmodal.Dataset) -> None:
    """Create an index of products with a title, a price, a date and the file name of a photo."""
    host, _, port = server.removeprefix("opensearch://").partition(":")
    client = OpenSearch([{"host": host, "port": int(port)}])
    client.indices.delete(index=NAME, ignore_unavailable=True)
    kinds = {"title": "text", "price": "float", "since": "date", "photo": "keyword"}
    properties = {name: {"type": kind} for name, kind in kinds.items()}
    client.indices.create(index=NAME, body={"mappings": {"properties": properties}})
    for number, item in enumerate(data):
        product = {"title": item.captions[0], "price": number / 10, "since": "2026-01-02"}
        product["photo"] = Path(str(item.images[0])).name
        client.index(index=NAME, id=f"product-{number}", body=product)
    client.indices.refresh(index=NAME)


def main(server: str | None = None, work: str = "example") -> None:
    photos = write_synthetic_data(Path(work, "photos"), 300)
    data = xmodal.read(photos)
    options = Options(bits=32, image_backbone="small-cnn", text_backbone="words")
    encoder = xmodal.train(data, Path(work, "model"), options, {"epochs": 3, "batch": 64})
    with ExitStack() as stack:
        if server is None:
            from xmodal_opensearch.node.process import Node

            node = stack.enter_context(Node.start(Path(work, "node"), show=print))
            server = f"opensearch://127.0.0.1:{node.port}"
        create_shop_index(server, data)

        # Equivalent to: xmodal-opensearch enrich --image-field photo --text-field title ...
        address = parse_address(f"{server}/{NAME}")
        source = Source(image="photo", text="title", folder=photos)
        index = prepare(Server(address), address, encoder.bits, encoder.fingerprint, source)
        result = enrich(index, source, encoder.encode_data, problems=Problems())
        print(f"codes added to {result.updated} of {len(data)} products")

        where = {"price": {"lt": 20}, "since": {"gte": "2026-01-01"}}
        retriever = xmodal.Retriever(encoder, index)
        for hit in retriever.search(text="a red circle on the left", k=5, where=where):
            print(hit.distance, hit.id, hit.fields["title"], hit.fields["price"])
        index.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
