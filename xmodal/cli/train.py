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
    data_argument,
    json_option,
    parse_split_map,
    print_label_candidates,
    read_data,
    split_map_option,
)
from xmodal.cli.output import (
    info,
    print_epoch,
    print_json,
    print_line,
    print_problems,
    progress_bars,
    runnable,
)
from xmodal.config import DEFAULT_BACKBONE, PRECISIONS, Options, configure, parse_settings
from xmodal.data.situation import recognise
from xmodal.data.split import check_split_map, with_roles
from xmodal.errors import ConfigError, require


@click.command()
@data_argument
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to create.")
@click.option("--method", default="schgan", show_default=True, help="Training method.")
@click.option("--bits", default=64, show_default=True, help="Bits of a code.")
@backbone_options(DEFAULT_BACKBONE)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="Precision of the backbones; bfloat16 is faster and changes codes.",
)
@column_options
@split_map_option
@click.option("--label-share", default=1.0, show_default=True, help="Share of the labels to use.")
@click.option(
    "--query",
    default=0.1,
    show_default=True,
    help="Share of the pairs held out as queries of the evaluation.",
)
@click.option(
    "--validation",
    default=0.1,
    show_default=True,
    help="Share of the pairs that select the best epoch.",
)
@click.option(
    "--seed", default=0, show_default=True, help="Random seed; equal seeds give equal codes."
)
@click.option(
    "--split-seed",
    default=0,
    show_default=True,
    help="Random seed of the split into training, validation and queries.",
)
@click.option(
    "--patience", default=10, show_default=True, help="Epochs without improvement before stopping."
)
@click.option(
    "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Set a setting of the method."
)
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(path_type=Path),
    help="Read settings from a JSON file, for example config.json of another encoder.",
)
@click.option("--restart", is_flag=True, help="Overwrite the folder --out.")
@click.option("--no-report", is_flag=True, help="Skip the evaluation on the held-out queries.")
@cache_option
@json_option
def train(data: Path, **params: Any) -> None:
    """Train an encoder on DATA: pictures with captions, or a table.

    To continue an interrupted training, run the same command again.

    \b
    Example:
      xmodal train photos/ --out my.model
      xmodal train items.csv --out my.model --label-column category
      xmodal train items.csv --out my.model --image-backbone small-cnn --text-backbone words
    """
    require("xmodal train", "torch")
    params["split_map"] = parse_split_map(params["split_map"])
    options = configure(Options, {name: params[name] for name in Options.__dataclass_fields__})
    settings = _file_settings(params["settings_file"]) | parse_settings(params["assignments"])
    dataset = read_data(data, params)
    check_split_map(dataset, options.split_map)
    with_known_splits = with_roles(dataset, options.split_map)  # unknown ones are refused
    info(f"{dataset.name}: {len(dataset):,} items, {len(dataset.pairs()):,} pairs")
    info(recognise(dataset).line)
    print_label_candidates(dataset, "trains on it")

    from xmodal.encoders.folder import REPORT, write_bytes
    from xmodal.evaluation.evaluate import evaluate
    from xmodal.features.cache import default_cache
    from xmodal.training.train import train as train_encoder

    cache = params["cache"] or default_cache()
    with progress_bars() as bars:
        encoder = train_encoder(
            dataset,
            params["out"],
            options,
            settings,
            cache=cache,
            restart=params["restart"],
            progress=bars,
            show=print_epoch,
        )
    print_problems(dataset.problems)
    figures = encoder.about["figures"]
    if not params["no_report"] and encoder.split.get("query"):
        report, _ = evaluate(encoder, with_known_splits, cache=cache)
        text = report.to_json() + "\n"
        write_bytes(params["out"] / REPORT, text.encode())
        rows = report.rows[f"xmodal {options.method}"]
        figures = figures | {
            direction: round(values["mAP"], 4) for direction, values in rows.items()
        }
    summary = {"encoder": str(params["out"]), "fingerprint": encoder.fingerprint, **figures}
    if params["as_json"]:
        print_json(summary)
    else:
        print_line(f"{params['out']}: {encoder.bits} bits, encoder {encoder.fingerprint}")
        for name, value in figures.items():
            print_line(f"  {name}: {value}")
        info(f"next: {runnable('xmodal')} index {data} --model {params['out']} --index my.index")


def _file_settings(path: Path | None) -> dict[str, Any]:
    """Read settings from a JSON object, or from its member "settings"."""
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--settings {path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"--settings {path}: expected a JSON object with settings")
    return dict(content.get("settings", content))
