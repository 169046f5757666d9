"""Preprocessing of image processors of transformers and timm, and of torchvision's transforms.

A processor is a program: its fields do not say in which order they are used, nor how sizes and
offsets are rounded. Therefore it is run on a few pictures, and the preprocessing that its fields
suggest is only used if it gives the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from xmodal.data.preprocessing import Offset, Preprocessing, Resample
from xmodal.errors import ModelError

Process = Callable[[Image.Image], npt.NDArray[np.float32]]
"""Returns the input of a network for a picture, (3, height, width)."""

MAX_DIFFERENCE = 0.75
"""Mean difference of the pixels of a processor and of a preprocessing, of 255, if they are equal.
Processors round to whole numbers in other places; an offset of one pixel is a difference of 10."""
RESAMPLES: dict[int, Resample] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}
"""Names of the numbers that Pillow has for resampling."""
OFFSETS: tuple[Offset, ...] = ("floor", "round", "start")
ASPECTS = ((1.0, 1.0), (1.37, 1.91), (2.13, 1.19))
"""Sides (width, height) of the pictures on which a processor is run, of the network's input."""


def transformers_preprocessing(spec: str, processor: Any) -> Preprocessing:
    """Return the preprocessing of an image processor of transformers.

    Raises ModelError if none is known that gives the same pixels.
    """

    def process(image: Image.Image) -> npt.NDArray[np.float32]:
        pixels = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return np.asarray(pixels.float().numpy(), np.float32)

    name = type(processor).__name__
    if hasattr(processor, "val_transforms"):
        return verified(spec, name, process, _timm(processor.data_config))
    return verified(spec, name, process, _declared(processor))


def verified(
    spec: str, name: str, process: Process, candidates: Iterator[Preprocessing]
) -> Preprocessing:
    """Return the first candidate that gives the same pixels as ``process``; raise ModelError.

    ``name``: of the processor, for messages.
    """
    try:
        side = process(_picture(64, 64)).shape[-1]
        pictures = [_picture(round(side * w), round(side * h)) for w, h in ASPECTS]
        expected = [process(picture) for picture in pictures]
    except Exception as error:  # processors raise any type for fields that do not fit
        reason = " ".join(str(error).split())[:100]
        raise ModelError(
            f"the image processor of {spec} ({name}) fails: {reason}; expected one that resizes "
            "pictures to squares of one size: choose another backbone"
        ) from None
    shapes = {one.shape for one in expected}
    if shapes != {(3, side, side)}:
        raise ModelError(
            f"the image processor of {spec} ({name}) makes inputs of the sizes "
            f"{' and '.join(sorted(map(str, shapes)))}, expected squares of one size with 3 "
            "colours: choose another backbone"
        )
    differences = []
    try:
        for candidate in candidates:
            differences.append(_difference(candidate, pictures, expected))
            if differences[-1] < MAX_DIFFERENCE:
                return candidate
    except (AttributeError, KeyError, TypeError, ValueError):  # fields of unknown types
        pass
    found = f"the nearest differs by {min(differences):.1f} of 255" if differences else "none fits"
    raise ModelError(
        f"the image processor of {spec} ({name}) prepares pictures in a way that is not supported "
        f"({found}): choose another backbone"
    )


