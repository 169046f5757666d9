"""xmodal evaluate"""

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
    read_with_training_labels,
)
from xmodal.cli.output import (
    info,
    print_json,
    print_line,
    print_problems,
    print_strategy,
    print_table,
    progress_bars,
)
from xmodal.errors import ConfigError
from xmodal.index.contract import open_index


@click.command()
@data_argument
@click.option(
    "--model",
    "models",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of a trained encoder; several (other seeds) give mean and deviation.",
)
@click.option("--index", "uri", help="An index of DATA: check that it answers as measured.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the report (.json or .txt).")
@click.option("--trec", type=click.Path(path_type=Path), help="Write TREC run files here.")
@backbone_options(None)
@column_options
@cache_option
@json_option
def evaluate(data: Path, models: tuple[Path, ...], **given: Any) -> None:
    """Measure encoders on the queries of DATA, beside every baseline.

    Pairs that an encoder was trained on are searched in, but never asked with. Labels are read from
    --label-column, or from the label column of its training.

    \b
    Example:
      xmodal evaluate photos/ --model my.model
      xmodal evaluate photos/ --model my.model --index opensearch://localhost:9200/photos
      xmodal evaluate items.csv --model seed0.model --model seed1.model --trec runs/
    """
    dataset = read_with_training_labels(data, columns_of(given), models)
    print_label_candidates(dataset, "measures by it")
    names = [model.resolve().name for model in models]
    if given["trec"] and len(set(names)) < len(names):
        raise ConfigError(f"two models are called {max(names, key=names.count)}: rename a folder")
    if given["uri"] and len(models) > 1:
        raise ConfigError("an index holds the codes of one model: give --index with one --model")
    for folder in (given["out"] and given["out"].parent, given["trec"]):
        if folder:  # better before the work than after it
            folder.mkdir(parents=True, exist_ok=True)

    from xmodal.encoders.load import load_encoder
    from xmodal.evaluation.evaluate import check_index
    from xmodal.evaluation.evaluate import evaluate as measure
    from xmodal.evaluation.protocol import DIRECTIONS, trec_qrels, trec_run
    from xmodal.features.cache import default_cache

    backbones = {side: given[side] for side in ("image_backbone", "text_backbone")}
    encoders = [load_encoder(model, **backbones) for model in models]
    index = None
    if given["uri"]:
        first = encoders[0]
        index = open_index(given["uri"], bits=first.bits, encoder=first.fingerprint)
        print_strategy(given["uri"], index)
    with progress_bars() as bars:
        report, parts = measure(
            encoders, dataset, cache=given["cache"] or default_cache(), progress=bars
        )
    print_problems(dataset.problems)
    if index is not None:
        report.facts["index"] = f"{given['uri']}: {check_index(index, *parts[0])}"
        index.close()
    if given["as_json"]:
        print_json(json.loads(report.to_json()), indent=1)
    else:
        print_table(report.table(), report.title)
        print_line()
        for line in report.notes():
            print_line(line)
    if given["out"]:
        shown = report.to_json() if given["out"].suffix == ".json" else report.text()
        given["out"].write_text(shown + "\n", encoding="utf-8")
        info(f"report: {given['out']}")
    if given["trec"]:
        for model, (query, database) in zip(names, parts, strict=True):
            for ask, answer in DIRECTIONS:
                name = f"{model}.{ask}-{answer}"
                _write(given["trec"] / f"{name}.run", trec_run(query, database, ask, answer))
            _write(given["trec"] / f"{model}.qrels", trec_qrels(query, database))
        info(f"TREC files: {given['trec']}")


def _write(path: Path, lines: Any) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
