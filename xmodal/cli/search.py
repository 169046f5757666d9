"""The command xmodal search."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from xmodal.cli.encoder import engine_option, load_encoder
from xmodal.cli.hits import hit_to_json, print_hits
from xmodal.cli.options import backbone_options, index_option, json_option, model_of_index_option
from xmodal.cli.output import (
    info,
    print_error,
    print_json,
    print_line,
    print_strategy,
    shown_path,
    status,
)
from xmodal.cli.query_command import QueryCommand
from xmodal.encoders.calibration import Stage
from xmodal.errors import ConfigError, IndexMissing
from xmodal.index.contract import Hit, Index, open_index
from xmodal.index.filter_text import parse_filters
from xmodal.modality import MODALITIES, Modality, other_modality
from xmodal.retrieval.gallery import unreadable_pictures, write_gallery
from xmodal.retrieval.query import By, Query
from xmodal.retrieval.query_text import describe, parse_weights
from xmodal.retrieval.results import Results

if TYPE_CHECKING:
    from xmodal.encoders.encoder import Encoder

NOUNS: dict[Modality, str] = {"image": "pictures", "text": "texts"}
_ADDRESS = re.compile("[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)


@click.command(cls=QueryCommand)
@click.argument("words", nargs=-1)
@click.option("--image", help="Query picture, alone or with WORDS.")
@click.option("--like", metavar="ID", help="Query document: search for what is similar to it.")
@click.option(
    "--not",
    "not_text",
    multiple=True,
    metavar="TEXT",
    help="Text to move away from, and to exclude; the same as -word.",
)
@click.option(
    "--weight",
    "weights",
    multiple=True,
    metavar="PART=NUMBER",
    help="Weight of text, image, like or words [default: 1], or of not [default: 0.5].",
)
@model_of_index_option
@index_option
@click.option("-k", default=10, show_default=True, help="Maximum number of hits.")
@click.option("--from", "offset", default=0, show_default=True, help="Hits to skip.")
@click.option(
    "--target",
    type=click.Choice(MODALITIES),
    help="Modality to search [default: text for a picture alone, else image].",
)
@click.option(
    "--where",
    "filters",
    multiple=True,
    metavar="FILTER",
    help="Filter: FIELD=VALUE, !=, ~= (any case), <, <=, >, >=, FIELD=A|B, FIELD=BEGIN*, FIELD=* "
    "(any value); all must hold.",
)
@click.option("--max-distance", type=int, help="Maximum distance of a hit, in bits.")
@click.option("--min-confidence", type=float, help="Minimum confidence of a hit, 0 to 1.")
@click.option(
    "--by",
    type=click.Choice(get_args(By)),
    default="both",
    show_default=True,
    help="Rank by codes, by the words of captions and fields, or by both.",
)
@click.option(
    "--stage",
    type=click.Choice(get_args(Stage)),
    default="vectors",
    show_default=True,
    help="Last stage of the ranking by codes: Hamming, weighted Hamming, or vectors.",
)
@click.option(
    "--gallery", type=click.Path(path_type=Path), help="Write the hits to an .html or .png file."
)
@click.option("--preview", is_flag=True, help="Show the pictures, if the output is a terminal.")
@click.option(
    "--queries",
    type=click.Path(path_type=Path),
    help="File of queries in place of WORDS: a text on each line of .txt, or a table with the "
    "column query, or with texts and pictures.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File for the hits of --queries: .jsonl, .csv, .parquet, or .run (TREC).",
)
@engine_option()
@backbone_options(None)
@json_option
def search(words: tuple[str, ...], model: Path | None, uri: str, **params: Any) -> int:
    """Search pictures by WORDS, texts by a picture, or both by a document.

    Words need no quotes. A word after a minus sign is excluded; after -- all words are searched
    for. A picture, a document and WORDS can be combined. Columns of the hits: rank, distance in
    bits, confidence, why (rank by codes and by words, words that matched), nearest caption, file.
    To a pipe or file they are separated by tabs. The exit status is 1 if there is no match.

    \b
    Example:
      xmodal search red shoes
      xmodal search red shoes -leather --where "price<50" --index my.index -k 5
      xmodal search red --image a.jpg --weight image=2
      xmodal search --like photos/a.jpg --target image
      xmodal search red shoes --model my.model --index opensearch://localhost:9200/photos
      xmodal search --queries queries.txt --out hits.csv -k 20
    """
    query = _query(words, params)
    if params["queries"] is not None:
        return _search_file(query, model, uri, params)
    encoder = _encoder(query, model, uri, params)
    index = open_index(
        uri,
        bits=None if encoder is None else encoder.bits,
        fingerprint=None if encoder is None else encoder.fingerprint,
    )
    print_strategy(uri, index)
    with status("searching"):
        query, hits = _search(encoder, index, query)
    _print_doubts(encoder, query, hits)
    line = describe([query.text, params["image"], query.like], query.not_text)
    if params["gallery"]:
        shown = Path(line) if line == params["image"] else line
        results = Results(shown, hits, query.searched)
        write_gallery(params["gallery"], [results], f"xmodal: {line}")
        info(f"gallery: {params['gallery']}")
        if unreadable := unreadable_pictures(results):
            info(
                f"  {len(unreadable):,} x picture cannot be read (xmodal index stores the present "
                f"paths): {shown_path(str(unreadable[0]))}"
            )
    if params["as_json"]:
        rows = [hit_to_json(hit, query.searched) for hit in hits]
        print_json({"query": line, "target": query.searched, "hits": rows})
    elif hits:
        print_hits(hits, query.searched, query.offset + 1, preview=params["preview"])
    else:
        print_line("no match")
        if len(index) == 0:
            print_error(f"{uri} is empty: run xmodal index DATA --index {uri}")
    index.close()
    return 0 if hits else 1


def _search_file(query: Query, model: Path | None, uri: str, params: dict[str, Any]) -> int:
    """Search with the queries of a file; return the exit status."""
    from xmodal.cli.batch import search_file
    from xmodal.retrieval.retriever import Retriever

    encoder = load_encoder(_found_model(model, uri), params, for_queries=True)
    index = open_index(uri, bits=encoder.bits, fingerprint=encoder.fingerprint)
    print_strategy(uri, index)
    out = params["out"]
    count, hits = search_file(Retriever(encoder, index), params["queries"], out, query)
    index.close()
    print_line(f"{out}: {hits:,} hits of {count:,} queries")
    return 0 if hits else 1


def _print_doubts(encoder: Encoder | None, query: Query, hits: Sequence[Hit]) -> None:
    """Print a line if the text encoder has no token of the query, or if no hit is likely right."""
    if encoder is None:
        return
    if query.text is not None and not encoder.has_known_token(query.text):
        info("the text encoder has no token of these words: codes say nothing about them")
        return
    known = [hit.confidence for hit in hits if hit.confidence is not None]
    if known and max(known) < encoder.confidence.min_confidence:
        info(
            f"nothing found is likely right: the highest confidence is {max(known):.1%}, below "
            f"{encoder.confidence.min_confidence:.1%} (--min-confidence leaves such hits out)"
        )


def _query(words: tuple[str, ...], params: dict[str, Any]) -> Query:
    """Return the query of the command line; raise ConfigError for parts that do not fit."""
    image, like = params["image"], params["like"]
    text = " ".join(words).strip() or None
    _check_queries([text, image, like, params["gallery"]], params)
    if text is None and image is None and like is None and params["queries"] is None:
        found = " only words to exclude" if params["not_text"] else " nothing"
        raise ConfigError(
            f"expected WORDS, --image or --like, found{found}; for example: xmodal search red shoes"
        )
    if image is not None and _ADDRESS.match(image):
        raise ConfigError(
            f"--image is the address {image[:100]}, expected a file: download the picture first"
        )
    confidence = params["min_confidence"]
    if confidence is not None and not 0 <= confidence <= 1:
        raise ConfigError(f"--min-confidence is {confidence}, expected between 0 and 1")
    weights, word_weight = parse_weights(params["weights"])
    return Query(
        text=text,
        image=image,
        like=like,
        not_text=params["not_text"],
        weights=weights,
        target=params["target"],
        k=params["k"],
        offset=params["offset"],
        where=parse_filters(params["filters"]),
        radius=params["max_distance"],
        min_confidence=confidence,
        by=params["by"],
        stage=params["stage"],
        word_weight=word_weight,
    )


def _encoder(query: Query, model: Path | None, uri: str, params: dict[str, Any]) -> Encoder | None:
    """Return the encoder of an index; None for a query that needs none, by a document alone."""
    if query.text is None and query.image is None and not query.not_text and model is None:
        return None
    return load_encoder(_found_model(model, uri), params, for_queries=True)


def _check_queries(others: Sequence[object], params: dict[str, Any]) -> None:
    """Raise ConfigError for --queries without --out, and for options that do not fit them."""
    if (params["queries"] is None) != (params["out"] is None):
        given, missing = ("--queries", "--out") if params["out"] is None else ("--out", "--queries")
        raise ConfigError(f"{given} without {missing}: expected both")
    if params["queries"] is not None and any(one is not None for one in others):
        raise ConfigError("--queries has the queries: leave WORDS, --image, --like, --gallery out")


def _found_model(model: Path | None, uri: str) -> Path:
    """Return the model, or the one that the index records. Raises IndexMissing, ConfigError."""
    from xmodal.encoders.index_model import find_model

    model = model or find_model(uri)
    if model is None:
        raise IndexMissing(
            f"no index at {uri}: make one with xmodal index DATA --index {uri}, or name another "
            "one with --index"
        )
    return model


def _search(encoder: Encoder | None, index: Index, query: Query) -> tuple[Query, list[Hit]]:
    """Return the hits, and the query with its target; print a line for an index without codes of
    the target."""
    from xmodal.retrieval.retriever import Retriever, search_present

    found, hits = search_present(Retriever(encoder, index), query)
    missing, present = query.searched, other_modality(query.searched)
    if found.searched != missing:
        info(
            f"the index has no {NOUNS[missing]}: its {NOUNS[present]} are searched "
            f"(--target {present})"
        )
    elif not hits and not index.count(missing) and index.count(present):
        info(f"the index has no {NOUNS[missing]}: --target {present} searches its {NOUNS[present]}")
    return found, hits
