"""Tiny models with random weights of the families that people have, and their own vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from support.tiny_models import TEXTS as TRAINED
from support.tiny_models import tokenizer

Array = npt.NDArray[np.float32]

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
VISION = SIZES | {"image_size": 32, "patch_size": 8}
SQUARE = {"size": {"height": 32, "width": 32}}
CUT = {"size": {"shortest_edge": 37}, "crop_size": {"height": 32, "width": 32}}
SIDES = ((40, 30), (75, 131), (301, 97), (32, 32), (33, 64), (20, 211))
"""Sizes of pictures: upright and wide, larger and smaller than the input, and equal to it."""
TEXTS = (
    *TRAINED,
    "A Red CIRCLE  on the left ",
    "dogs " * 100,
    "x",
    "Stra\u00dfe \U0001f355 \u8d64\u3044\u5186 e\u0301",
)


def pictures() -> list[Image.Image]:
    """Pictures of blurred random colours, one of each size in SIDES."""
    rng = np.random.default_rng(0)
    found = []
    for width, height in SIDES:
        small = rng.integers(0, 256, (height // 5 + 2, width // 5 + 2, 3), dtype=np.uint8)
        found.append(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    return found


def smallest_cosine(a: Array, b: Array) -> float:
    """Smallest cosine of the rows of a and b."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / lengths).min())


def bert_tokenizer(limit: int = 24, **options: Any) -> Any:
    """A tokenizer with special tokens at the start and end of a text."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    inner = tokenizer(special=["[PAD]", "[CLS]", "[SEP]", "[UNK]"])
    inner.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    named = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="[UNK]",
        model_max_length=limit,
        **(named | options),
    )


def end_tokenizer(limit: int = 24, **options: Any) -> Any:
    """A tokenizer with a special token at the end of a text alone, as that of T5."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    inner = tokenizer(special=["<pad>", "</s>", "<unk>"])
    inner.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=limit, **(named | options)
    )


