"""Codes for an index that you already have: its documents stay as they are and become searchable.

python examples/05_enrich_opensearch.py [opensearch://host:9200]     without one: a node is started
"""

import sys
from contextlib import ExitStack
from pathlib import Path

from opensearchpy import OpenSearch

import xmodal
from xmodal.config import Options
from xmodal.data import Problems
from xmodal.toy import write_world
from xmodal_opensearch.address import parse_address
from xmodal_opensearch.enrich import Source, enrich, prepare
from xmodal_opensearch.server import Server

NAME = "example-05"


def somebody_elses_index(server: str, data: xmodal.Dataset) -> None:
    """A shop's products: a title, a price, a date, and the file of a photo."""
    host, _, port = server.removeprefix("opensearch://").partition(":")
    client = OpenSearch([{"host": host, "port": int(port)}])
    client.indices.delete(index=NAME, ignore_unavailable=True)
    kinds = {"title": "text", "price": "float", "since": "date", "photo": "keyword"}
    properties = {name: {"type": kind} for name, kind in kinds.items()}
    client.indices.create(index=NAME, body={"mappings": {"properties": properties}})
    for number, item in enumerate(data):
        product = {"title": item.text, "price": number / 10, "since": "2026-01-02"}
        product["photo"] = Path(str(item.image)).name
        client.index(index=NAME, id=f"product-{number}", body=product)
    client.indices.refresh(index=NAME)


def main(server: str | None = None, work: str = "example") -> None:
    photos = write_world(Path(work, "photos"), 300)
    data = xmodal.read(photos)
    options = Options(bits=32, image_backbone="small-cnn", text_backbone="words")
    encoder = xmodal.train(data, Path(work, "model"), options, {"epochs": 3, "batch": 64})
    with ExitStack() as stack:
        if server is None:
            from xmodal_opensearch.node import Node

            node = stack.enter_context(Node.start(Path(work, "node"), show=print))
            server = f"opensearch://127.0.0.1:{node.port}"
        somebody_elses_index(server, data)

        # The same as: xmodal-opensearch enrich --image-field photo --text-field title ...
        address = parse_address(f"{server}/{NAME}")
        source = Source(image="photo", text="title", folder=photos)
        index = prepare(Server(address), address, encoder.bits, encoder.fingerprint, source)
        report = enrich(index, source, encoder.encode_data, problems=Problems())
        print(f"{report.stored} of {len(data)} products have codes now")

        query = encoder.encode_texts(["a red circle on the left"])
        cheap = {"price": {"lt": 20}, "since": {"gte": "2026-01-01"}}
        for hit in index.search(query, 5, target="image", where=cheap)[0]:
            print(hit.distance, hit.id, hit.fields["title"], hit.fields["price"])
        index.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
