"""xmodal demo: the main job from start to end, on a rendered world, in a few minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from xmodal.cli.show import epoch_line, json_option, print_table, progress_bars, say
from xmodal.config import Options, parse_settings
from xmodal.gallery import Shown, write_gallery
from xmodal.index import Hit, open_index
from xmodal.readers import read
from xmodal.toy import caption, unseen, write_world

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
    started = time.perf_counter()
    say(f"1. rendering {pictures:,} pictures with captions into {out / 'pictures'}")
    world = write_world(out / "pictures", pictures)
    dataset = read(world)

    from xmodal.assessment import evaluate
    from xmodal.training.train import train

    say(f"2. training a small network with {label_share:.0%} of the labels into {out / 'model'}")
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

    say(f"3. indexing all pictures and captions into {out / 'index'}")
    index = open_index(out / "index", bits=encoder.bits, encoder=encoder.fingerprint, create=True)
    for addition in encoder.additions(dataset, cache=cache):
        index.add(**addition._asdict())

    say("4. searching: words find pictures, a picture finds words")
    hidden = unseen()
    asked = [caption(one) for one in hidden]
    found = index.search(encoder.encode_texts(asked), SHOWN, target="image")
    right = [sum(_is(hit, one) for hit in hits) for one, hits in zip(hidden, found, strict=True)]
    places = sorted(range(len(hidden)), key=lambda place: (hidden[place][1], place))[::6][:5]
    results = [_shown(encoder, asked[place], found[place]) for place in places]
    item = next(item for item in dataset if item.split == "test" and item.image is not None)
    by_picture = index.search(encoder.encode_images([str(item.image)]), SHOWN, target="text")[0]
    results.append(_shown(encoder, item.image, by_picture))
    for ending in ("html", "png"):
        title = "xmodal demo: combinations that training never showed"
        write_gallery(out / f"gallery.{ending}", results, title)
    index.close()

    say("5. measuring on the unseen combinations")
    report, _ = evaluate(encoder, dataset, cache=cache)
    (out / "report.json").write_text(report.to_json() + "\n")
    share = sum(right) / (SHOWN * len(right))
    if given["as_json"]:
        click.echo(report.to_json())
    else:
        print_table(report.table(), report.title)
        for line in report.notes():
            click.echo(line)
        click.echo()
    click.echo(
        f"{len(hidden)} combinations of colour, shape and place that training never showed: "
        f"{share:.0%} of the first {SHOWN} hits show exactly what was asked",
        err=given["as_json"],
    )
    say(f"pictures of the hits: {out / 'gallery.html'} and {out / 'gallery.png'}")
    say(f"{time.perf_counter() - started:.0f} s in all; try it yourself:")
    say(f'  xmodal search "a blue star at the top" --model {out / "model"} --index {out / "index"}')


def _is(hit: Hit, combination: tuple[str, str, str]) -> bool:
    return tuple(hit.fields.get(name) for name in ("colour", "shape", "place")) == combination


def _shown(encoder: Any, query: Any, hits: list[Hit]) -> Shown:
    return Shown(query, hits, [encoder.confidence(hit.distance) for hit in hits])
