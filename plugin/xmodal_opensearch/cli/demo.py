"""xmodal-opensearch demo: the demo's world in a real node, the same questions, the same answers."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from xmodal.cli.show import print_table, progress_bars, runnable, say
from xmodal.errors import IndexFailure, IndexMissing, require
from xmodal.hamming import HammingIndex
from xmodal.index import Hit
from xmodal.toy import caption, unseen
from xmodal_opensearch.artifacts import cache_folder
from xmodal_opensearch.load import load as load_into
from xmodal_opensearch.node import Node
from xmodal_opensearch.server_plugin.build import plugin_folder
from xmodal_opensearch.store import open_opensearch

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

    from xmodal.loading import load_encoder

    local = HammingIndex.load(out / "index", bits=None, encoder=None)
    encoder = load_encoder(out / "model")
    if url is not None:
        _compare(local, encoder, url.rstrip("/"))
        return
    say(f"1. starting OpenSearch, data in {out / 'node'}")
    extra = [plugin_folder(show=say)] if with_plugin else []
    with Node.start(out / "node", extra_plugins=extra, show=say) as node:
        _compare(local, encoder, f"opensearch://127.0.0.1:{node.port}")
    say("   the node is stopped; look into it with:")
    say(f"  {runnable('xmodal-opensearch')} node --folder {shlex.quote(str(out / 'node'))}")


def _compare(local: HammingIndex, encoder: object, server: str) -> None:
    uri = f"{server}/xmodal-demo"
    index = open_opensearch(uri, bits=local.bits, encoder=local.encoder, create=True)
    say(f"2. loading {len(local):,} documents into {uri} ({index!r})")
    with progress_bars() as bars:
        load_into(
            index,
            local.additions(),
            notes=cache_folder() / "loads",
            total=len(local),
            progress=bars,
        )
    asked = [caption(one) for one in unseen()]
    queries = encoder.encode_texts(asked)  # type: ignore[attr-defined]
    say(f"3. asking {len(asked)} sentences, without and with filters, of both")
    same = total = 0
    for where in FILTERS:
        here = local.search(queries, K, target="image", where=where)
        there = index.search(queries, K, target="image", where=where)
        total += len(asked)
        same += sum(_plain(a) == _plain(b) for a, b in zip(here, there, strict=True))
    rows = [["the first hits of the first sentence", "distance here", "distance there"]]
    first_here, first_there = (
        one.search(queries[:1], 5, target="image")[0] for one in (local, index)
    )
    for a, b in zip(first_here, first_there, strict=True):
        rows.append([f"{a.id}: {a.fields['text']}", str(a.distance), str(b.distance)])
    print_table(rows, asked[0])
    words = "red circle"
    code = encoder.encode_texts([words])  # type: ignore[attr-defined]
    fused = index.search_fused(code, [words], 3, target="image")[0]
    found = ", ".join(f"{hit.fields['text']!r} ({hit.distance} bits)" for hit in fused)
    click.echo(f"codes and BM25 together, {words!r}: {found}")
    index.close()
    click.echo(
        f"{same} of {total} answers have the same ids, distances and fields as the local index"
    )
    if same < total:
        raise IndexFailure(f"{total - same} answers differ: please report this")


def _plain(hits: list[Hit]) -> list[tuple[str, int, dict[str, object]]]:
    return [(hit.id, hit.distance, dict(hit.fields)) for hit in hits]
