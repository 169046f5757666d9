"""xmodal evaluate"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from xmodal.cli.data import features_option, read_data
from xmodal.cli.encoder import engine_option, load_encoder
from xmodal.cli.options import (
    ModelFolder,
    backbone_options,
    cache_option,
    column_options,
    json_option,
    parse_split_map,
    print_label_candidates,
    read_with_training_labels,
    split_map_option,
    training_split_map,
)
from xmodal.cli.output import (
    info,
    print_json,
    print_problems,
    print_strategy,
    print_tables,
    progress_bars,
)
from xmodal.cli.sources import Data, data_argument
from xmodal.data.dataset import Dataset
from xmodal.data.split import check_split_map, with_roles
from xmodal.errors import ConfigError
from xmodal.index.contract import open_index
from xmodal.writing import check_target, write_text


@click.command()
@data_argument()
@click.option(
    "--model",
    "models",
    required=True,
    multiple=True,
    type=ModelFolder(),
    metavar="FOLDER|hf://NAME",
    help="Encoder; repeat it for encoders of other seeds: mean and deviation.",
)
@click.option("--index", "uri", help="Also compare an index of DATA with the evaluated codes.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the report (.json or .txt).")
@click.option("--trec", type=click.Path(path_type=Path), help="Write TREC files to this folder.")
@click.option(
    "--workbench",
    type=click.Path(path_type=Path),
    help="Write queries and judgments for OpenSearch's Search Relevance Workbench to this folder.",
)
@backbone_options(None)
@engine_option()
@features_option
@column_options
@split_map_option
@cache_option
@json_option
def evaluate(data: Data, models: tuple[Path, ...], **params: Any) -> None:
    """Evaluate encoders and baselines on query pairs of DATA, which training did not use.

    Captions: pictures of the query part are searched by its captions and the reverse; right are
    the captions of the picture itself. The table has R@1, R@5 and R@10 (% of the queries with a
    right result among the first 1, 5 and 10) and the median rank of the first right result. Labels,
    from --label-column or the label column of the training: a second table, in which results that
    share a label with the query are right, and training pairs are searched too.

    \b
    Example:
      xmodal evaluate photos/ --model my.model
      xmodal evaluate photos/ --model my.model --index opensearch://localhost:9200/photos
      xmodal evaluate items.csv --model seed0.model --model seed1.model --trec runs/
    """

    def read(source: Data, options: Any, **settings: Any) -> Dataset:
        return read_with_training_labels(source, options, models, **settings)

    given = read_data(data, params, read)
    dataset = given.dataset
    print_label_candidates(dataset, "measures by it")
    split_map = training_split_map(models) | parse_split_map(params["split_map"])
    check_split_map(dataset, parse_split_map(params["split_map"]))
    dataset = with_roles(dataset, split_map)
    names = [model.resolve().name for model in models]
    uri, out, trec = params["uri"], params["out"], params["trec"]
    workbench = params["workbench"]
    if (trec or workbench) and len(set(names)) < len(names):
        raise ConfigError(f"two models are called {max(names, key=names.count)}: rename a folder")
    if workbench and dataset.lazy is not None:
        raise ConfigError(f"--workbench needs texts, and {data} has features alone: leave it out")
    if uri and len(models) > 1:
        raise ConfigError("an index has the codes of one model: give --index with one --model")
    for file in (out, *(folder and folder / "file" for folder in (trec, workbench))):
        if file:
            check_target(file)  # before anything is computed

    from xmodal.evaluation.evaluate import evaluate as evaluate_encoders
    from xmodal.evaluation.index_check import check_index
    from xmodal.evaluation.trec import write_caption_trec, write_trec
    from xmodal.evaluation.workbench import write_workbench
    from xmodal.features.cache import default_cache

    features = given.features is not None
    encoders = [given.encoder(load_encoder(model, params, features=features)) for model in models]
    index = None
    if uri:
        index = open_index(uri, bits=encoders[0].bits, fingerprint=encoders[0].fingerprint)
        print_strategy(uri, index)
    with progress_bars() as bars:
        report, evaluated = evaluate_encoders(
            encoders, dataset, cache=params["cache"] or default_cache(), progress=bars
        )
    print_problems(dataset.problems)
    if index is not None:
        queries = evaluated[0].captions["query"].codes
        found = check_index(index, queries, evaluated[0].documents)
        report.facts["index"] = f"{uri}: {found}"
        index.close()
    if params["as_json"]:
        print_json(json.loads(report.to_json()), indent=1)
    else:
        print_tables(report.tables(), report.notes())
    if out:
        content = report.to_json() if out.suffix == ".json" else report.text()
        write_text(out, content + "\n")
        info(f"report: {out}")
    if trec:
        for name, one in zip(names, evaluated, strict=True):
            query = one.captions["query"]
            write_caption_trec(trec, name, query.units, query.codes)
            if one.by_labels is not None:
                write_trec(trec, name, *one.by_labels)
        info(f"TREC files: {trec}")
    if workbench:
        for name, one in zip(names, evaluated, strict=True):
            print_problems(write_workbench(workbench, name, one.captions["query"].units, dataset))
        info(f"query sets and judgments: {workbench}")
