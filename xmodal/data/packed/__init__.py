"""Pictures inside of files that hold several: tar archives, Parquet and Arrow tables.

Such a picture has a *virtual path*: the path of its container, followed by its place inside, as if
the container were a folder: ``shards/00000.tar/000123.jpg``, ``train.parquet/image/17`` (column,
row from 0), ``train.parquet/image/17/2`` for the third of a list of pictures.
"""

from xmodal.data.packed.names import PackedName, container_ending, container_of
from xmodal.data.packed.pictures import (
    MAX_PICTURE_BYTES,
    is_picture_file,
    open_picture,
    picture_stat,
    read_picture,
)

__all__ = [
    "MAX_PICTURE_BYTES",
    "PackedName",
    "container_ending",
    "container_of",
    "is_picture_file",
    "open_picture",
    "picture_stat",
    "read_picture",
]