def earlier_preprocessing(processor: Any) -> Preprocessing | None:
    """Return the preprocessing of earlier versions, which read the fields alone; None without it.

    Encoders that were trained with it keep it.
    """

    def pixels(size: Any) -> int:
        values = dict(size) if not isinstance(size, int) else {"height": size}
        return int(next(v for k in ("shortest_edge", "height") if (v := values.get(k))))

    try:
        resized = pixels(processor.size)
        crops = bool(getattr(processor, "do_center_crop", False))
        crops = crops and processor.crop_size is not None
        size = pixels(processor.crop_size) if crops else resized
        keeps_shape = "shortest_edge" in dict(processor.size) if crops else False
        names: dict[int, Resample] = {0: "lanczos", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
        normalises = bool(getattr(processor, "do_normalize", True)) and processor.image_mean
        scale: dict[str, Any] = (
            {"mean": tuple(processor.image_mean), "std": tuple(processor.image_std)}
            if normalises
            else {}
        )
        return Preprocessing(
            size=size,
            fit="crop" if keeps_shape else "squash",
            share=size / resized if keeps_shape else 1.0,
            resample=names.get(int(getattr(processor, "resample", 3) or 3), "bicubic"),
            **scale,
        )
    except (AttributeError, KeyError, TypeError, ValueError, StopIteration):
        return None


def _declared(processor: Any) -> Iterator[Preprocessing]:
    """Yield what the fields of a processor of transformers may mean."""
    scale = _scale(processor)
    base = Preprocessing(
        size=1,
        fit="squash",
        resample=_resample(processor),
        by_rows=getattr(processor, "backend", None) == "torchvision",
        **scale,
    )
    for one in _geometries(processor, base):
        yield one
        if getattr(processor, "do_flip_channel_order", False):
            yield replace(one, bgr=True)


def _geometries(processor: Any, base: Preprocessing) -> Iterator[Preprocessing]:
    """Yield sizes and ways of resizing that a processor may mean, for ``base``."""
    size, crop = (_sides(getattr(processor, name, None)) for name in ("size", "crop_size"))
    edge = size.get("shortest_edge") or size.get("height") or 0
    side = crop.get("height") or edge
    share = getattr(processor, "crop_pct", None)
    if getattr(processor, "do_center_crop", False):
        for offset in OFFSETS[:2]:
            for fit in ("shortest", "squash"):
                yield replace(base, size=side, fit=fit, resized=edge, offset=offset)
                # LeViT resizes to this share of its field, MobileViT and others to the field.
                yield replace(base, size=side, fit=fit, resized=int(256 / 224 * edge))
    if share:
        yield replace(base, size=edge, fit="shortest", resized=int(edge / share))
        yield replace(base, size=side, fit="shortest", resized=int(edge / share))
    yield replace(base, size=edge, resized=edge)


def _sides(size: Any) -> dict[str, int]:
    """Return the sides that a field of a processor has; a number is a square."""
    if size is None:
        return {}
    values = {"height": size} if isinstance(size, int) else dict(size)
    return {str(name): int(value) for name, value in values.items() if value}


def _resample(processor: Any) -> Resample:
    value = getattr(processor, "resample", None)
    return "bicubic" if value is None else RESAMPLES.get(int(value), "bicubic")


def _scale(processor: Any) -> dict[str, Any]:
    """Return ``mean`` and ``std`` of pixels divided by 255, from the fields of a processor."""
    factor = processor.rescale_factor if getattr(processor, "do_rescale", True) else 1.0
    added = -1.0 if getattr(processor, "rescale_offset", False) else 0.0
    if added and factor:
        factor = processor.rescale_factor
    mean, std = np.zeros(3), np.ones(3)
    if getattr(processor, "do_normalize", False) and processor.image_mean is not None:
        mean, std = (np.broadcast_to(x, 3) for x in (processor.image_mean, processor.image_std))
    if abs(255 * factor - 1) > 1e-6 or added:
        mean, std = (mean - added) / (255 * factor), std / (255 * factor)
    if getattr(processor, "include_top", False):  # EfficientNet divides by its deviation twice
        std = std * np.asarray(processor.image_std)
    return {"mean": tuple(map(float, mean)), "std": tuple(map(float, std))}


def _timm(config: dict[str, Any]) -> Iterator[Preprocessing]:
    """Yield the preprocessing of a data configuration of timm."""
    size = int(config["input_size"][-1])
    share = float(config.get("crop_pct") or 0.875)
    fits = {"squash": "squash", "border": "longest"}
    fill = tuple(round(255 * value) for value in config["mean"])
    yield Preprocessing(
        size=size,
        fit=fits.get(config.get("crop_mode") or "center", "shortest"),  # type: ignore[arg-type]
        resized=int(size / share),
        resample=config["interpolation"],
        mean=tuple(map(float, config["mean"])),  # type: ignore[arg-type]
        std=tuple(map(float, config["std"])),  # type: ignore[arg-type]
        offset="round",
        fill=fill if config.get("crop_mode") == "border" else (0, 0, 0),
    )


def _difference(
    candidate: Preprocessing,
    pictures: list[Image.Image],
    expected: list[npt.NDArray[np.float32]],
) -> float:
    """Return the largest mean difference of pixels, of 255, over the pictures."""
    if candidate.size != expected[0].shape[-1]:
        return float("inf")
    mean, std = np.array(candidate.mean), np.array(candidate.std)
    found = []
    for picture, wanted in zip(pictures, expected, strict=True):
        pixels = candidate.pixels(picture)[..., :: -1 if candidate.bgr else 1]
        own = 255 * (np.moveaxis(wanted, 0, -1) * std + mean)
        found.append(float(np.abs(own - pixels).mean()))
    return max(found)


@lru_cache(maxsize=16)
def _picture(width: int, height: int) -> Image.Image:
    """Return a picture of blurred random colours."""
    rng = np.random.default_rng(width * 10_007 + height)
    small = rng.integers(0, 256, (max(2, height // 4), max(2, width // 4), 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
