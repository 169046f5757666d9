"""The encoder of a command: --engine, loading, and the portable encoder beside a trained one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmodal.cli.output import info, progress_bars, status
from xmodal.encoders.engine import ENGINES, portable_folder, portable_obstacle
from xmodal.encoders.folder import ONNX_ENCODER, encoder_format
from xmodal.encoders.providers import PROVIDERS
from xmodal.errors import ModelError, XmodalError

if TYPE_CHECKING:
    from xmodal.encoders.encoder import Encoder

CHECKED_ITEMS = 100
"""Rendered pictures and captions on which an export beside its encoder is compared with torch."""

CLUSTER = "ray"
"""Value of --engine for several processes and machines."""


def engine_option(*, cluster: bool = False) -> Callable[..., Any]:
    """Return the decorator of --engine and --provider; ``cluster``: with the value "ray"."""
    more = "; ray: auto, in several processes, see --address" if cluster else ""
    options = (
        click.option(
            "--provider",
            type=click.Choice(PROVIDERS),
            default="cpu",
            show_default=True,
            help="Processor or library by which onnx computes; its codes are compared with those "
            "of the CPU.",
        ),
        click.option(
            "--engine",
            type=click.Choice([*ENGINES, CLUSTER] if cluster else ENGINES),
            default="auto",
            show_default=True,
            help="Runtime of the encoder: torch, or onnx, which starts faster and needs no torch; "
            f"auto: onnx if the model has it, and torch to index on a GPU{more}.",
        ),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in options:
            command = option(command)
        return command

    return decorate


no_portable_option = click.option(
    "--no-portable",
    is_flag=True,
    envvar="XMODAL_NO_PORTABLE",
    help="Write no portable (ONNX) encoder, by which searches start faster, into the model.",
)


def load_encoder(
    model: Path, options: Mapping[str, Any], *, for_queries: bool = False, features: bool = False
) -> Encoder:
    """Load an encoder with the options --engine and those of backbones.

    ``for_queries``: see :func:`xmodal.load_encoder`; ``features``: features of a file are encoded,
    which only torch does. Raises the errors of :func:`xmodal.load_encoder`.
    """
    from xmodal.encoders.load import load_encoder as load

    engine = options.get("engine", "auto")
    with status(f"loading the encoder in {model}"):
        return load(
            model,
            image_backbone=options["image_backbone"],
            text_backbone=options["text_backbone"],
            trust_remote_code=options["trust_remote_code"],
            engine="torch" if features and engine == "auto" else engine,
            for_queries=for_queries,
            provider=options.get("provider", "cpu"),
        )


def complete_portable(model: Path, *, trust_remote_code: bool = False) -> None:
    """Write the portable encoder of the trained encoder in ``model`` unless it has one.

    ``trust_remote_code``: code that belongs to its backbones may run. Prints one line if that is
    not possible. Raises ModelError if ``model`` has no encoder.
    """
    if encoder_format(model) is ONNX_ENCODER:
        return
    try:
        if portable_folder(model) is not None:
            return
    except ModelError:  # a damaged one is written again
        pass
    reason = portable_obstacle(model)
    if reason is None:
        from xmodal.export import Check, write_portable

        info(f"writing the portable encoder of {model}, by which searches start faster")
        try:
            with progress_bars() as bars:
                write_portable(
                    model,
                    trust_remote_code=trust_remote_code,
                    check=Check(items=CHECKED_ITEMS),
                    progress=bars,
                )
            return
        except (XmodalError, OSError) as error:
            reason = " ".join(str(error).split())
    info(f"{model} has no portable encoder, searches import torch: {reason}")
