"""Inputs that other libraries write: every caption and picture is read, with one command each."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xmodal.data.dataset import Dataset
from xmodal.data.images import load_image
from xmodal.data.readers.read import read

COUNT = 12
WORDS = ("red", "green", "blue", "grey", "pink", "brown")
CLASSES = ("warm", "cold")
# The libraries are imported with warnings of their own, which are not xmodal's.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="session", autouse=True)
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the libraries from the network and from the home folder."""
    home = str(tmp_path_factory.mktemp("home"))
    names = {"HF_HUB_OFFLINE": "1", "HF_HOME": home, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def datasets() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("datasets")


@pytest.fixture(scope="session")
def webdataset() -> Any:
    """The library, whose import takes seconds because it imports torch."""
    return pytest.importorskip("webdataset")


def pixels(number: int) -> np.ndarray[Any, Any]:
    """Return the picture of an item: noise, which no two items have in common."""
    return np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)


def picture(number: int) -> Image.Image:
    return Image.fromarray(pixels(number))


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    picture(number).save(buffer, "PNG")
    return buffer.getvalue()


def caption(number: int) -> str:
    return f'{number}: a {WORDS[number % 6]} "thing", größer; than 1,5\t!'.replace("\t", " ")


def rows() -> list[dict[str, Any]]:
    return [
        {"caption": caption(n), "label": n % 2, "price": n / 4, "image": picture(n)}
        for n in range(COUNT)
    ]


def picture_files(folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(COUNT):
        (folder / f"{n:03d}.png").write_bytes(png(n))
    return [f"{n:03d}.png" for n in range(COUNT)]


def check(data: Dataset, numbers: Any = range(COUNT), captions: bool = True) -> None:
    """Check that the items are those of ``numbers``, in this order, with equal pixels."""
    assert data.problems.summary_lines() == []
    numbers = list(numbers)
    assert len(data) == len(numbers)
    for item, n in zip(data, numbers, strict=True):
        assert len(item.images) == 1
        assert np.array_equal(np.asarray(load_image(item.images[0])), pixels(n)), item
        if captions:
            assert item.captions == (caption(n),)


@pytest.fixture(scope="session")
def hub_set(datasets: Any) -> Any:
    """A set of the library ``datasets`` with encoded pictures and names of labels."""
    features = datasets.Features(
        caption=datasets.Value("string"),
        label=datasets.ClassLabel(names=list(CLASSES)),
        price=datasets.Value("float32"),
        image=datasets.Image(),
    )
    return datasets.Dataset.from_list(rows(), features=features)


def test_datasets_save_to_disk(hub_set: Any, tmp_path: Path) -> None:
    hub_set.save_to_disk(tmp_path / "saved", num_shards=2)
    data = read(tmp_path / "saved", label_column="label")
    check(data)
    assert [item.labels for item in data] == [(CLASSES[n % 2],) for n in range(COUNT)]
    assert data.items[3].fields["price"] == 0.75
    assert read(tmp_path / "saved").items[1].fields["label"] == "cold"


def test_datasets_dict(datasets: Any, hub_set: Any, tmp_path: Path) -> None:
    parts = {"train": hub_set.select(range(8)), "restval": hub_set.select(range(8, COUNT))}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    data = read(tmp_path / "saved")
    check(data)
    assert [item.split for item in data] == ["train"] * 8 + ["restval"] * 4


def test_datasets_select_and_save_again(hub_set: Any, tmp_path: Path) -> None:
    order = [5, 3, 3, 11]
    hub_set.select(order).save_to_disk(tmp_path / "saved")
    check(read(tmp_path / "saved"), order)


def test_datasets_to_parquet(hub_set: Any, tmp_path: Path) -> None:
    hub_set.to_parquet(tmp_path / "all.parquet")
    data = read(tmp_path / "all.parquet", label_column="label")
    check(data)
    assert [item.labels for item in data] == [(CLASSES[n % 2],) for n in range(COUNT)]


def test_datasets_parquet_shards_of_the_hub(hub_set: Any, tmp_path: Path) -> None:
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "set" / "README.md").write_text("---\nlicense: mit\n---\n")
    for split, shards, part in (("train", 2, range(8)), ("test", 1, range(8, COUNT))):
        for k in range(shards):
            shard = hub_set.select(part).shard(shards, k, contiguous=True)
            shard.to_parquet(folder / f"{split}-{k:05d}-of-{shards:05d}.parquet")
    data = read(tmp_path / "set")
    check(data, [*range(8, COUNT), *range(8)])
    assert [item.split for item in data] == ["test"] * 4 + ["train"] * 8


