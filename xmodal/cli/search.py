"""xmodal search"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import backbone_options, json_option, model_of_index_option
from xmodal.cli.output import info, print_error, print_json, print_line, print_strategy, print_table
from xmodal.errors import ConfigError, IndexMissing
from xmodal.index.contract import Hit, nearest_to_json, open_index, shown_source
from xmodal.index.filters import parse_text
from xmodal.modality import Modality
from xmodal.retrieval.gallery import QueryHits, write_gallery


@click.command()
@click.argument("words", required=False)
@click.option("--image", type=click.Path(path_type=Path), help="Query picture.")
@model_of_index_option
@click.option("--index", "uri", required=True, help="Index folder or address.")
@click.option("-k", default=10, show_default=True, help="Maximum number of hits.")
@click.option(
    "--target",
    type=click.Choice(["image", "text"]),
    help="Modality to search [default: image for WORDS, text for --image].",
)
@click.option(
    "--where",
    "filters",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Filter; also >, >=, <, <=, and FIELD=* for documents with the field.",
)
@click.option("--max-distance", type=int, help="Maximum distance of a hit, in bits.")
@click.option("--min-confidence", type=float, help="Minimum confidence of a hit, 0 to 1.")
@click.option(
    "--fuse",
    metavar="FIELD",
    help="Also rank by BM25 of WORDS in this text field; requires an index in OpenSearch.",
)
@click.option(
    "--gallery", type=click.Path(path_type=Path), help="Write the hits to an .html or .png file."
)
@backbone_options(None)
@json_option
def search(
    words: str | None, image: Path | None, model: Path | None, uri: str, **params: Any
) -> int:
    """Search pictures by WORDS, or texts by a picture.

    The exit status is 1 if there is no match.

    \b
    Example:
      xmodal search "red shoes" --index my.index
      xmodal search "red shoes" --model my.model --index my.index -k 5 --where colour=red
      xmodal search --image a.jpg --model my.model --index my.index --min-confidence 0.5
      xmodal search "red shoes" --model my.model --index opensearch://localhost:9200/photos
          --fuse text
    """
    if (words is None) == (image is None):
        raise ConfigError(
            "expected either WORDS or --image, for example: xmodal search 'red shoes'"
        )
    if params["fuse"] and words is None:
        raise ConfigError("--fuse requires WORDS instead of --image")
    if params["min_confidence"] is not None and not 0 <= params["min_confidence"] <= 1:
        raise ConfigError(
            f"--min-confidence is {params['min_confidence']}, expected between 0 and 1"
        )

    from xmodal.encoders.index_model import find_model
    from xmodal.encoders.load import load_encoder
    from xmodal.retrieval.retriever import Retriever

    model = model or find_model(uri)
    if model is None:
        raise IndexMissing(f"no index at {uri}: make one with xmodal index DATA --index {uri}")
    encoder = load_encoder(
        model, image_backbone=params["image_backbone"], text_backbone=params["text_backbone"]
    )
    index = open_index(uri, bits=encoder.bits, fingerprint=encoder.fingerprint)
    print_strategy(uri, index)
    target: Modality = params["target"] or ("text" if words is None else "image")
    hits = Retriever(encoder, index).search(
        text=words,
        image=None if image is None else str(image),
        target=target,
        k=params["k"],
        where=parse_text(params["filters"]),
        radius=params["max_distance"],
        min_confidence=params["min_confidence"],
    )
    query: str | Path = words if words is not None else Path(str(image))
    if params["gallery"]:
        write_gallery(params["gallery"], [QueryHits(query, hits, target)], f"xmodal: {query}")
        info(f"gallery: {params['gallery']}")
    if params["as_json"]:
        rows = [_row(hit, target) for hit in hits]
        print_json({"query": str(query), "hits": rows})
    elif hits:
        print_table(_table(hits, target))
    if not hits:
        if not params["as_json"]:
            print_line("no match")
        if len(index) == 0:
            print_error(f"{uri} is empty: run xmodal index DATA --model {model} --index {uri}")
    index.close()
    if not hits:
        sys.exit(1)
    return 0


def _row(hit: Hit, target: Modality) -> dict[str, Any]:
    """Return a hit as JSON, with score and ranks if it is of a fused search."""
    row = {"id": hit.id, "distance": hit.distance, "fields": hit.fields}
    row |= {"confidence": hit.confidence, "nearest": nearest_to_json(hit, target)}
    return row if hit.ranks is None else row | {"score": hit.score, "ranks": hit.ranks}


def _table(hits: list[Hit], target: Modality) -> list[list[str]]:
    """Return a header and one row per hit, with the nearest caption or the nearest picture."""
    rows = [["distance", "confidence", "text", "file"]]
    for hit in hits:
        confidence = "-" if hit.confidence is None else f"{hit.confidence:.0%}"
        text = shown_source(hit, "text", target) or "-"
        file = shown_source(hit, "image", target) or hit.id
        rows.append([str(hit.distance), confidence, text[:80], file])
    return rows
