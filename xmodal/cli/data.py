"""Data of a command: DATA, features of --features, or both; DATA may be a file of features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmodal.cli.options import columns_of, read_items
from xmodal.cli.sources import Data, is_features
from xmodal.data.dataset import Dataset
from xmodal.data.feature_file import read_feature_file
from xmodal.errors import ConfigError

if TYPE_CHECKING:
    from xmodal.encoders.encoder import Encoder
    from xmodal.features.from_file import FileSource

features_option = click.option(
    "--features",
    "feature_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Features in place of backbones: .npz, .mat, .parquet, or twice .npy (pictures, texts).",
)


@dataclass(frozen=True)
class CommandData:
    """Items, and the source of their features if they come from a file."""

    dataset: Dataset
    features: FileSource | None = None

    def encoder(self, encoder: Encoder) -> Encoder:
        """Return the encoder, or one that looks the features up in the file."""
        if self.features is None:
            return encoder
        from xmodal.encoders.feature_encoder import FeatureEncoder

        return FeatureEncoder(encoder, self.features)


def read_data(
    data: Data | None,
    options: Mapping[str, Any],
    read: Callable[..., Dataset] = read_items,
) -> CommandData:
    """Read DATA and the files of --features; ``read`` reads other data than features.

    With features, rows of a table need no picture file. Raises ConfigError without any of both,
    and the errors of the readers.
    """
    files: tuple[Path, ...] = options["feature_files"]
    if is_features(data) and isinstance(data, Path):
        if files:
            raise ConfigError(f"DATA is {data}, a file of features: leave --features out")
        files, data = (data,), None
    if not files:
        if data is None:
            raise ConfigError("there is no DATA and no --features, expected one of them")
        return CommandData(read(data, options))

    from xmodal.features.from_file import with_features

    file = read_feature_file(files)
    if data is None:
        dataset = file.dataset(columns_of(options).label)
    else:
        dataset = read(data, options, need_pictures=False)
    return CommandData(*with_features(dataset, file))
