"""The same search in a local index and in OpenSearch, with filters, BM25 and an explanation.

python examples/04_opensearch.py [opensearch://host:9200]      default: starts a node
"""

import sys
from contextlib import ExitStack
from pathlib import Path

import xmodal
from xmodal.config import Options
from xmodal.data.synthetic import write_world


def main(server: str | None = None, work: str = "example") -> None:
    data = xmodal.read(write_world(Path(work, "photos"), 300))
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
        query = encoder.encode_texts([text])
        where = {"colour": ["red", "pink"], "size": "large"}
        local_hits = local.search(query, 5, target="image", where=where)
        remote_hits = remote.search(query, 5, target="image", where=where)
        assert local_hits == remote_hits, "ids, distances and fields are the same"
        for hit in remote_hits[0]:
            print(hit.distance, hit.id, hit.fields["text"])

        print(f"codes and BM25 of {text!r}, fused by reciprocal rank:")
        for hit in remote.search_fused(query, [text], 3, target="image")[0]:
            print(hit.distance, hit.ranks, hit.fields["text"])
        best = remote_hits[0][0].id
        found = remote.explain(
            best, query, target="image", words=text, confidence=encoder.confidence
        )
        print(f"{best}: {found.agreeing} of {found.bits} bits are equal")
        print(f"  rank {found.code_rank} by code, {found.text_rank} by BM25")
        print(f"  confidence {found.confidence:.0%}")
        similar = xmodal.Retriever(encoder, remote).search(like=best, k=3)
        print("similar pictures:", [hit.id for hit in similar])
        local.close()
        remote.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
