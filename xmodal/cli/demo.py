"""xmodal demo: training, index, search and evaluation on rendered pictures, in a few minutes."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import click

from xmodal.cli.encoder import complete_portable, no_portable_option
from xmodal.cli.epochs import EpochLines
from xmodal.cli.options import json_option
from xmodal.cli.output import (
    info,
    print_json,
    print_line,
    print_tables,
    progress_bars,
    runnable,
)
from xmodal.config import Options, parse_settings
from xmodal.data.dataset import Dataset
from xmodal.data.readers.read import read
from xmodal.data.synthetic import caption, unseen_combinations, write_synthetic_data
from xmodal.errors import require
from xmodal.index.contract import Hit, open_index
from xmodal.retrieval.gallery import write_gallery
from xmodal.retrieval.query import Query
from xmodal.retrieval.results import Results
from xmodal.retrieval.retriever import Retriever
from xmodal.writing import write_text

HITS_PER_QUERY = 5
GALLERY_QUERIES = 5
# The image network has random initial weights: small steps, many epochs. Weights of losses between
# pairs of one class are low, so that codes distinguish pictures of one class.
SETTINGS: dict[str, Any] = {
    "epochs": 20,
    "batch": 64,
    "learning_rate": 1e-3,
    "temperature": 0.05,
    "match_share": 0.2,
    "classes": 0.2,
    "triplet": 0.2,
    "hidden": 512,
    "feature_dropout": 0.0,
}


@click.command()
@click.option(
    "--out",
    default="demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for pictures, model, index and results.",
)
@click.option("--pictures", default=2880, show_default=True, help="Number of pictures to render.")
@click.option("--label-share", default=0.1, show_default=True, help="Share of the labels to use.")
@click.option(
    "--text-backbone",
    default="words",
    show_default=True,
    metavar="NAME|PATH",
    help="Name or local path of a model, or words.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a setting of the training.",
)
@no_portable_option
@json_option
def demo(out: Path, pictures: int, label_share: float, text_backbone: str, **params: Any) -> None:
    """Render pictures, train, index, search and evaluate.

    \b
    Example:
      xmodal demo --out demo
    """
    require("xmodal demo", "torch")
    started = time.perf_counter()
    info(f"1. rendering {pictures:,} pictures with captions into {out / 'pictures'}")
    folder = write_synthetic_data(out / "pictures", pictures)
    dataset = read(folder, label_column="labels")

    from xmodal.evaluation.evaluate import evaluate
    from xmodal.training.train import train

    info(f"2. training a small network with {label_share:.0%} of the labels into {out / 'model'}")
    options = Options(
        bits=64,
        image_backbone="small-cnn",
        text_backbone=text_backbone,
        label_share=label_share,
    )
    settings = SETTINGS | parse_settings(params["assignments"])
    cache = out / "cache"
    with progress_bars() as bars:
        encoder = train(
            dataset, out / "model", options, settings, cache=cache, progress=bars, show=EpochLines()
        )

    if not params["no_portable"]:
        complete_portable(out / "model")

    info(f"3. indexing all pictures and captions into {out / 'index'}")
    index = open_index(
        out / "index", bits=encoder.bits, fingerprint=encoder.fingerprint, create=True
    )
    for batch in encoder.batches(dataset, cache=cache):
        index.add(batch)

    info("4. searching: pictures by text, texts by a picture")
    summary = _search_unseen(Retriever(encoder, index), dataset, out)
    index.close()

    info("5. evaluating on combinations that are not in the training data")
    report, _ = evaluate(encoder, dataset, cache=cache)
    write_text(out / "report.json", report.to_json() + "\n")
    if params["as_json"]:
        print_json(json.loads(report.to_json()), indent=1)
        info(summary)
    else:
        print_tables(report.tables(), report.notes())
        print_line()
        print_line(summary)
    info(f"pictures of the hits: {out / 'gallery.html'} and {out / 'gallery.png'}")
    info(f"total time {time.perf_counter() - started:.0f} s; next:")
    model, uri = (shlex.quote(str(out / name)) for name in ("model", "index"))
    info(f'  {runnable("xmodal")} search "a blue star at the top" --model {model} --index {uri}')


def _search_unseen(retriever: Retriever, dataset: Dataset, out: Path) -> str:
    """Search combinations that training did not contain, write galleries, return a summary."""
    combinations = unseen_combinations()
    texts = [caption(combination) for combination in combinations]
    results = retriever.search_batch([Query(text=text, k=HITS_PER_QUERY) for text in texts])
    correct = sum(
        _matches(hit, combination)
        for combination, hits in zip(combinations, results, strict=True)
        for hit in hits
    )
    by_shape = sorted(range(len(texts)), key=lambda row: (combinations[row][1], row))
    shown = [Results(texts[row], results[row]) for row in by_shape[::6][:GALLERY_QUERIES]]
    image = next(item.images[0] for item in dataset if item.split == "test" and item.images)
    shown.append(Results(image, retriever.search(image=image, k=HITS_PER_QUERY)))
    for suffix in ("html", "png"):
        title = "xmodal demo: combinations that are not in the training data"
        write_gallery(out / f"gallery.{suffix}", shown, title)
    return (
        f"{len(texts)} combinations of colour, shape and place that are not in the training data: "
        f"{correct / (HITS_PER_QUERY * len(texts)):.0%} of the first {HITS_PER_QUERY} hits show "
        "the combination of the query"
    )


def _matches(hit: Hit, combination: tuple[str, str, str]) -> bool:
    return tuple(hit.fields.get(name) for name in ("colour", "shape", "place")) == combination
