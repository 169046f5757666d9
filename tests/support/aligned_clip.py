"""A tiny CLIP whose two towers agree on coloured shapes, and pictures of such shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from support.tiny_models import save_clip

COLOURS = {"red": (220, 30, 30), "green": (30, 190, 40), "blue": (40, 60, 220), "black": (0, 0, 0)}
KINDS = ["a red circle", "a green square", "a blue triangle", "a black bar"]


def write_shapes(folder: Path, count: int, *, captions: bool, seed: int = 0) -> list[str]:
    """Write ``count`` pictures, "0.png" and so on, and caption files; return the captions."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    texts = []
    for number in range(count):
        text = KINDS[number % len(KINDS)]
        texts.append(text)
        _draw(text, rng).save(folder / f"{number}.png")
        if captions:
            (folder / f"{number}.txt").write_text(text)
    return texts


def _draw(text: str, rng: np.random.Generator) -> Image.Image:
    _, colour, shape = text.split()
    image = Image.new("RGB", (32, 32), tuple(rng.integers(200, 256, 3).tolist()))
    side = int(rng.integers(14, 22))
    x, y = (int(value) for value in rng.integers(0, 32 - side, 2))
    draw, fill = ImageDraw.Draw(image), COLOURS[colour]
    if shape == "circle":
        draw.ellipse((x, y, x + side, y + side), fill=fill)
    elif shape == "triangle":
        draw.polygon([(x, y + side), (x + side, y + side), (x + side // 2, y)], fill=fill)
    else:
        height = side if shape == "square" else side // 2
        draw.rectangle((x, y, x + side, y + height), fill=fill)
    return image


def save_aligned_clip(folder: Path, *, steps: int = 60) -> Path:
    """Save the CLIP of :func:`support.tiny_models.save_clip`, trained on random shapes."""
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    save_clip(folder, texts=KINDS)
    model = CLIPModel.from_pretrained(folder).train()
    processor, tokenizer = (
        kind.from_pretrained(folder) for kind in (CLIPImageProcessor, AutoTokenizer)
    )
    tokens = dict(tokenizer(KINDS, padding=True, return_tensors="pt"))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = np.random.default_rng(1)
    for _ in range(steps):
        pictures = [_draw(text, rng) for text in KINDS * 4]
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
        logits = model(pixel_values=pixels, **tokens).logits_per_image
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(KINDS)).repeat(4))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval().save_pretrained(folder)
    return folder
