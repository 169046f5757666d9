"""The same search in a local index and in OpenSearch, with filters, BM25 and an explanation.

python examples/04_opensearch.py [opensearch://host:9200]      default: starts a node
"""

import sys
from contextlib import ExitStack
from pathlib import Path

import xmodal
from xmodal.config import Options
from xmodal.data.synthetic import write_synthetic_data


def main(server: str | None = None, work: str = "example") -> None:
    data = xmodal.read(write_synthetic_data(Path(work, "photos"), 300))
    options = Options(bits=32, image_backbone="small-cnn", text_backbone="words")
    encoder = xmodal.train(data, Path(work, "model"), options, {"epochs": 3, "batch": 64})
    with ExitStack() as stack:
        if server is None:
            from xmodal_opensearch.node.process import Node

            node = stack.enter_context(Node.start(Path(work, "node"), show=print))
            server = f"opensearch://127.0.0.1:{node.port}"
        local = xmodal.open_index(Path(work, "index"), bits=32, create=True)
        remote = xmodal.open_index(
            f"{server}/example-04", bits=32, fingerprint=encoder.fingerprint, create=True
        )
        for batch in encoder.batches(data):
            local.add(batch)
            remote.add(batch)

        text = "a red circle on the left"
        where = {"colour": ["red", "pink"], "size": "large"}
        local_hits = xmodal.Retriever(encoder, local).search(text=text, k=5, where=where)
        retriever = xmodal.Retriever(encoder, remote)
        remote_hits = retriever.search(text=text, k=5, where=where)
        assert local_hits == remote_hits, "ids, distances and fields are the same"
        print(f"codes and BM25 of {text!r}, fused by reciprocal rank:")
        for hit in remote_hits:
            print(hit.distance, hit.ranks, hit.fields["text"])

        print("codes alone:")
        for hit in retriever.search(text=text, by="codes", k=3):
            print(hit.distance, hit.id, hit.fields["text"])
        best = remote_hits[0]
        query = encoder.encode_texts([text])
        found = remote.explain(best.id, query, target="image", words=text)
        print(f"{best.id}: {found.agreeing} of {found.bits} bits are equal")
        print(f"  rank {found.code_rank} by code, {found.text_rank} by BM25")
        print(f"  confidence {best.confidence:.0%}")
        print("more like this:", [hit.id for hit in retriever.search(like=best.id, k=3)])
        local.close()
        remote.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
