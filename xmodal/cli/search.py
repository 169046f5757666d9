"""xmodal search"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import backbone_options, json_option, model_option
from xmodal.cli.output import info, print_error, print_json, print_line, print_strategy, print_table
from xmodal.errors import ConfigError
from xmodal.index.contract import Hit, open_index
from xmodal.index.filters import parse_text
from xmodal.retrieval.gallery import QueryHits, write_gallery


@click.command()
@click.argument("words", required=False)
@click.option("--image", type=click.Path(path_type=Path), help="Search by this picture.")
@model_option
@click.option("--index", "uri", required=True, help="Folder of the index, or its address.")
@click.option("-k", default=10, show_default=True, help="At most so many hits.")
@click.option(
    "--target",
    type=click.Choice(["image", "text"]),
    help="What to find [default: pictures for words, texts for a picture].",
)
@click.option("--where", "filters", multiple=True, metavar="FIELD=VALUE", help="Also >=, <, =*.")
@click.option("--max-distance", type=int, help="Hits within so many bits.")
@click.option("--min-confidence", type=float, help="Hits that are at least so sure, 0 to 1.")
@click.option(
    "--fuse",
    metavar="FIELD",
    help="Rank by the words of WORDS in this text field as well (BM25; a server's index).",
)
@click.option("--gallery", type=click.Path(path_type=Path), help="Write hits to .html or .png.")
@backbone_options(None)
@json_option
def search(words: str | None, image: Path | None, model: Path, uri: str, **given: Any) -> int:
    """Find pictures by WORDS, or texts by a picture.

    Exits with 1 if there is no match.

    \b
    Example:
      xmodal search "red shoes" --model my.model --index my.index -k 5 --where colour=red
      xmodal search --image a.jpg --model my.model --index my.index --min-confidence 0.5
      xmodal search "red shoes" --model my.model --index opensearch://localhost:9200/photos
          --fuse text
    """
    if (words is None) == (image is None):
        raise ConfigError("search by words or by --image, one of them: xmodal search 'red shoes'")
    if given["fuse"] and words is None:
        raise ConfigError("--fuse goes with WORDS, and without --max-distance or --min-confidence")
    if given["min_confidence"] is not None and not 0 <= given["min_confidence"] <= 1:
        raise ConfigError(
            f"--min-confidence is {given['min_confidence']}, expected between 0 and 1"
        )

    from xmodal.encoders.load import load_encoder
    from xmodal.retrieval.retriever import Retriever

    encoder = load_encoder(
        model, image_backbone=given["image_backbone"], text_backbone=given["text_backbone"]
    )
    index = open_index(uri, bits=encoder.bits, fingerprint=encoder.fingerprint)
    print_strategy(uri, index)
    hits = Retriever(encoder, index).search(
        text=words,
        image=None if image is None else str(image),
        target=given["target"],
        k=given["k"],
        where=parse_text(given["filters"]),
        radius=given["max_distance"],
        min_confidence=given["min_confidence"],
        words=words if given["fuse"] else None,
        text_field=given["fuse"] or "text",
    )
    query: str | Path = words if words is not None else Path(str(image))
    if given["gallery"]:
        write_gallery(given["gallery"], [QueryHits(query, hits)], title=f"xmodal: {query}")
        info(f"gallery: {given['gallery']}")
    if given["as_json"]:
        rows = [_row(hit) for hit in hits]
        print_json({"query": str(query), "hits": rows})
    elif hits:
        print_table(_table(hits))
    if not hits:
        if not given["as_json"]:
            print_line("no match")
        if len(index) == 0:
            print_error(
                f"{uri} is empty: fill it with xmodal index DATA --model {model} --index {uri}"
            )
    index.close()
    if not hits:
        sys.exit(1)
    return 0


def _row(hit: Hit) -> dict[str, Any]:
    """A hit as JSON; score and ranks are those of a fused search."""
    row = {"id": hit.id, "distance": hit.distance, "fields": hit.fields}
    row["confidence"] = hit.confidence
    return row if hit.ranks is None else row | {"score": hit.score, "ranks": hit.ranks}


def _table(hits: list[Hit]) -> list[list[str]]:
    """Header and one row for each hit."""
    rows = [["distance", "confidence", "text", "file"]]
    for hit in hits:
        confidence = "-" if hit.confidence is None else f"{hit.confidence:.0%}"
        text, file = hit.fields.get("text", "-"), hit.fields.get("image", hit.id)
        rows.append([str(hit.distance), confidence, str(text)[:80], str(file)])
    return rows