def test_datasets_with_several_captions_and_pictures(datasets: Any, tmp_path: Path) -> None:
    features = datasets.Features(
        captions=datasets.Sequence(datasets.Value("string")),
        image=datasets.Sequence(datasets.Image()),
        labels=datasets.Sequence(datasets.ClassLabel(names=list(CLASSES))),
    )
    found = [
        {"captions": [caption(n), f"again {n}"], "image": [picture(n), picture(n + 1)]}
        | {"labels": [0, 1] if n else []}
        for n in range(3)
    ]
    saved = datasets.Dataset.from_list(found, features=features)
    saved.save_to_disk(tmp_path / "saved")
    saved.to_parquet(tmp_path / "all.parquet")
    for source in (tmp_path / "saved", tmp_path / "all.parquet"):
        data = read(source, label_column="labels")
        assert data.problems.summary_lines() == []
        assert [item.captions for item in data] == [tuple(one["captions"]) for one in found]
        assert [item.labels for item in data] == [None, CLASSES, CLASSES]
        for n, item in enumerate(data):
            read_pixels = [np.asarray(load_image(image)) for image in item.images]
            assert np.array_equal(read_pixels, [pixels(n), pixels(n + 1)])


def test_datasets_with_paths_of_pictures(datasets: Any, tmp_path: Path) -> None:
    names = picture_files(tmp_path / "pictures")
    paths = [str(tmp_path / "pictures" / name) for name in names]
    made = datasets.Dataset.from_dict({"image": paths, "text": [*map(caption, range(COUNT))]})
    made.save_to_disk(tmp_path / "texts")
    check(read(tmp_path / "texts"))
    made.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "image")
    check(read(tmp_path / "image"))


def test_datasets_cached_arrow_file(datasets: Any, hub_set: Any, tmp_path: Path) -> None:
    writer = datasets.arrow_writer.ArrowWriter(path=str(tmp_path / "set-train.arrow"))
    for row in rows()[:4]:
        writer.write({"text": row["caption"], "price": row["price"]})
    writer.finalize()
    data = read(tmp_path / "set-train.arrow")
    assert [item.captions for item in data] == [(caption(n),) for n in range(4)]


def test_datasets_imagefolder(datasets: Any, tmp_path: Path) -> None:
    folder = tmp_path / "set" / "train"
    names = picture_files(folder)
    lines = [json.dumps({"file_name": name, "text": caption(n)}) for n, name in enumerate(names)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    theirs = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "set"), split="train")
    assert theirs["text"][:] == [*map(caption, range(COUNT))]
    check(read(tmp_path / "set"))
    theirs.save_to_disk(tmp_path / "saved")
    check(read(tmp_path / "saved"))


def test_webdataset_tar_writer(webdataset: Any, tmp_path: Path) -> None:
    for ending in (".tar", ".tar.gz"):
        with webdataset.TarWriter(str(tmp_path / f"a{ending}")) as writer:
            for n in range(COUNT):
                writer.write(
                    {"__key__": f"sample{n:04d}", "png": picture(n), "txt": caption(n)}
                    | {"json": {"price": n / 4}, "cls": n % 2}
                )
        data = read(tmp_path / f"a{ending}", label_column="cls")
        check(data)
        assert data.items[3].id == "sample0003"
        assert data.items[3].fields == {"price": 0.75}
        assert data.items[3].labels == ("1",)


