"""xmodal export"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import (
    backbone_options,
    column_options,
    json_option,
    model_option,
    read_with_training_labels,
)
from xmodal.cli.output import (
    info,
    print_json,
    print_line,
    print_table,
    progress_bars,
    runnable,
)
from xmodal.errors import ConfigError, require


@click.command()
@model_option
@click.option(
    "--onnx",
    "out",
    type=click.Path(path_type=Path),
    help="Folder to create [default: portable in the folder of the model, which is replaced].",
)
@click.option(
    "--ml-commons",
    "archive",
    type=click.Path(path_type=Path),
    metavar="FILE.zip",
    help="Write the text tower alone, as a model that OpenSearch runs itself (plugin ml-commons), "
    "and a .json file beside it. Needs a transformer of at most 512 tokens.",
)
@click.option(
    "--sentence-transformers",
    "sentence_folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Copy the portable encoder to a folder that SentenceTransformer loads as well.",
)
@click.option(
    "--hub",
    "hub_name",
    metavar="OWNER/NAME",
    help="Upload the portable encoder with its model card to the model hub; OWNER/NAME@BRANCH for "
    "another branch.",
)
@click.option("--private", is_flag=True, help="With --hub: a model that is created is private.")
@click.option(
    "--bits",
    type=int,
    help="With --onnx: only the first bits of each code, of a model that was trained with "
    "--set prefixes=64 or fewer.",
)
@click.option(
    "--int8",
    is_flag=True,
    help="Quantise weights to int8: a quarter of the size; some bits change.",
)
@click.option(
    "--check",
    "data",
    type=click.Path(path_type=Path),
    help="Compare codes on this folder or table [default: rendered pictures].",
)
@click.option("--items", default=500, show_default=True, help="Maximum number of items to compare.")
@click.option(
    "--restart",
    is_flag=True,
    help="Replace the folder or the file that is named when the new export is complete.",
)
@backbone_options(None)
@column_options
@json_option
def export(
    model: Path,
    out: Path | None,
    archive: Path | None,
    sentence_folder: Path | None,
    hub_name: str | None,
    data: Path | None,
    **params: Any,
) -> None:
    """Export a model to ONNX, for use without torch.

    Other commands use the result in the folder of the model by themselves; their --model accepts
    that of --onnx. Its codes are compared with those of torch. With labels (--label-column, or the
    label column of the training), mAP is compared as well. README.md in the folder is the model
    card.

    \b
    Example:
      xmodal export --model my.model
      xmodal export --model my.model --onnx my.onnx
      xmodal export --model my.model --onnx small.onnx --int8 --check photos/
      xmodal export --model my.model --onnx short.onnx --bits 64
      xmodal export --model my.model --ml-commons text.zip
      xmodal export --model my.model --sentence-transformers my.st
      xmodal export --model my.model --hub my-name/my-model
    """
    targets = (out, archive, sentence_folder, hub_name)
    if sum(target is not None for target in targets) > 1:
        raise ConfigError(
            "--onnx, --ml-commons, --sentence-transformers and --hub are different exports: run "
            "the command for each"
        )
    if params["bits"] is not None and out is None:
        raise ConfigError("--bits gives other codes than the model: name a folder with --onnx")
    if sentence_folder is not None or hub_name is not None:
        if data is not None or params["int8"]:
            raise ConfigError(
                "a portable encoder is copied as it is: leave --check and --int8 out, or make an "
                "int8 encoder with --onnx first"
            )
        if hub_name is not None:
            _push(model, hub_name, params)
        else:
            _export_sentence_folder(model, Path(str(sentence_folder)), params)
        return
    require("xmodal export", "export")
    if archive is not None:
        _export_text_tower(model, archive, params | {"data": data})
        return
    if out is None and params["int8"]:
        raise ConfigError("--int8 gives other codes than the model: name a folder with --onnx")
    dataset = None if data is None else read_with_training_labels(data, params, [model])

    from xmodal.export import Check, write_portable
    from xmodal.export import export as export_encoder

    with progress_bars() as bars:
        options: dict[str, Any] = {
            "check": Check(dataset, params["items"]),
            "image_backbone": params["image_backbone"],
            "text_backbone": params["text_backbone"],
            "trust_remote_code": params["trust_remote_code"],
            "progress": bars,
            "info": info,
        }
        encoder = (
            write_portable(model, **options)
            if out is None
            else export_encoder(
                model,
                out,
                bits=params["bits"],
                int8=params["int8"],
                restart=params["restart"],
                **options,
            )
        )
    named, out = out, encoder.folder
    about = encoder.about["export"]
    size = sum(path.stat().st_size for path in out.iterdir())
    if params["as_json"]:
        summary = {"encoder": str(out), "fingerprint": encoder.fingerprint, "bytes": size}
        print_json(summary | about)
        return
    print_line(
        f"{out}: {encoder.bits} bits, encoder {encoder.fingerprint}, {encoder.precision}, "
        f"{size / 1e6:.1f} MB"
    )
    rows = [["compared with", "modality", "equal bits", "equal codes", "items"]]
    for reference, modalities in about["agreement"].items():
        for modality, equal in modalities.items():
            shares = [f"{equal['bits']:.3%}", f"{equal['codes']:.1%}"]
            rows.append([reference, modality, *shares, str(equal["n"])])
    print_table(rows)
    for name, directions in about["mAP"].items():
        values = ", ".join(f"{direction} {value:.4f}" for direction, value in directions.items())
        print_line(f"mAP by {name}: {values}")
    info(
        f"next: {runnable('xmodal')} search WORDS --model {named or model} --index my.index; "
        f"the model card: {out}/README.md"
    )


def _export_sentence_folder(model: Path, folder: Path, params: dict[str, Any]) -> None:
    """Write the folder for sentence-transformers and print what it is."""
    from xmodal.integrations.sentence_folder import write_sentence_folder

    encoder = write_sentence_folder(model, folder, restart=params["restart"])
    if params["as_json"]:
        print_json(
            {
                "encoder": str(folder),
                "fingerprint": encoder.fingerprint,
                "bits": encoder.bits,
                "precision": encoder.precision,
            }
        )
        return
    print_line(f"{folder}: {encoder.bits} bits, encoder {encoder.fingerprint}, {encoder.precision}")
    info(
        f"next, in Python: SentenceTransformer({str(folder)!r}, trust_remote_code=True)"
        '.encode(["red shoes"], precision="ubinary")'
    )


def _push(model: Path, name: str, params: dict[str, Any]) -> None:
    """Upload the portable encoder and print the address of the commit."""
    from xmodal.encoders.engine import require_portable
    from xmodal.encoders.hub import HubName
    from xmodal.encoders.hub_push import push

    require("xmodal export --hub", "hub")
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    folder = require_portable(model)
    info(f"uploading {folder}")
    commit = push(folder, name, private=params["private"] or None)
    shown = HubName.parse(name)
    if params["as_json"]:
        print_json({"model": str(shown), "commit": commit})
        return
    print_line(f"{shown}: {commit}")
    info(f"next: {runnable('xmodal')} search WORDS --model {shown} --index my.index")


def _export_text_tower(model: Path, archive: Path, params: dict[str, Any]) -> None:
    """Write the archive of the text tower and print what it is.

    It has no comparison with torch: its codes are compared with those of the portable encoder.
    """
    if params["data"] is not None:
        raise ConfigError("--ml-commons does not compare on data: leave --check out")
    description = archive.with_suffix(".json")
    for path in (archive, description):
        if path.exists() and not params["restart"]:
            raise ConfigError(
                f"{path} exists already: name a new file, or replace it with --restart"
            )

    from xmodal.export.ml_commons import write_text_tower

    tower = write_text_tower(model, archive, int8=params["int8"])
    if params["as_json"]:
        summary = {"archive": str(tower.file), "description": str(description)}
        names = ("fingerprint", "bits", "precision", "max_tokens", "size", "sha256")
        print_json(summary | {name: getattr(tower, name) for name in names})
        return
    print_line(
        f"{tower.file}: text tower of {tower.bits} bits, encoder {tower.fingerprint}, "
        f"{tower.precision}, {tower.size / 1e6:.1f} MB; texts of up to {tower.max_tokens} tokens"
    )
    if tower.precision == "int8":
        info(
            "int8: these codes differ from those of the model, and only a cluster computes them: "
            "use an index of its own, whose documents the cluster encodes as well"
        )
    info(
        f"next: {runnable('xmodal-opensearch')} connect opensearch://localhost:9200/my-index "
        f"--in-cluster {tower.file}"
    )
