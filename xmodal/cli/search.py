"""xmodal search"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from xmodal.cli.show import (
    backbone_options,
    complain,
    json_option,
    model_option,
    print_json,
    print_line,
    print_table,
    say,
    tell_way,
)
from xmodal.codes import BinaryCodes
from xmodal.errors import ConfigError
from xmodal.gallery import Shown, write_gallery
from xmodal.index import Hit, Index, Modality, open_index
from xmodal.where import parse_text


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

    from xmodal.loading import load_encoder

    encoder = load_encoder(
        model, image_backbone=given["image_backbone"], text_backbone=given["text_backbone"]
    )
    index = open_index(uri, bits=encoder.bits, encoder=encoder.fingerprint)
    tell_way(uri, index)
    query: str | Path = words if words is not None else Path(str(image))
    codes = (
        encoder.encode_texts([words]) if words is not None else encoder.encode_images([str(image)])
    )
    target: Modality = given["target"] or ("image" if words is not None else "text")
    across = target == ("image" if words is not None else "text")
    where = parse_text(given["filters"])
    radius = _radius(encoder, given["max_distance"], given["min_confidence"], across)
    if given["fuse"]:
        hits = _fused(index, codes, words, radius, given, target=target, where=where)
    else:
        hits = index.search(codes, given["k"], target=target, where=where, radius=radius)[0]
    # The curve was fitted between pictures and texts; it says nothing of two pictures.
    sure = [encoder.confidence(hit.distance) if across else None for hit in hits]
    if given["gallery"]:
        write_gallery(given["gallery"], [Shown(query, hits, sure)], title=f"xmodal: {query}")
        say(f"gallery: {given['gallery']}")
    if given["as_json"]:
        rows = [
            hit._asdict() | {"confidence": None if one is None else round(one, 4)}
            for hit, one in zip(hits, sure, strict=True)
        ]
        print_json({"query": str(query), "hits": rows})
    elif hits:
        table = [["distance", "confidence", "text", "file"]]
        for hit, one in zip(hits, sure, strict=True):
            shown = "-" if one is None else f"{one:.0%}"
            text, file = hit.fields.get("text", "-"), hit.fields.get("image", hit.id)
            table.append([str(hit.distance), shown, str(text)[:80], str(file)])
        print_table(table)
    if not hits:
        if not given["as_json"]:
            print_line("no match")
        if len(index) == 0:
            complain(
                f"{uri} is empty: fill it with xmodal index DATA --model {model} --index {uri}"
            )
    index.close()
    if not hits:
        sys.exit(1)
    return 0


def _fused(
    index: Index, codes: BinaryCodes, words: str | None, radius: int | None, given: Any, **rest: Any
) -> list[Hit]:
    """Hits by codes and BM25 together; a document found by its words alone has its distance too."""
    if not hasattr(index, "search_fused"):
        raise ConfigError(
            "--fuse needs an index in OpenSearch, which knows the words of its documents"
        )
    if words is None or radius is not None:
        raise ConfigError("--fuse goes with WORDS, and without --max-distance or --min-confidence")
    found = index.search_fused(codes, [words], given["k"], text=given["fuse"], **rest)[0]
    return [Hit(one.id, one.distance, one.fields) for one in found]


def _radius(
    encoder: Any, max_distance: int | None, min_confidence: float | None, across: bool
) -> int | None:
    """The radius of both cut-offs together."""
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise ConfigError(f"--min-confidence is {min_confidence}, expected between 0 and 1")
    radius: int | None = encoder.confidence.cut(max_distance, min_confidence, across)
    return radius