def test_webdataset_shard_writer(webdataset: Any, tmp_path: Path) -> None:
    pattern = str(tmp_path / "set-%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=5, verbose=0) as writer:
        for n in range(COUNT):
            writer.write({"__key__": f"{n:04d}", "png": png(n), "caption.txt": caption(n)})
    check(read(tmp_path / "set-{000000..000002}.tar"))
    check(read(tmp_path))


def test_img2dataset_shards(webdataset: Any, tmp_path: Path) -> None:
    """img2dataset writes jpg, txt and json of a picture, a table and statistics of a shard."""
    pandas = pytest.importorskip("pandas")
    for shard in range(2):
        name = tmp_path / f"{shard:05d}"
        described = []
        with webdataset.TarWriter(f"{name}.tar") as writer:
            for n in range(6 * shard, 6 * shard + 6):
                key = f"{shard:05d}{n:04d}"
                content = {"caption": caption(n), "url": f"http://x/{n}", "key": key}
                content |= {"status": "success", "error_message": None, "width": 7, "exif": "{}"}
                writer.write({"__key__": key, "png": png(n), "txt": caption(n), "json": content})
                described.append(content)
        pandas.DataFrame(described).to_parquet(f"{name}.parquet")
        Path(f"{name}_stats.json").write_text(json.dumps({"count": 6, "successes": 6}))
    data = read(tmp_path)
    check(data)
    assert data.items[7].fields["url"] == "http://x/7"


CSV: list[tuple[str, dict[str, Any]]] = [
    ("items.csv", {}),
    ("items.csv", {"index": False}),
    ("items.csv", {"sep": ";", "index": False}),
    ("items.csv", {"sep": "|"}),
    ("items.tsv", {"sep": "\t", "index": False}),
    ("items.csv", {"encoding": "utf-8-sig"}),
    ("items.csv", {"encoding": "utf-16"}),
    ("items.csv", {"quoting": 1, "lineterminator": "\r\n"}),
    ("items.csv.gz", {"index": False}),
]


@pytest.mark.parametrize(("name", "options"), CSV)
def test_pandas_to_csv(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(
        {"image": picture_files(tmp_path), "caption": [*map(caption, range(COUNT))]}
    )
    table.to_csv(tmp_path / name, **options)
    check(read(tmp_path / name))


def test_pandas_to_csv_in_cp1252(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(
        {"image": picture_files(tmp_path), "caption": [*map(caption, range(COUNT))]}
    )
    table.to_csv(tmp_path / "items.csv", encoding="cp1252", index=False)
    check(read(tmp_path / "items.csv", encoding="cp1252"))


@pytest.mark.parametrize("orient", ["records", "lines"])
def test_pandas_to_json(tmp_path: Path, orient: str) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(
        {"image": picture_files(tmp_path), "text": [*map(caption, range(COUNT))]}
    )
    path = tmp_path / ("items.jsonl" if orient == "lines" else "items.json")
    table.to_json(path, orient="records", lines=orient == "lines")
    check(read(path))


@pytest.mark.parametrize("compression", ["snappy", "zstd", None])
def test_pandas_to_parquet(tmp_path: Path, compression: str | None) -> None:
    pandas = pytest.importorskip("pandas")
    captions = [*map(caption, range(COUNT))]
    paths = pandas.DataFrame({"image": picture_files(tmp_path), "text": captions})
    paths.to_parquet(tmp_path / "paths.parquet", compression=compression)
    check(read(tmp_path / "paths.parquet"))
    packed = pandas.DataFrame({"image": [*map(png, range(COUNT))], "text": captions})
    packed.index = [f"row {n}" for n in range(COUNT)]
    packed.to_parquet(tmp_path / "bytes.parquet", compression=compression, row_group_size=5)
    check(read(tmp_path / "bytes.parquet"))
    packed.reset_index().to_feather(tmp_path / "bytes.feather")
    check(read(tmp_path / "bytes.feather"))


def test_coco_captions(tmp_path: Path) -> None:
    """The json that pycocotools reads: pictures and annotations with ids of their own."""
    names = picture_files(tmp_path / "val2017")
    content = {
        "info": {"year": 2017},
        "licenses": [],
        "images": [{"id": 7 * n, "file_name": name} for n, name in enumerate(names)],
        "annotations": [
            {"id": 100 - n, "image_id": 7 * n, "caption": caption(n)} for n in range(COUNT)
        ],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    check(read(tmp_path / "annotations" / "captions_val2017.json"))
    check(read(tmp_path))