def clip_tokenizer(limit: int = 16) -> Any:
    """A tokenizer with the start and the end of a text, as that of CLIP."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    inner = tokenizer(special=["<start>", "<end>", "<unk>"])
    inner.post_processor = TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=limit,
        bos_token="<start>",
        eos_token="<end>",
        pad_token="<end>",
        unk_token="<unk>",
    )


def save(folder: Path, *parts: Any) -> Path:
    """Save models, tokenizers and processors into a folder."""
    for part in parts:
        part.save_pretrained(folder)
    return folder


# ---- pictures --------------------------------------------------------------------------------


def _vision() -> dict[str, Callable[[], tuple[Any, Any]]]:
    """Vision models and their processors, by name."""
    import transformers as T

    stages = {"hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]}

    def vit(**processor: Any) -> Callable[[], tuple[Any, Any]]:
        return lambda: (
            T.ViTModel(T.ViTConfig(**VISION)),
            T.CLIPImageProcessor(**({"do_center_crop": False} | SQUARE | processor)),
        )

    return {
        "vit": vit(),
        "vit without scaling": vit(do_rescale=False, do_normalize=False),
        "vit, other scale": vit(rescale_factor=1 / 127.5, image_mean=[0.4, 0.5, 0.6]),
        "vit, nearest": vit(resample=0),
        "vit, lanczos": vit(resample=1),
        "vit, smaller than the cut": vit(
            size={"shortest_edge": 24}, crop_size=32, do_center_crop=True
        ),
        "vit, squashed and cut": vit(
            size={"height": 37, "width": 37}, crop_size=32, do_center_crop=True
        ),
        "deit": lambda: (
            T.DeiTModel(T.DeiTConfig(**VISION)),
            T.DeiTImageProcessor(size={"height": 37, "width": 37}, crop_size=SQUARE["size"]),
        ),
        "beit": lambda: (T.BeitModel(T.BeitConfig(**VISION)), T.BeitImageProcessor(**SQUARE)),
        "convnext": lambda: (
            T.ConvNextModel(T.ConvNextConfig(**stages)),
            T.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875),
        ),
        "convnext, large": lambda: (
            T.ConvNextModel(T.ConvNextConfig(**stages)),
            T.ConvNextImageProcessor(size={"shortest_edge": 384}),
        ),
        "dinov2": lambda: (
            T.Dinov2Model(T.Dinov2Config(**VISION)),
            T.BitImageProcessor(**CUT),
        ),
        "dinov3": lambda: (
            T.DINOv3ViTModel(T.DINOv3ViTConfig(**VISION)),
            T.DINOv3ViTImageProcessor(**SQUARE),
        ),
        "swin": lambda: (
            T.SwinModel(
                T.SwinConfig(
                    image_size=32,
                    patch_size=4,
                    embed_dim=8,
                    depths=[1, 1],
                    num_heads=[2, 2],
                    window_size=4,
                )
            ),
            T.ViTImageProcessor(**SQUARE),
        ),
        "resnet": lambda: (
            T.ResNetModel(T.ResNetConfig(embedding_size=8, **stages)),
            T.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.95),
        ),
        "regnet": lambda: (
            T.RegNetModel(T.RegNetConfig(embedding_size=8, groups_width=8, **stages)),
            T.ConvNextImageProcessor(size={"shortest_edge": 32}),
        ),
        "mobilevit": lambda: (
            T.MobileViTModel(
                T.MobileViTConfig(
                    hidden_sizes=[8, 8, 8],
                    neck_hidden_sizes=[4, 4, 8, 8, 8, 8, 16],
                    num_attention_heads=2,
                    image_size=32,
                )
            ),
            T.MobileViTImageProcessor(size={"shortest_edge": 37}, crop_size=SQUARE["size"]),
        ),
        "mobilenet": lambda: (
            T.MobileNetV2Model(T.MobileNetV2Config(depth_multiplier=0.1, image_size=32)),
            T.MobileNetV2ImageProcessor(size={"shortest_edge": 37}, crop_size=SQUARE["size"]),
        ),
        "efficientnet": lambda: (
            T.EfficientNetModel(
                T.EfficientNetConfig(
                    image_size=32, width_coefficient=0.1, depth_coefficient=0.1, hidden_dim=128
                )
            ),
            T.EfficientNetImageProcessor(**SQUARE, rescale_offset=True),
        ),
        "levit": lambda: (
            T.LevitModel(
                T.LevitConfig(
                    image_size=64,
                    hidden_sizes=[8, 8, 16],
                    num_attention_heads=[1, 1, 2],
                    depths=[1, 1, 1],
                    key_dim=[4, 4, 4],
                )
            ),
            T.LevitImageProcessor(
                size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}
            ),
        ),
        "clip_vision": lambda: (
            T.CLIPVisionModel(T.CLIPVisionConfig(**VISION)),
            T.CLIPImageProcessor(**CUT),
        ),
        "clip_vision, projected": lambda: (
            T.CLIPVisionModelWithProjection(T.CLIPVisionConfig(**VISION, projection_dim=12)),
            T.CLIPImageProcessor(**CUT),
        ),
        "siglip_vision": lambda: (
            T.SiglipVisionModel(T.SiglipVisionConfig(**VISION)),
            T.SiglipImageProcessor(**SQUARE),
        ),
        "segformer": lambda: (
            T.SegformerModel(T.SegformerConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1])),
            T.SegformerImageProcessor(**SQUARE),
        ),
    }


VISION_FAMILIES = (
    *("vit", "vit without scaling", "vit, other scale", "vit, nearest", "vit, lanczos"),
    *("vit, smaller than the cut", "vit, squashed and cut", "deit", "beit", "convnext"),
    *("convnext, large", "dinov2", "dinov3", "swin", "resnet", "regnet", "mobilevit", "mobilenet"),
    *("efficientnet", "levit", "clip_vision", "clip_vision, projected", "siglip_vision"),
)


def save_vision(name: str, folder: Path) -> tuple[Any, Any]:
    """Save the vision model of a family; return it with its processor."""
    torch.manual_seed(0)
    model, processor = _vision()[name]()
    for part in model.modules():  # the statistics of new models are those of no picture
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)  # type: ignore[union-attr, operator]
            part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    save(folder, model.eval(), processor)
    return model, processor


def own_image_vectors(model: Any, processor: Any, images: Sequence[Image.Image]) -> Array:
    """Vectors of pictures by the library itself, one by one."""
    rows = []
    with torch.no_grad():
        for image in images:
            inputs = {"pixel_values": processor(images=image, return_tensors="pt")["pixel_values"]}
            if hasattr(model, "get_image_features"):
                out = model.get_image_features(**inputs)
            else:
                out = model(**inputs)
            rows.append(_vector(out).flatten(1))
    return np.asarray(torch.cat(rows).numpy())


def own_text_vectors(model: Any, tokens: Any, texts: Sequence[str], **options: Any) -> Array:
    """Vectors of texts by the library itself, one by one, without padding."""
    rows = []
    with torch.no_grad():
        for text in texts:
            inputs = dict(tokens([text], truncation=True, return_tensors="pt", **options))
            if hasattr(model, "get_text_features"):
                inputs.pop("token_type_ids", None)
                out = model.get_text_features(**inputs)
            else:
                out = model(**inputs)
            rows.append(_vector(out))
    return np.asarray(torch.cat(rows).numpy())


def _vector(out: Any) -> torch.Tensor:
    """The vector of an output: projected, pooled, or the mean over tokens."""
    if isinstance(out, torch.Tensor):
        return out
    for name in ("text_embeds", "image_embeds", "pooler_output"):
        if getattr(out, name, None) is not None:
            found: torch.Tensor = getattr(out, name)
            return found
    mean: torch.Tensor = out.last_hidden_state.mean(1)
    return mean


# ---- both modalities -------------------------------------------------------------------------

PAIRS = ("clip", "siglip", "blip", "altclip", "chinese_clip", "align", "groupvit", "metaclip")


def save_pair(name: str, folder: Path) -> tuple[Any, Any, Any]:
    """Save a model of pictures and texts; return it with its processor and tokenizer."""
    import transformers as T

    torch.manual_seed(0)
    text: dict[str, Any]
    processor: Any = T.CLIPImageProcessor(**CUT)
    if name in ("clip", "groupvit", "metaclip"):
        tokens = clip_tokenizer()
        text = SIZES | {
            "vocab_size": len(tokens),
            "max_position_embeddings": 16,
            **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
        }
    else:
        only_ids = {"model_input_names": ["input_ids"]}
        tokens = end_tokenizer(16, **only_ids) if name == "siglip" else bert_tokenizer(16)
        text = SIZES | {
            "vocab_size": len(tokens),
            "max_position_embeddings": 20,
            "pad_token_id": 0,
        }
    both = {"text_config": text, "vision_config": VISION, "projection_dim": 12}
    if name == "clip":
        model: Any = T.CLIPModel(T.CLIPConfig(**both))
    elif name == "metaclip":
        model = T.MetaClip2Model(T.MetaClip2Config(**both))
    elif name == "groupvit":
        vision = VISION | {"depths": [1, 1, 1], "num_output_groups": [4, 2, 0]}
        both["vision_config"] = vision | {"num_group_tokens": [4, 2, 0], "num_hidden_layers": 3}
        model = T.GroupViTModel(T.GroupViTConfig(**both, projection_intermediate_dim=16))
    elif name == "siglip":
        text |= {"max_position_embeddings": 16, "projection_size": 16}
        model = T.SiglipModel(T.SiglipConfig(text_config=text, vision_config=VISION))
        processor = T.SiglipImageProcessor(**SQUARE)
    elif name == "blip":
        text |= {"encoder_hidden_size": 16, "projection_dim": 12, "bos_token_id": 1}
        model = T.BlipForImageTextRetrieval(T.BlipConfig(**both, image_text_hidden_size=12))
        processor = T.BlipImageProcessor(**SQUARE)
    elif name == "altclip":
        text |= {"project_dim": 16, "type_vocab_size": 1}
        model = T.AltCLIPModel(T.AltCLIPConfig(**both))
    elif name == "chinese_clip":
        model = T.ChineseCLIPModel(T.ChineseCLIPConfig(**both))
        processor = T.ChineseCLIPImageProcessor(
            size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32}
        )
    else:
        vision = {"image_size": 32, "width_coefficient": 0.1, "depth_coefficient": 0.1}
        both["vision_config"] = vision | {"hidden_dim": 12}
        model = T.AlignModel(T.AlignConfig(**both))
        processor = T.EfficientNetImageProcessor(**SQUARE)
    save(folder, model.eval(), processor, tokens)
    return model, processor, tokens
