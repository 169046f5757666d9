"""xmodal demo: the main job from start to end, on a rendered world, in a few minutes."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import json_option
from xmodal.cli.output import (
    epoch_line,
    info,
    print_json,
    print_line,
    print_table,
    progress_bars,
    runnable,
)
from xmodal.config import Options, parse_settings
from xmodal.data.readers.read import read
from xmodal.data.synthetic import caption, unseen_combinations, write_synthetic_data
from xmodal.errors import require
from xmodal.index.contract import Hit, open_index
from xmodal.retrieval.gallery import QueryHits, write_gallery
from xmodal.retrieval.retriever import Retriever

SHOWN = 5
# A network that starts from nothing wants small steps and many of them; and the codes should find
# the very picture, not only its kind, so what draws a kind together weighs little.
SETTINGS = {"epochs": 20, "batch": 64, "learning_rate": 1e-3, "temperature": 0.05}
SETTINGS |= {
    "match_share": 0.2,
    "classes": 0.2,
    "triplet": 0.2,
    "hidden": 512,
    "feature_dropout": 0.0,
}


@click.command()
@click.option("--out", default="demo", show_default=True, type=click.Path(path_type=Path))
@click.option("--pictures", default=2880, show_default=True, help="How many to render.")
@click.option("--label-share", default=0.1, show_default=True, help="Share of labels used.")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Method's setting.")
@json_option
def demo(out: Path, pictures: int, label_share: float, **given: Any) -> None:
    """Render a small world, train with few labels, index, search both ways, evaluate.

    \b
    Example:
      xmodal demo --out demo
    """
    require("xmodal demo", "torch")
    started = time.perf_counter()
    info(f"1. rendering {pictures:,} pictures with captions into {out / 'pictures'}")
    world = write_synthetic_data(out / "pictures", pictures)
    dataset = read(world, label_column="labels")

    from xmodal.evaluation.evaluate import evaluate
    from xmodal.training.train import train

    info(f"2. training a small network with {label_share:.0%} of the labels into {out / 'model'}")
    options = Options(
        bits=64,
        image_backbone="small-cnn",
        text_backbone="words",
        label_share=label_share,
    )
    settings = SETTINGS | parse_settings(given["assignments"])
    cache = out / "cache"
    with progress_bars() as bars:
        encoder = train(
            dataset, out / "model", options, settings, cache=cache, progress=bars, show=epoch_line
        )

    info(f"3. indexing all pictures and captions into {out / 'index'}")
    index = open_index(
        out / "index", bits=encoder.bits, fingerprint=encoder.fingerprint, create=True
    )
    for batch in encoder.batches(dataset, cache=cache):
        index.add(batch)

    info("4. searching: words find pictures, a picture finds words")
    retriever = Retriever(encoder, index)
    hidden = unseen_combinations()
    texts = [caption(one) for one in hidden]
    found = [retriever.search(text=text, k=SHOWN) for text in texts]
    right = [sum(_is(hit, one) for hit in hits) for one, hits in zip(hidden, found, strict=True)]
    places = sorted(range(len(hidden)), key=lambda place: (hidden[place][1], place))[::6][:5]
    results = [QueryHits(texts[place], found[place]) for place in places]
    item = next(item for item in dataset if item.split == "test" and item.image is not None)
    assert item.image is not None
    results.append(QueryHits(item.image, retriever.search(image=item.image, k=SHOWN)))
    for ending in ("html", "png"):
        title = "xmodal demo: combinations that training never showed"
        write_gallery(out / f"gallery.{ending}", results, title)
    index.close()

    info("5. measuring on the unseen combinations")
    report, _ = evaluate(encoder, dataset, cache=cache)
    (out / "report.json").write_text(report.to_json() + "\n")
    share = sum(right) / (SHOWN * len(right))
    if given["as_json"]:
        print_json(json.loads(report.to_json()), indent=1)
    else:
        print_table(report.table(), report.title)
        for line in report.notes():
            print_line(line)
        print_line()
    tell = info if given["as_json"] else print_line
    tell(
        f"{len(hidden)} combinations of colour, shape and place that training never showed: "
        f"{share:.0%} of the first {SHOWN} hits show exactly what was asked"
    )
    info(f"pictures of the hits: {out / 'gallery.html'} and {out / 'gallery.png'}")
    info(f"{time.perf_counter() - started:.0f} s in all; try it yourself:")
    model, filled = (shlex.quote(str(out / name)) for name in ("model", "index"))
    asked_next = f'search "a blue star at the top" --model {model} --index {filled}'
    info(f"  {runnable('xmodal')} {asked_next}")


def _is(hit: Hit, combination: tuple[str, str, str]) -> bool:
    return tuple(hit.fields.get(name) for name in ("colour", "shape", "place")) == combination
