"""xmodal-opensearch demo"""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from xmodal.cli.output import info, print_line, print_table, progress_bars, runnable
from xmodal.data.synthetic import caption, unseen_combinations
from xmodal.encoders.encoder import Encoder
from xmodal.errors import IndexFailure, IndexMissing, require
from xmodal.index.local import HammingIndex
from xmodal.retrieval.query import Query
from xmodal.retrieval.retriever import Retriever
from xmodal_opensearch.index.store import OpenSearchIndex, open_opensearch
from xmodal_opensearch.loading.load import load as load_into
from xmodal_opensearch.node.artifacts import cache_folder
from xmodal_opensearch.node.process import Node
from xmodal_opensearch.server_plugin.build import plugin_folder

K = 10
FILTERS = (None, {"colour": "red"}, {"shape": ["star", "cross"], "size": "large"})


@click.command()
@click.option(
    "--out",
    default="demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder written by xmodal demo.",
)
@click.option("--url", help="A running server, opensearch://host:9200 [default: start a node].")
@click.option("--with-plugin", is_flag=True, help="Build the hamming plugin and install it.")
def demo(out: Path, url: str | None, with_plugin: bool) -> None:
    """Load the data of xmodal demo and compare hits with the local index.

    \b
    Example:
      xmodal demo --out demo
      xmodal-opensearch demo --out demo --with-plugin
    """
    require("xmodal-opensearch demo", *(["torch"] if url else ["torch", "node"]))
    if not (out / "index").is_dir():
        command = f"{runnable('xmodal')} demo --out {out}"
        raise IndexMissing(f"no demo at {out}: create it first with {command}")

    from xmodal.encoders.load import load_encoder

    local = HammingIndex.load(out / "index", bits=None, fingerprint=None)
    encoder = load_encoder(out / "model")
    if url is not None:
        _load_and_compare(local, encoder, url.rstrip("/"))
        return
    info(f"1. starting OpenSearch, data in {out / 'node'}")
    extra = [plugin_folder(show=info)] if with_plugin else []
    with Node.start(out / "node", extra_plugins=extra, show=info) as node:
        _load_and_compare(local, encoder, f"opensearch://127.0.0.1:{node.port}")
    info("   stopped the node; start it again with:")
    info(f"  {runnable('xmodal-opensearch')} node --folder {shlex.quote(str(out / 'node'))}")


def _load_and_compare(local: HammingIndex, encoder: Encoder, server: str) -> None:
    """Load ``local`` into the server and compare searches. Raises IndexFailure if they differ."""
    uri = f"{server}/xmodal-demo"
    with open_opensearch(uri, bits=local.bits, fingerprint=local.fingerprint, create=True) as index:
        info(f"2. loading {len(local):,} documents into {uri} ({index!r})")
        with progress_bars() as bars:
            load_into(
                index,
                local.batches(),
                checkpoints=cache_folder() / "loads",
                total=len(local),
                progress=bars,
            )
        texts = [caption(scene) for scene in unseen_combinations()]
        info(f"3. searching {len(texts)} sentences, without and with filters, in both indexes")
        equal, total = _compare(local, index, encoder, texts)
    print_line(
        f"{equal} of {total} answers have the same ids, distances and fields as the local index"
    )
    if equal < total:
        raise IndexFailure(f"{total - equal} answers differ: please report this")


def _compare(
    local: HammingIndex, index: OpenSearchIndex, encoder: Encoder, texts: list[str]
) -> tuple[int, int]:
    """Search both indexes and print hits; return the number of equal answers and of all."""
    by_file, by_server = Retriever(encoder, local), Retriever(encoder, index)
    equal = total = 0
    for where in FILTERS:
        queries = [Query(text=text, k=K, where=where) for text in texts]
        pairs = zip(by_file.search_batch(queries), by_server.search_batch(queries), strict=True)
        total += len(texts)
        equal += sum(one == other for one, other in pairs)
    rows = [["hits of the first sentence", "distance, local", "distance, OpenSearch"]]
    first = [retriever.search(text=texts[0], k=5) for retriever in (by_file, by_server)]
    for one, other in zip(*first, strict=True):
        rows.append([f"{one.id}: {one.fields['text']}", str(one.distance), str(other.distance)])
    print_table(rows, texts[0])
    words = "red circle"
    hits = by_server.search(text=words, by="words", k=3)
    shown = ", ".join(f"{hit.fields['text']!r} ({hit.distance} bits)" for hit in hits)
    print_line(f"search by words alone, {words!r}: {shown}")
    return equal, total
