"""xmodal train"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import (
    backbone_options,
    cache_option,
    column_options,
    columns_of,
    data_argument,
    json_option,
    print_label_candidates,
)
from xmodal.cli.output import (
    epoch_line,
    info,
    print_json,
    print_line,
    print_problems,
    progress_bars,
    runnable,
)
from xmodal.config import DEFAULT_BACKBONE, PRECISIONS, Options, configure, parse_settings
from xmodal.data.readers.tables import read
from xmodal.errors import ConfigError, require


@click.command()
@data_argument
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@click.option("--method", default="schgan", show_default=True, help="Training method.")
@click.option("--bits", default=64, show_default=True, help="Width of the codes.")
@backbone_options(DEFAULT_BACKBONE)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="Of the backbones, in training and afterwards. bfloat16 changes codes.",
)
@column_options
@click.option("--label-share", default=1.0, show_default=True, help="Use this share of labels.")
@click.option("--query", default=0.1, show_default=True, help="Share kept for evaluation.")
@click.option("--validation", default=0.1, show_default=True, help="Share to choose the epoch by.")
@click.option("--seed", default=0, show_default=True, help="Same seed, same codes.")
@click.option("--split-seed", default=0, show_default=True, help="Which pairs are kept apart.")
@click.option("--patience", default=10, show_default=True, help="Epochs without gain, then stop.")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Method's setting.")
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(path_type=Path),
    help="Settings from a JSON file, such as the config.json of another encoder.",
)
@click.option("--restart", is_flag=True, help="Replace what is in --out.")
@click.option("--no-report", is_flag=True, help="Skip the measurement on the held-out queries.")
@cache_option
@json_option
def train(data: Path, **given: Any) -> None:
    """Train an encoder on DATA: a folder of pictures with captions, or a table.

    A stopped run goes on when the same command is given again.

    \b
    Example:
      xmodal train photos/ --out my.model
      xmodal train items.csv --out my.model --label-column category
      xmodal train items.csv --out my.model --image-backbone small-cnn --text-backbone words
    """
    require("xmodal train", "torch")
    options = configure(Options, {name: given[name] for name in Options.__dataclass_fields__})
    settings = _file_settings(given["settings_file"]) | parse_settings(given["assignments"])
    dataset = read(data, columns_of(given))
    info(f"{dataset.name}: {len(dataset):,} items, {len(dataset.pairs()):,} pairs")
    print_label_candidates(dataset, "trains on it")

    from xmodal.encoders.folder import REPORT, write_bytes
    from xmodal.evaluation.evaluate import evaluate
    from xmodal.features.cache import default_cache
    from xmodal.training.train import train as train_encoder

    cache = given["cache"] or default_cache()
    with progress_bars() as bars:
        encoder = train_encoder(
            dataset,
            given["out"],
            options,
            settings,
            cache=cache,
            restart=given["restart"],
            progress=bars,
            show=epoch_line,
        )
    print_problems(dataset.problems)
    figures = encoder.about["figures"]
    if not given["no_report"] and encoder.split.get("query"):
        report, _ = evaluate(encoder, dataset, cache=cache)
        text = report.to_json() + "\n"
        write_bytes(given["out"] / REPORT, text.encode())
        own = report.rows[f"xmodal {options.method}"]
        figures = figures | {way: round(values["mAP"], 4) for way, values in own.items()}
    summary = {"encoder": str(given["out"]), "fingerprint": encoder.fingerprint, **figures}
    if given["as_json"]:
        print_json(summary)
    else:
        print_line(f"{given['out']}: {encoder.bits} bits, encoder {encoder.fingerprint}")
        for name, value in figures.items():
            print_line(f"  {name}: {value}")
        info(f"next: {runnable('xmodal')} index {data} --model {given['out']} --index my.index")


def _file_settings(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"settings cannot be read from {path}: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no JSON object with settings")
    return dict(content.get("settings", content))
