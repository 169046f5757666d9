"""xmodal-opensearch demo: the demo's world in a real node, the same questions, the same answers."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from xmodal.cli.output import info, print_line, print_table, progress_bars, runnable
from xmodal.data.synthetic import caption, unseen
from xmodal.encoders.encoder import Encoder
from xmodal.errors import IndexFailure, IndexMissing, XmodalError, require
from xmodal.index.contract import Hit
from xmodal.index.local import HammingIndex
from xmodal.retrieval.retriever import Query, Retriever
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.loading.load import load as load_into
from xmodal_opensearch.node.artifacts import cache_folder
from xmodal_opensearch.node.process import Node
from xmodal_opensearch.server_plugin.build import plugin_folder

K = 10
FILTERS = (None, {"colour": "red"}, {"shape": ["star", "cross"], "size": "large"})


@click.command()
@click.option("--out", default="demo", show_default=True, type=click.Path(path_type=Path))
@click.option("--url", help="A server that runs, as opensearch://host:9200 [default: a new node].")
@click.option("--with-plugin", is_flag=True, help="With our hamming query, compiled now.")
def demo(out: Path, url: str | None, with_plugin: bool) -> None:
    """Load the world of `xmodal demo` into a node and compare its answers with the local index.

    \b
    Example:
      xmodal demo --out demo
      xmodal-opensearch demo --out demo --with-plugin
    """
    require("xmodal-opensearch demo", *(["torch"] if url else ["torch", "node"]))
    if not (out / "index").is_dir():
        made = f"{runnable('xmodal')} demo --out {out}"
        raise IndexMissing(f"there is no demo at {out}: make it first with {made}")

    from xmodal.encoders.load import load_encoder

    local = HammingIndex.load(out / "index", bits=None, fingerprint=None)
    encoder = load_encoder(out / "model")
    if url is not None:
        _compare(local, encoder, url.rstrip("/"))
        return
    info(f"1. starting OpenSearch, data in {out / 'node'}")
    extra = [plugin_folder(show=info)] if with_plugin else []
    with Node.start(out / "node", extra_plugins=extra, show=info) as node:
        _compare(local, encoder, f"opensearch://127.0.0.1:{node.port}")
    info("   the node is stopped; look into it with:")
    info(f"  {runnable('xmodal-opensearch')} node --folder {shlex.quote(str(out / 'node'))}")


def _compare(local: HammingIndex, encoder: Encoder, server: str) -> None:
    uri = f"{server}/xmodal-demo"
    index = open_opensearch(uri, bits=local.bits, fingerprint=local.fingerprint, create=True)
    info(f"2. loading {len(local):,} documents into {uri} ({index!r})")
    with progress_bars() as bars:
        load_into(
            index,
            local.batches(),
            checkpoints=cache_folder() / "loads",
            total=len(local),
            progress=bars,
        )
    texts = [caption(one) for one in unseen()]
    info(f"3. searching {len(texts)} sentences, without and with filters, in both")
    here, there = Retriever(encoder, local), Retriever(encoder, index)
    same = total = 0
    for where in FILTERS:
        queries = [Query(text=text, k=K, where=where) for text in texts]
        pairs = zip(here.search_many(queries), there.search_many(queries), strict=True)
        total += len(texts)
        same += sum(_equal(one, other) for one, other in pairs)
    rows = [["the first hits of the first sentence", "distance here", "distance there"]]
    first = [retriever.search(text=texts[0], k=5) for retriever in (here, there)]
    for one, other in zip(*first, strict=True):
        rows.append([f"{one.id}: {one.fields['text']}", str(one.distance), str(other.distance)])
    print_table(rows, texts[0])
    words = "red circle"
    fused = there.search(text=words, words=words, k=3)
    found = ", ".join(f"{hit.fields['text']!r} ({hit.distance} bits)" for hit in fused)
    print_line(f"codes and BM25 together, {words!r}: {found}")
    index.close()
    print_line(
        f"{same} of {total} answers have the same ids, distances and fields as the local index"
    )
    if same < total:
        raise IndexFailure(f"{total - same} answers differ: please report this")


def _equal(one: list[Hit] | XmodalError, other: list[Hit] | XmodalError) -> bool:
    """Whether two lists of hits have the same ids, distances and fields."""
    for found in (one, other):
        if isinstance(found, XmodalError):
            raise found
    return one == other
