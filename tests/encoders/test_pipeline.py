"""Streamed encoding gives the codes of the encoder, for pictures and for files of features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from support.exported import untrained

from xmodal.data.dataset import Dataset
from xmodal.data.feature_file import FeatureFile, read_feature_file
from xmodal.data.items import Item
from xmodal.data.problems import Problems
from xmodal.data.sharding import Shard
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.feature_encoder import FeatureEncoder
from xmodal.encoders.feature_stream import encode_features
from xmodal.encoders.pipeline import CHUNK_ITEMS, chunks, encode_stream
from xmodal.features.from_file import with_features
from xmodal.index.documents import DocumentBatch
from xmodal.modality import MODALITIES

from xmodal.encoders.torch_encoder import TrainedEncoder  # isort: skip


def same(one: DocumentBatch, other: DocumentBatch) -> bool:
    return one.ids == other.ids and all(
        (one.packed[m] == other.packed[m]).all()
        and (one.offsets[m] == other.offsets[m]).all()
        and (one.vectors[m] == other.vectors[m]).all()
        for m in MODALITIES
    )


def test_chunks_have_bounds() -> None:
    items = [Item(str(n), captions=("a",) * (3000 if n == 7 else 1)) for n in range(1200)]
    sizes = [len(chunk.items) for chunk in chunks(items)]
    assert sizes == [7, 1, CHUNK_ITEMS, CHUNK_ITEMS, 168] and sum(sizes) == 1200


def test_decoded_pictures_have_the_codes_of_the_whole_data(
    encoder: Encoder, dataset: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    bad = Item("bad", images=(tmp_path / "bad.png",))
    half = Item("half", images=(tmp_path / "bad.png", *dataset.items[0].images))
    items = (*dataset.items[:40], bad, half)
    problems, expected = Problems(), Problems()
    streamed = [*encode_stream(encoder, items, source="s", problems=problems)]
    (whole,) = encoder.batches(Dataset(items, problems=expected))
    assert same(DocumentBatch.join(streamed), whole)
    assert problems.count_by_kind() == expected.count_by_kind() == {"picture not usable": 1}
    (name,) = problems.names("picture not usable")
    assert str(tmp_path / "bad.png") in name


def features(tmp_path: Path, encoder: TrainedEncoder, **arrays: object) -> FeatureFile:
    rng = np.random.default_rng(3)
    shape = encoder.towers.shape
    image = rng.standard_normal((50, shape["image_dim"])).astype(np.float32)
    text = rng.standard_normal((50, 2, shape["text_dim"])).astype(np.float16)
    image[4] = 0
    text[4] = np.nan
    text[9, 1] = 0
    ids = np.array([f"item {n}" for n in range(50)])
    np.savez(tmp_path / "f.npz", image=image, text=text, ids=ids)
    return read_feature_file(tmp_path / "f.npz")


def test_features_have_the_codes_of_the_whole_file(tmp_path: Path) -> None:
    encoder = untrained("small-cnn", "words", bits=32)
    encoder.towers = type(encoder.towers)(24, 16, 32, hidden=32).eval()
    file = features(tmp_path, encoder)
    problems = Problems()
    found = DocumentBatch.join(
        [*encode_features(encoder, file, shard=Shard(), source="s", problems=problems)]
    )
    data, source = with_features(file.dataset(), file)
    (whole,) = FeatureEncoder(encoder, source).batches(data)
    assert same(found, whole) and found.fields == whole.fields and "item 4" not in found.ids
    assert problems.count_by_kind() == data.problems.count_by_kind()
    shards = [
        batch
        for n in (1, 2, 3)
        for batch in encode_features(
            encoder, file, shard=Shard(n, 3), source="s", problems=Problems()
        )
    ]
    assert sorted(id_ for batch in shards for id_ in batch.ids) == sorted(whole.ids)
    assert json.loads(found.origins[0])[:2] == ["s", "item 0"]
