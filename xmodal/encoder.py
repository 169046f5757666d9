"""An encoder: what turns pictures and sentences into codes, whatever computes it.

:func:`xmodal.load_encoder` gives the one that a folder holds: a :class:`~xmodal.trained.
TrainedEncoder`, which torch computes, or a :class:`~xmodal.portable.PortableEncoder`, for which
onnxruntime is enough. Both are used alike. A folder has

    config.json           what it is; it is written last, so a folder that has it is complete
    split.json            the ids it was trained on, chosen by, and must be asked with
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from xmodal.codes import BinaryCodes
from xmodal.confidence import Confidence
from xmodal.data import Dataset, Problems
from xmodal.errors import CodeError, ModelError
from xmodal.features import Array, Progress, Usable, keep_rows, pair_sources
from xmodal.images import Source
from xmodal.index import MODALITIES, Addition, Modality

CONFIG, SPLIT = "config.json", "split.json"
HISTORY, CHECKPOINT = "history.jsonl", "checkpoint.pt"
DAMAGE = (AttributeError, LookupError, TypeError, ValueError, OSError, RuntimeError, CodeError)
"""What reading a file that is not as it was written may raise."""


class Encoded(NamedTuple):
    """What an encoder makes of ``n`` sources; rows of those that cannot be used say nothing.

    ``usable`` (n,); ``features`` (n, dim): what the backbone saw, float16 of length 1 or pixels.
    """

    codes: BinaryCodes
    usable: Usable
    features: Array


class Encoder(ABC):
    """Turns pictures and sentences into codes.

    ``confidence``: from distance to the probability of a match. ``about`` holds what a person may
    want to know: method, settings, data, figures. ``split``: the ids of each part of its data.
    """

    confidence: Confidence
    about: dict[str, Any]
    split: Mapping[str, Sequence[str]]

    @property
    @abstractmethod
    def bits(self) -> int:
        """Width of the codes."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """16 hexadecimal digits: a hash of everything that decides a code."""

    @property
    @abstractmethod
    def shared_space(self) -> bool:
        """Whether the features of pictures and texts may be compared with each other."""

    @abstractmethod
    def encode(
        self,
        side: Modality,
        sources: Sequence[Any],
        *,
        cache: Path | None = None,
        problems: Problems | None = None,
        progress: Progress | None = None,
    ) -> Encoded:
        """Codes of ``n`` pictures or texts, which of them could be used, and their features.

        What cannot be used is noted in ``problems``; without ``problems`` the first one raises
        DataError.
        """

    def encode_images(self, images: Sequence[Source], *, cache: Path | None = None) -> BinaryCodes:
        """Codes of ``n`` pictures (paths, bytes or PIL images). Raises DataError for a bad one."""
        return self.encode("image", images, cache=cache).codes

    def encode_texts(self, texts: Sequence[str], *, cache: Path | None = None) -> BinaryCodes:
        """Codes of ``n`` texts. Raises DataError for one in which there is nothing to read."""
        return self.encode("text", texts, cache=cache).codes

    def encode_data(
        self,
        data: Dataset,
        *,
        cache: Path | None = None,
        problems: Problems | None = None,
        progress: Progress | None = None,
    ) -> dict[Modality, tuple[list[str], BinaryCodes]]:
        """Ids and codes of all pictures and all texts; what cannot be used goes to ``problems``."""
        noted = problems if problems is not None else data.problems
        out: dict[Modality, tuple[list[str], BinaryCodes]] = {}
        for side in MODALITIES:
            items = [item for item in data if getattr(item, side) is not None]
            if not items:  # a side that nobody has is not even loaded
                out[side] = [], BinaryCodes.empty(self.bits)
                continue
            sources = [getattr(item, side) for item in items]
            found = self.encode(side, sources, cache=cache, problems=noted, progress=progress)
            ids = [item.id for item, good in zip(items, found.usable, strict=True) if good]
            out[side] = ids, found.codes[found.usable]
        return out

    def encode_pairs(
        self, pairs: Dataset, *, cache: Path | None = None, progress: Progress | None = None
    ) -> tuple[Dataset, dict[Modality, Encoded]]:
        """The pairs whose picture and text can be used, and both sides of them; rows fit together.

        The others are noted in ``pairs.problems``.
        """
        work = {"cache": cache, "problems": pairs.problems, "progress": progress}
        found: dict[Modality, Encoded] = {
            side: self.encode(side, sources, **work)  # type: ignore[arg-type]
            for side, sources in pair_sources(pairs).items()
        }
        good = found["image"].usable & found["text"].usable
        kept: dict[Modality, Encoded] = {
            side: Encoded(one.codes[good], one.usable[good], one.features[good])
            for side, one in found.items()
        }
        return keep_rows(pairs, good), kept

    def additions(
        self,
        data: Dataset,
        *,
        cache: Path | None = None,
        progress: Progress | None = None,
        size: int = 4096,
    ) -> Iterator[Addition]:
        """``encode_data`` in a form that an index can add, at most ``size`` items at a time.

        Items come grouped by the sides they have, because one addition has one shape.
        """
        codes = self.encode_data(data, cache=cache, progress=progress)
        rows = {side: {id_: row for row, id_ in enumerate(ids)} for side, (ids, _) in codes.items()}
        for sides in (("image", "text"), ("image",), ("text",)):
            items = [i for i in data if tuple(s for s in MODALITIES if i.id in rows[s]) == sides]
            for start in range(0, len(items), size):
                part = items[start : start + size]
                taken = {
                    side: codes[side][1][[rows[side][item.id] for item in part]]
                    if side in sides
                    else None
                    for side in MODALITIES
                }
                yield Addition(
                    [item.id for item in part],
                    taken["image"],
                    taken["text"],
                    [item.document() for item in part],
                )


def read_config(folder: Path) -> dict[str, Any]:
    """What ``config.json`` of an encoder's folder says. Raises ModelError if there is none."""
    path = folder / CONFIG
    if not path.is_file():
        hint = (
            "training there was stopped: run the same xmodal train again to go on"
            if (folder / CHECKPOINT).exists()
            else f"make one with xmodal train DATA --out {folder}"
        )
        raise ModelError(f"there is no finished encoder at {folder}: {hint}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise TypeError("config.json holds no object")
    except DAMAGE as error:
        raise damaged(folder, error, "train again") from None
    return config


def read_curve(told: Mapping[str, Any], bits: int) -> Confidence:
    """The curve of confidence, as a config says it."""
    return Confidence(float(told["slope"]), float(told["offset"]), bits)


def read_split(folder: Path) -> dict[str, list[str]]:
    """The ids of each part; nothing where there is no such file."""
    path = folder / SPLIT
    parts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {role: list(ids) for role, ids in parts.items()}


def damaged(folder: Path, error: Exception, advice: str) -> ModelError:
    """One line about files that are not as they were written."""
    reason = " ".join(str(error).split())[:160]
    return ModelError(f"the encoder in {folder} is damaged ({reason}): {advice}")


def write_json(path: Path, content: Any) -> None:
    """Write a file; after a kill at any moment it is the old one or the new."""
    new = path.with_name(f"{path.name}.new")
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
