"""Items with their pictures, captions and labels.

An item has pictures, captions, or both (then it is a *pair*), optional labels, and any fields.
``labels is None`` means unlabelled, which differs from having none of the classes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xmodal.data.remote import address, is_remote
from xmodal.modality import Modality

Labels = tuple[str, ...] | None
"""Labels of an item, None for an unlabelled one."""


class FeatureName(str):
    """Stands for a picture or a caption of which nothing but its feature is known."""

    __slots__ = ()


ImageSource = Path | FeatureName
"""What a picture is read from."""


@dataclass(frozen=True)
class Item:
    """Pictures and captions of one thing; ``labels`` is None for an unlabelled item.

    ``fields`` are other values that an index stores; ``split`` is the name of a split, if the data
    has one. Items of equal ``group`` show the same thing; it is None until
    :func:`xmodal.data.groups.with_groups` sets it.
    """

    id: str
    images: tuple[ImageSource, ...] = ()
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    group: str | None = None

    def sources(self, modality: Modality) -> tuple[ImageSource, ...] | tuple[str, ...]:
        """Return the pictures or the captions."""
        return self.images if modality == "image" else self.captions

    def document(self) -> dict[str, Any]:
        """Return the fields to store in an index, with "text", "image" and "labels".

        "image" is the absolute path of the picture. "text" and "image" are one text if there is one
        caption or picture, lists if there are several, and missing if there is none.
        """
        own = {
            "text": _one_or_list(_without_names(self.captions)),
            "image": _one_or_list(list(map(absolute_path, _without_names(self.images)))),
            "labels": None if self.labels is None else list(self.labels),
        }
        return dict(self.fields) | {name: value for name, value in own.items() if value is not None}


def absolute_path(path: str | Path) -> str:
    """Return an absolute path, or the address of a remote one.

    Symbolic links are followed only if the path has ".." in it.
    """
    if is_remote(path):
        return address(path)
    with_parents = ".." in Path(path).parts
    return os.path.realpath(path) if with_parents else os.path.abspath(path)


def _without_names(sources: Sequence[Any]) -> list[Any]:
    return [source for source in sources if not isinstance(source, FeatureName)]


def _one_or_list(values: Sequence[str]) -> str | list[str] | None:
    return (values[0] if len(values) == 1 else list(values)) if values else None
