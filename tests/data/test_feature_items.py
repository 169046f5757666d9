"""Items of a file of features that are made when they are asked for equal stored ones."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import xmodal.data.feature_arrays
import xmodal.data.spill
from xmodal.config import FEATURES, Options
from xmodal.data.dataset import Dataset
from xmodal.data.feature_file import FeatureFile, read_feature_file
from xmodal.data.groups import with_groups
from xmodal.data.names import Names, first_repeated
from xmodal.data.problems import Problems
from xmodal.data.situation import recognise
from xmodal.data.spill import zeros
from xmodal.data.split import split
from xmodal.encoders.feature_encoder import FeatureEncoder
from xmodal.errors import DataError
from xmodal.evaluation.evaluate import evaluate
from xmodal.features.from_file import FileSource, with_features
from xmodal.training.train import train

N, DIM = 120, 8


@pytest.fixture
def stored(tmp_path: Path) -> FeatureFile:
    """A file with three captions an item, labels, splits, and some unusable features."""
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 4, N)
    own = rng.normal(size=(N, DIM)) + 3 * rng.normal(size=(4, DIM))[cluster]
    image = own.astype(np.float16)
    text = (own[:, None] + 0.1 * rng.normal(size=(N, 3, DIM))).astype(np.float16)
    image[3], text[5, 1], text[7] = 0, np.nan, 0
    np.savez(
        tmp_path / "f.npz",
        ids=np.array([f"id {row}" for row in range(N)]),
        image=image,
        text=text,
        labels=np.array([f"c{one}" for one in cluster]),
        split=np.array(["train"] * 80 + ["val"] * 20 + ["test"] * 20),
    )
    return read_feature_file(tmp_path / "f.npz")


def lazy_and_stored(file: FeatureFile) -> list[tuple[Dataset, FileSource]]:
    """Return the items of a file as lazy ones, and as stored ones that are matched by their ids."""
    lazy = file.dataset("labels")
    return [
        with_features(lazy, file),
        with_features(replace(lazy, items=tuple(lazy), problems=Problems()), file),
    ]


def test_lazy_items_equal_stored_ones(stored: FeatureFile) -> None:
    (lazy, _), (data, _) = lazy_and_stored(stored)
    assert lazy.lazy is not None and data.lazy is None
    assert tuple(lazy) == data.items and lazy.items[-1] == data.items[-1]
    assert lazy.classes == data.classes and recognise(lazy) == recognise(data)
    grouped, expected = with_groups(lazy), with_groups(data)
    assert tuple(grouped) == expected.items
    assert grouped.group_order().tolist() == expected.group_order().tolist()
    for one, other in zip(
        vars(split(grouped)).values(), vars(split(expected)).values(), strict=True
    ):
        assert tuple(one) == other.items
    assert len(split(grouped).train) > 50
    share, expected = (one.with_label_share(0.4, 1) for one in (grouped, expected))
    assert tuple(share.take(np.array([7, 2]))) == expected.take(np.array([7, 2])).items


@pytest.mark.parametrize("method", ["contrastive", "schgan"])
def test_lazy_items_give_the_same_encoder_and_report(
    stored: FeatureFile, tmp_path: Path, method: str
) -> None:
    options = Options(
        method=method, bits=16, image_backbone=FEATURES, text_backbone=FEATURES, label_share=0.5
    )
    found = []
    for number, (data, source) in enumerate(lazy_and_stored(stored)):
        folder = tmp_path / str(number)
        encoder = train(data, folder, options, {"epochs": 1}, features=source)
        report, evaluated = evaluate(FeatureEncoder(encoder, source), data)
        config = json.loads((folder / "config.json").read_text())
        found.append(
            (
                {name: config[name] for name in ("fingerprint", "identity", "pictures", "data")},
                config["confidence"],
                (folder / "split.json").read_bytes(),
                report.to_json(),
                evaluated[0].documents.ids,
                data.problems.summary_lines(),
            )
        )
    assert found[0] == found[1]


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_large_arrays_of_an_archive_are_mapped(
    tmp_path: Path, write: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {
        "ids": np.array(["a", "bc", "d"]),
        "image": np.arange(6, dtype=np.float32).reshape(3, 2),
        "text": np.asfortranarray(np.arange(9, dtype=np.float16).reshape(3, 3)),
    }
    write(tmp_path / "f.npz", **arrays)
    expected = read_feature_file(tmp_path / "f.npz")
    monkeypatch.setattr(xmodal.data.feature_arrays, "MAPPED_BYTES", 0)
    found = read_feature_file(tmp_path / "f.npz")
    assert found.digest == expected.digest and found.names == expected.names == ["a", "bc", "d"]
    for modality, rows in found.rows.items():
        assert isinstance(rows, np.memmap) and rows.tolist() == arrays[str(modality)].tolist()


@pytest.mark.parametrize("several", [False, True])
def test_columns_of_parquet_are_those_of_an_archive(tmp_path: Path, several: bool) -> None:
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(9, 4)), rng.normal(size=(9, 3, 5)).astype(np.float16)
    arrays = {
        "ids": np.array([f"id {row}" for row in range(9)]),
        "image": image,
        "text": text if several else text[:, 0],
        "labels": np.array(["a", "b", "a"] * 3),
    }
    np.savez(tmp_path / "f.npz", **arrays)
    columns = {name: list(array.tolist()) for name, array in arrays.items()}
    kind = pa.list_(pa.float16())
    types = {"image": pa.list_(pa.float64(), 4), "text": pa.list_(kind) if several else kind}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in arrays])
    pq.write_table(pa.table(columns, schema), tmp_path / "f.parquet", row_group_size=4)
    found, expected = (read_feature_file(tmp_path / f"f.{end}") for end in ("parquet", "npz"))
    assert found.digest == expected.digest and found.labels == expected.labels
    columns["image"][2] = None
    pq.write_table(pa.table(columns, schema), tmp_path / "f.parquet")
    with pytest.raises(DataError, match="image has rows without a value"):
        read_feature_file(tmp_path / "f.parquet")


def test_a_damaged_array_that_is_mapped_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.npz"
    np.savez(path, image=np.ones((30, 20)))
    with zipfile.ZipFile(path) as archive:
        place = archive.infolist()[0].header_offset + 2000
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(xmodal.data.feature_arrays, "MAPPED_BYTES", 0)
    with pytest.raises(DataError, match=r"f\.npz is not readable .*CRC"):
        read_feature_file(path)


def test_names() -> None:
    names = Names.of_array(np.array(["a", "b", "c", "b"]))
    assert first_repeated(names) == "b" and first_repeated(names[:3]) is None
    assert list(names[1:].take(np.array([1, 0]))) == ["c", "b"] and names[-1] == "b"
    assert Names.numbers(12)[3:5] == ["3", "4"] != Names.numbers(2)


def test_large_matrices_are_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xmodal.data.spill, "SPILL_BYTES", 64)
    small, large = zeros((2, 2), np.float32), zeros((20, 2), np.float32)
    assert small.base is None and isinstance(large.base, np.memmap) and not large.any()
    large[3] = 1
    assert np.flatnonzero(large.any(axis=1)).tolist() == [3]
