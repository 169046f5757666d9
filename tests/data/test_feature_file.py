"""Files of features: shapes, ids, rows, and refusals in one line."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodal.data.feature_file import FeatureFile, read_feature_file
from xmodal.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((3, 5)).astype(np.float16)
TEXT = RNG.standard_normal((3, 2, 4)).astype(np.float32)
IDS = np.array(["a", "b", "c"])


def saved(folder: Path, **arrays: Any) -> FeatureFile:
    np.savez(folder / "f.npz", **arrays)
    return read_feature_file(folder / "f.npz")


def test_captions_of_one_number(tmp_path: Path) -> None:
    file = saved(tmp_path, ids=IDS, image=IMAGE, text=TEXT)
    assert file.names == ["a", "b", "c"] and (file.dim("image"), file.dim("text")) == (5, 4)
    assert (file.rows["text"][file.positions("text", 1)] == TEXT[1]).all()
    assert file.rows["image"].dtype == np.float16  # kept as stored: the file is not doubled


@pytest.mark.parametrize("by_id", [False, True])
def test_rows_name_the_item_of_each_caption(tmp_path: Path, by_id: bool) -> None:
    rows = np.array([2, 0, 2, 0, 2])
    text = np.arange(10.0).reshape(5, 2)
    file = saved(tmp_path, ids=IDS, image=IMAGE, text=text, rows=IDS[rows] if by_id else rows)
    assert file.rows["text"][file.positions("text", 0)][:, 0].tolist() == [2, 6]
    assert len(file.positions("text", 1)) == 0
    assert file.rows["text"][file.positions("text", 2)][:, 0].tolist() == [0, 4, 8]


def test_two_npy_files(tmp_path: Path) -> None:
    np.save(tmp_path / "i.npy", IMAGE)
    np.save(tmp_path / "t.npy", TEXT)
    file = read_feature_file([tmp_path / "i.npy", tmp_path / "t.npy"])
    assert file.ids is None and file.names == ["0", "1", "2"]
    assert (file.rows["text"] == TEXT.reshape(6, 4)).all()


def test_mat_files(tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io")
    cells = np.empty((3, 1), object)
    cells[:, 0] = ["a", "bb", "c"]
    text = np.arange(8.0).reshape(4, 2)
    rows = np.array([[1.0, 1, 3, 3]])  # MATLAB counts from 1, in floating point
    io.savemat(tmp_path / "f.mat", {"ids": cells, "image": IMAGE * 1.0, "text": text, "rows": rows})
    file = read_feature_file(tmp_path / "f.mat")
    assert file.names == ["a", "bb", "c"]
    assert file.offsets["text"].tolist() == [0, 2, 2, 4]


def test_mat_files_of_version_4_are_refused(tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io")
    io.savemat(tmp_path / "f.mat", {"image": IMAGE * 1.0}, format="4")
    with pytest.raises(DataError, match="version 5"):
        read_feature_file(tmp_path / "f.mat")


def test_items_with_split_and_labels_on_request(tmp_path: Path) -> None:
    labels = np.array([[1, 0], [1, 1], [0, 0]])
    arrays: dict[str, Any] = {"ids": IDS, "image": IMAGE, "text": TEXT, "labels": labels}
    arrays |= {"classes": np.array(["x", "y"]), "split": np.array(["train", "train", "test"])}
    file = saved(tmp_path, **arrays)
    assert [item.labels for item in file.dataset()] == [None] * 3
    assert [item.labels for item in file.dataset("labels")] == [("x",), ("x", "y"), ()]
    assert [item.split for item in file.dataset()] == ["train", "train", "test"]
    with pytest.raises(ConfigError, match="colour"):
        file.dataset("colour")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": IDS}, "expected image"),
        ({"ids": IDS, "image": IMAGE[:2]}, r"image of f.npz has shape \(2, 5\)"),
        ({"ids": IDS, "image": IMAGE, "text": np.ones((7, 4))}, r"\(rows, d\) with the array rows"),
        ({"ids": IDS, "image": IMAGE, "text": np.ones((2, 4)), "rows": [0, 3]}, "positions 0 to 3"),
        ({"ids": IDS, "image": IMAGE, "text": np.ones((2, 4)), "rows": ["a", "z"]}, "'z'"),
        ({"ids": IDS, "image": IMAGE, "text": np.ones((2, 4)), "rows": [0]}, "rows of f.npz"),
        ({"ids": IDS, "image": IMAGE.astype(np.int64)}, "int64"),
        ({"ids": np.array(["a", "a", "b"]), "image": IMAGE}, "'a' twice"),
        ({"ids": np.array(["a", "b", {}], dtype=object), "image": IMAGE}, "pickled objects"),
        ({"ids": IDS, "image": IMAGE, "split": ["train"]}, "split of f.npz"),
        ({"ids": IDS, "image": IMAGE, "text": TEXT[:, :0]}, "text of f.npz"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        saved(tmp_path, **arrays)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_features(tmp_path: Path) -> None:
    (tmp_path / "f.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match="not readable"):
        read_feature_file(tmp_path / "f.npz")
    with pytest.raises(DataError, match="does not exist"):
        read_feature_file(tmp_path / "g.npz")
    np.save(tmp_path / "i.npy", IMAGE)
    with pytest.raises(ConfigError, match=r"two \.npy files"):
        read_feature_file(tmp_path / "i.npy")
    (tmp_path / "f.mat").write_bytes(b"no matrix" * 50)
    with pytest.raises(DataError, match="not readable"):
        read_feature_file(tmp_path / "f.mat")


def test_members_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", image=IMAGE)
    with zipfile.ZipFile(tmp_path / "f.npz", "a") as archive:
        archive.writestr("ids.npy", b"no array")
    with pytest.raises(DataError, match="ids is no array"):
        read_feature_file(tmp_path / "f.npz")


def test_arrays_of_impossible_size_are_refused(tmp_path: Path) -> None:
    head = np.lib.format.magic(1, 0) + bytes([118, 0])
    head += b"{'descr': '<f4', 'fortran_order': False, 'shape': (10, 99999999999), }".ljust(117)
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        archive.writestr("image.npy", head + b"\n")
    with pytest.raises(DataError, match="too few values"):
        read_feature_file(tmp_path / "f.npz")


@pytest.mark.parametrize("point", [0xD800, 0x110000])
def test_ids_that_are_not_valid_unicode_are_refused(tmp_path: Path, point: int) -> None:
    ids = np.array([97, point, 99], np.uint32).view("U1")
    np.savez(tmp_path / "f.npz", ids=ids, image=IMAGE)
    with pytest.raises(DataError, match="not valid Unicode"):
        read_feature_file(tmp_path / "f.npz")


def test_rows_of_two_axes_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", ids=["a", "b"], text=np.ones((2, 4)), rows=np.zeros((2, 3)))
    with pytest.raises(DataError, match="rows of"):
        read_feature_file(tmp_path / "f.npz")


def test_matlab_7_3_is_refused_with_a_way_out(tmp_path: Path) -> None:
    pytest.importorskip("scipy.io")
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    (tmp_path / "f.mat").write_bytes(header + b"\x89HDF\r\n\x1a\n" + bytes(512))
    with pytest.raises(DataError, match=r"7\.3.*-v7"):
        read_feature_file(tmp_path / "f.mat")
