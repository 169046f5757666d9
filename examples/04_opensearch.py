"""The same search in OpenSearch: one address changes; filters, BM25 and reasons come with it.

python examples/04_opensearch.py [opensearch://host:9200]      without one: a node is started
"""

import sys
from contextlib import ExitStack
from pathlib import Path

import xmodal
from xmodal.config import Options
from xmodal.toy import write_world


def main(server: str | None = None, work: str = "example") -> None:
    data = xmodal.read(write_world(Path(work, "photos"), 300))
    options = Options(bits=32, image_backbone="small-cnn", text_backbone="words")
    encoder = xmodal.train(data, Path(work, "model"), options, {"epochs": 3, "batch": 64})
    with ExitStack() as stack:
        if server is None:
            from xmodal_opensearch.node import Node

            node = stack.enter_context(Node.start(Path(work, "node"), show=print))
            server = f"opensearch://127.0.0.1:{node.port}"
        local = xmodal.open_index(Path(work, "index"), bits=32, create=True)
        remote = xmodal.open_index(
            f"{server}/example-04", bits=32, encoder=encoder.fingerprint, create=True
        )
        for addition in encoder.additions(data):
            local.add(**addition._asdict())
            remote.add(**addition._asdict())

        words = "a red circle on the left"
        query = encoder.encode_texts([words])
        where = {"colour": ["red", "pink"], "size": "large"}
        here = local.search(query, 5, target="image", where=where)
        there = remote.search(query, 5, target="image", where=where)
        assert here == there, "both promise the same ids, distances and fields"
        for hit in there[0]:
            print(hit.distance, hit.id, hit.fields["text"])

        print(f"codes and the words {words!r} (BM25) fused by reciprocal rank:")
        for one in remote.search_fused(query, [words], 3, target="image")[0]:
            print(one.distance, one.code_rank, one.text_rank, one.fields["text"])
        best = there[0][0].id
        why = remote.explain(
            best, query, target="image", words=words, confidence=encoder.confidence
        )
        print(f"{best}: {why.agreeing} of {why.bits} bits agree, rank {why.code_rank} by code,")
        print(f"  {why.text_rank} by words, confidence {why.confidence:.0%}")
        print("more like it:", [hit.id for hit in remote.more_like(best, 3)])
        local.close()
        remote.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
