"""xmodal train"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmodal.checksums import with_digest
from xmodal.cli.data import features_option, read_data
from xmodal.cli.encoder import complete_portable, no_portable_option
from xmodal.cli.epochs import EpochLines, print_baselines
from xmodal.cli.no_train import fit_without_training, print_fitted
from xmodal.cli.options import (
    backbone_options,
    cache_option,
    column_options,
    json_option,
    parse_split_map,
    print_label_candidates,
    split_map_option,
)
from xmodal.cli.output import (
    info,
    print_json,
    print_line,
    print_problems,
    progress_bars,
    runnable,
)
from xmodal.cli.settings_help import settings_help
from xmodal.cli.sources import Data, as_arguments, data_argument, is_features
from xmodal.cli.unpaired import left_out_line, unpaired_line, unpaired_options, with_unpaired
from xmodal.config import DEFAULT_BACKBONE, FEATURES, PRECISIONS, Options, configure, parse_settings
from xmodal.data.readers.columns import label_candidates
from xmodal.data.situation import recognise
from xmodal.data.split import check_split_map, with_roles
from xmodal.encoders.index_model import DEFAULT_MODEL
from xmodal.errors import ConfigError, require
from xmodal.writing import write_json

if TYPE_CHECKING:
    from xmodal.evaluation.report import Report

BUILTIN = {"small-cnn", "words"}
"""Built-in backbones, which are small and quick."""


@click.command(epilog=settings_help())
@data_argument()
@click.option(
    "--out",
    default=DEFAULT_MODEL,
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder to create.",
)
@click.option(
    "--method",
    default="auto",
    show_default=True,
    help="Training method; auto: schgan for data with labels, else contrastive.",
)
@click.option("--bits", default=256, show_default=True, help="Bits of a code.")
@click.option(
    "--negatives",
    type=click.Choice(["none", "policy", "semi-hard", "random"]),
    help="Additional hard negatives: those of SCH-GAN's policy, or of a rule.",
)
@click.option(
    "--fine-tune",
    metavar="text:N,image:N",
    help="Also train the last N blocks of the backbones; takes minutes instead of seconds.",
)
@click.option("--label-weight", type=float, help="Weight of the label terms.")
@backbone_options(DEFAULT_BACKBONE)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="Precision of the backbones; bfloat16 is faster and changes codes.",
)
@features_option
@unpaired_options
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
@click.option(
    "--no-train",
    is_flag=True,
    help="Fit a rotation to an aligned pair of backbones (CLIP, SigLIP); needs no captions.",
)
@click.option(
    "--restart", is_flag=True, help="Replace the folder --out when the new encoder is complete."
)
@no_portable_option
@click.option("--no-report", is_flag=True, help="Skip the evaluation on the held-out queries.")
@cache_option
@json_option
def train(data: Data, **params: Any) -> None:
    """Train an encoder on DATA: pictures with captions, or a table.

    To continue an interrupted training, run the same command again.

    \b
    Example:
      xmodal train photos/
      xmodal train photos/ --out my.model
      xmodal train items.csv --out my.model --label-column category
      xmodal train items.csv --out my.model --image-backbone small-cnn --text-backbone words
      xmodal train items.csv --out my.model --features features.npz
      xmodal train few.csv --out my.model --unpaired-images photos/ --unpaired-texts texts.txt
      xmodal train photos/ --out my.model --fine-tune text:2,image:1
      xmodal train photos/ --out my.model --no-train
    """
    require("xmodal train", "torch")
    params["split_map"] = parse_split_map(params["split_map"])
    if params["feature_files"] or is_features(data):
        params |= dict.fromkeys(_defaults("image_backbone", "text_backbone"), FEATURES)
    settings = _settings(params)
    options = configure(
        Options, {name: params[name] for name in Options.__dataclass_fields__ if name in params}
    )
    if params["no_train"]:
        _fit(data, params)
        return
    given = with_unpaired(read_data(data, params), params)
    dataset = given.dataset
    check_split_map(dataset, options.split_map)
    with_known_splits = with_roles(dataset, options.split_map)  # unknown ones are refused
    info(f"{dataset.name}: {len(dataset):,} items, {len(dataset.pairs()):,} pairs")
    info(recognise(dataset).line)
    print_label_candidates(dataset, "trains on it")
    from xmodal.encoders.folder import REPORT
    from xmodal.evaluation.evaluate import evaluate
    from xmodal.evaluation.explain import explain
    from xmodal.features.cache import default_cache
    from xmodal.training.train import resolve_method
    from xmodal.training.train import train as train_encoder

    contrastive = resolve_method(options.method, dataset) == "contrastive"
    tuned = settings.get("fine_tune", "none") != "none"
    unpaired = str(settings.get("unpaired", "auto")) if contrastive and not tuned else "none"
    if line := unpaired_line(dataset, unpaired, options.split_map):
        info(line)
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
            show=EpochLines(),
            features=given.features,
        )
    print_problems(dataset.problems)
    if line := left_out_line(encoder.about, params["out"]):
        info(line)
    figures = encoder.about["figures"]
    words: list[str] = []
    report: Report | None = None
    if not params["no_report"] and encoder.split.get("query"):
        report, _ = evaluate(given.encoder(encoder), with_known_splits, cache=cache)
        report.facts["situation"] = recognise(dataset).line
        write_json(params["out"] / REPORT, with_digest(json.loads(report.to_json())))
        figures = figures | report.headline()
        words = explain(
            report,
            trained=len(encoder.split["train"]),
            builtin=not {options.image_backbone, options.text_backbone}.isdisjoint(BUILTIN),
            label_columns=[] if dataset.label_column else list(label_candidates(dataset)),
        )
    if not params["no_portable"]:
        complete_portable(params["out"], trust_remote_code=params["trust_remote_code"])
    summary = {"encoder": str(params["out"]), "fingerprint": encoder.fingerprint, **figures}
    if params["as_json"]:
        print_json(summary)
    else:
        print_line(f"{params['out']}: {encoder.bits} bits, encoder {encoder.fingerprint}")
        for name, value in figures.items():
            print_line(f"  {name}: {value}")
        if report is not None:
            print_baselines(report)
        for line in words:
            print_line(line)
        _print_next(data, params["out"])


def _print_next(data: Data, out: Path) -> None:
    """Print the command that indexes the data."""
    options = "" if out == DEFAULT_MODEL else f" --model {out} --index my.index"
    info(f"next: {runnable('xmodal')} index {as_arguments(data)}{options}")


def _fit(data: Data, params: dict[str, Any]) -> None:
    """Fit an encoder without training, and print what was measured."""
    given = read_data(data, params)
    if given.features is not None:
        raise ConfigError(
            "--no-train needs an aligned pair of backbones, found features of a file: leave "
            "--features or --no-train out"
        )
    params |= dict.fromkeys(_defaults("image_backbone", "text_backbone", "bits"))
    fitted = fit_without_training(given.dataset, params["out"], params, restart=params["restart"])
    print_problems(given.dataset.problems)
    if not params["no_portable"]:
        complete_portable(params["out"], trust_remote_code=params["trust_remote_code"])
    encoder, report = fitted.encoder, fitted.report
    if params["as_json"]:
        summary = {"encoder": str(params["out"]), "fingerprint": encoder.fingerprint}
        print_json(summary | report)
        return
    print_line(f"{params['out']}: {encoder.bits} bits, encoder {encoder.fingerprint}")
    print_fitted(report)
    _print_next(data, params["out"])


def _defaults(*names: str) -> list[str]:
    """Return those parameters that the command line does not set."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return [name for name in names if context.get_parameter_source(name) is default]


def _settings(params: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a file, of --set, and of the options of single settings.

    A file that is the config.json of an encoder also decides the method, unless --method does.
    """
    content = _file_content(params["settings_file"])
    options = content.get("options")
    if isinstance(options, dict) and "method" in _defaults("method"):
        params["method"] = options.get("method", params["method"])
    settings = dict(content.get("settings", content)) | parse_settings(params["assignments"])
    single = {name: params[name] for name in ("negatives", "label_weight", "fine_tune")}
    return settings | {name: value for name, value in single.items() if value is not None}


def _file_content(path: Path | None) -> dict[str, Any]:
    """Read a JSON object with settings, or with a member "settings"."""
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--settings {path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"--settings {path}: expected a JSON object with settings")
    return content
