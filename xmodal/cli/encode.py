"""The command xmodal encode."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from xmodal.cli.cluster import check_cluster_options, cluster_options, encode_on_cluster
from xmodal.cli.data import features_option, read_data
from xmodal.cli.encoder import CLUSTER, engine_option, load_encoder
from xmodal.cli.options import (
    backbone_options,
    cache_option,
    column_options,
    json_option,
    model_option,
    no_vectors_option,
    source_option,
)
from xmodal.cli.output import print_json, print_line, print_problems, progress_bars
from xmodal.cli.parts import encode_part
from xmodal.cli.sources import Data, data_argument, is_features
from xmodal.data.dataset import Dataset
from xmodal.data.remote import is_remote
from xmodal.data.sharding import Shard
from xmodal.errors import ConfigError
from xmodal.index.parts.part import ENDING
from xmodal.retrieval.query import check_unicode
from xmodal.writing import atomic_write, check_target

if TYPE_CHECKING:
    from xmodal.encoders.encoder import Encoder


@click.command()
@data_argument(required=False)
@model_option
@click.option("--text", "texts", multiple=True, help="Encode this text; may be repeated.")
@click.option("--image", "images", multiple=True, help="Encode this picture; may be repeated.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write the codes of DATA: an .npz file, or a part: a .parquet file, or a folder of parts.",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Encode only shard I, from 1 to N, into a part [default: 1/1].",
)
@source_option
@no_vectors_option
@click.option("--margins", is_flag=True, help="Count the bits of DATA that are near the threshold.")
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    help="Print the share of bits equal to those in a file that --out wrote elsewhere.",
)
@backbone_options(None)
@features_option
@column_options
@cache_option
@engine_option(cluster=True)
@cluster_options
@json_option
def encode(
    data: Data | None,
    model: Path,
    texts: tuple[str, ...],
    images: tuple[str, ...],
    out: Path | None,
    **options: Any,
) -> None:
    """Print codes of single texts and pictures in hexadecimal, or write those of DATA.

    A part (.parquet) has the documents of DATA, or of a shard of it, for xmodal index and
    xmodal-opensearch load. Encoding of a part streams: memory does not grow with DATA. A complete
    part of the same model and files is skipped. "*" in its name stands for the shard. DATA and
    parts may be on remote file systems: s3://bucket/photos.

    The .npz file of DATA has the arrays bits, image_codes, image_ids, image_positions, text_codes,
    text_ids and text_positions. Each code has the id of its item and the position, from 0, of its
    picture or text in the item. Codes are packed bits, most significant bit first.

    \b
    Example:
      xmodal encode --model my.model --text "red shoes" --image a.jpg
      xmodal encode photos/ --model my.model --out parts/ --shard 3/16
      xmodal encode s3://a/items.jsonl --model my.model --out s3://a/parts --engine ray
      xmodal encode photos/ --model my.model --out codes.npz
      xmodal encode photos/ --model my.model --out codes.npz --margins --compare other.npz
      xmodal encode --features features.npz --model my.model --out codes.npz
    """
    has_data = data is not None or bool(options["feature_files"])
    if has_data != (out is not None) or not (has_data or texts or images):
        raise ConfigError("give DATA with --out, or --text, or --image: see xmodal encode --help")

    if out is None and (options["margins"] or options["compare"]):
        raise ConfigError("--margins and --compare are for the codes of DATA: add DATA and --out")

    on_cluster = options["engine"] == CLUSTER
    check_cluster_options(options, cluster=on_cluster)
    to_part = out is not None and (
        on_cluster or options["shard"] is not None or _is_place_of_parts(out)
    )
    if to_part and (texts or images or options["margins"] or options["compare"]):
        raise ConfigError("a part is written without --text, --image, --margins and --compare")
    if not to_part and (options["source"] or options["no_vectors"]):
        raise ConfigError(
            "--source and --no-vectors are for parts: add --shard, or --out x.parquet"
        )
    if on_cluster:
        if data is None or out is None:
            raise ConfigError("--engine ray writes parts of DATA: add DATA and --out")
        encode_on_cluster(model, data, out, options)
        return
    if out is not None and to_part:
        encode_part(model, data, out, Shard.parse(options["shard"] or "1/1"), options)
        return
    features = bool(options["feature_files"]) or is_features(data)
    encoder = load_encoder(model, options, for_queries=not has_data, features=features)
    if out:
        check_target(out)  # before the codes are computed
    _print_codes(encoder, list(texts), list(images), options["as_json"])
    if out is not None:
        given = read_data(data, options)
        _write_codes(given.encoder(encoder), given.dataset, out, options)


def _is_place_of_parts(out: Path) -> bool:
    return is_remote(out) or out.is_dir() or out.suffix.lower() == ENDING


def _print_codes(encoder: Encoder, texts: list[str], images: list[str], as_json: bool) -> None:
    """Print one code a line, those of the texts first."""
    lines: list[dict[str, str]] = []
    for text in texts:
        check_unicode(text)
    if texts:
        codes = encoder.encode_texts(texts).to_hex()
        lines += [{"text": text, "code": code} for text, code in zip(texts, codes, strict=True)]
    if images:
        codes = encoder.encode_images(images).to_hex()
        lines += [{"image": path, "code": code} for path, code in zip(images, codes, strict=True)]
    for line in lines:
        if as_json:
            print_json(line)
        else:
            print_line(line["code"])


def _write_codes(encoder: Encoder, dataset: Dataset, out: Path, options: Mapping[str, Any]) -> None:
    """Write the codes of a dataset to an .npz file, which is replaced at once when complete."""
    from xmodal.encoders.agreement import compare_codes, count_near_threshold, to_arrays
    from xmodal.features.cache import default_cache

    cache = options["cache"] or default_cache()
    with progress_bars() as bars:
        codes = encoder.encode_data(dataset, cache=cache, progress=bars)
    arrays = to_arrays(codes, encoder.bits)
    agreement = compare_codes(arrays, options["compare"]) if options["compare"] else {}
    margins = count_near_threshold(encoder, dataset, cache) if options["margins"] else {}
    with atomic_write(out) as file:
        np.savez(file, **arrays)
    print_problems(dataset.problems)
    counts = ", ".join(f"{len(one.codes):,} {modality} codes" for modality, one in codes.items())
    print_line(f"{out}: {counts}")
    for modality, one in agreement.items():
        print_line(
            f"{modality}: {one.bits:.4%} of bits and {one.codes:.2%} of codes equal to "
            f"{options['compare']} ({one.n:,} codes)"
        )
    for modality, (near, total) in margins.items():
        print_line(
            f"{modality}: {near:,} of {total:,} bits ({near / max(total, 1):.4%}) are within 1e-4 "
            "of the threshold and may differ on another machine"
        )
