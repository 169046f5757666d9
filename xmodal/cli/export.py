"""xmodal export"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xmodal.cli.options import (
    backbone_options,
    column_options,
    columns_of,
    json_option,
    model_option,
    read_labelled_as_trained,
)
from xmodal.cli.output import info, print_json, print_line, print_table, progress_bars, runnable
from xmodal.errors import require


@click.command()
@model_option
@click.option(
    "--onnx", "out", required=True, type=click.Path(path_type=Path), help="Folder to make."
)
@click.option("--int8", is_flag=True, help="A quarter of the size; some bits change.")
@click.option(
    "--check",
    "data",
    type=click.Path(path_type=Path),
    help="Compare on items of this folder or table [default: rendered pictures].",
)
@click.option("--items", default=500, show_default=True, help="Compare on at most so many.")
@backbone_options(None)
@column_options
@json_option
def export(model: Path, out: Path, data: Path | None, **given: Any) -> None:
    """Make a portable model: ONNX graphs that need onnxruntime, and no torch.

    search, index, serve, encode and evaluate take it as they take any model. Its codes are compared
    with those of torch, and the folder's README.md is its model card. With --check and labels (from
    --label-column, or the label column of the training), mAP is measured as well.

    \b
    Example:
      xmodal export --model my.model --onnx my.onnx
      xmodal export --model my.model --onnx small.onnx --int8 --check photos/
    """
    require("xmodal export", "export")
    dataset = None if data is None else read_labelled_as_trained(data, columns_of(given), [model])

    from xmodal.export import Check
    from xmodal.export import export as write

    with progress_bars() as bars:
        encoder = write(
            model,
            out,
            int8=given["int8"],
            check=Check(dataset, given["items"]),
            image_backbone=given["image_backbone"],
            text_backbone=given["text_backbone"],
            progress=bars,
            info=info,
        )
    found = encoder.about["export"]
    size = sum(path.stat().st_size for path in out.iterdir())
    if given["as_json"]:
        told = {"encoder": str(out), "fingerprint": encoder.fingerprint, "bytes": size}
        print_json(told | found)
        return
    print_line(
        f"{out}: {encoder.bits} bits, encoder {encoder.fingerprint}, {encoder.precision}, "
        f"{size / 1e6:.1f} MB"
    )
    rows = [["compared with", "side", "equal bits", "equal codes", "items"]]
    for other, sides in found["agreement"].items():
        for side, one in sides.items():
            rows.append([other, side, f"{one['bits']:.3%}", f"{one['codes']:.1%}", str(one["n"])])
    print_table(rows)
    for name, ways in found["mAP"].items():
        shown = ", ".join(f"{way} {value:.4f}" for way, value in ways.items())
        print_line(f"mAP by {name}: {shown}")
    info(
        f"next: {runnable('xmodal')} search WORDS --model {out} --index my.index; "
        f"the model card: {out}/README.md"
    )
