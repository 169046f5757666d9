"""Trained encoders: folder, fingerprint, damage, encoding, confidence."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from xmodal.data.dataset import Dataset
from xmodal.data.items import Item
from xmodal.data.problems import Problems
from xmodal.encoders.calibration import Confidence, EvenCurve
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.load import load_encoder
from xmodal.encoders.torch_encoder import BackboneRef, TrainedEncoder, as_tensor
from xmodal.encoders.towers import Towers
from xmodal.errors import DataError, ModelError
from xmodal.features.backbones.builtin import Words
from xmodal.index.documents import DocumentBatch
from xmodal.modality import MODALITIES, Modality

TEXTS = ["a red circle on the left", "two green stars", "a large blue cross at the top"]


def images(dataset: Dataset) -> list[Path]:
    return [item.images[0] for item in dataset if item.images]


def untrained(seed: int = 0, bits: int = 32) -> TrainedEncoder:
    """An encoder with random towers and the two built-in backbones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        towers = Towers(64 * 64 * 3, Words.dim, bits, hidden=16, raw_images=True)
    refs = {
        "image": BackboneRef("small-cnn", "pixels-64-1"),
        "text": BackboneRef("words", "words-1"),
    }
    return TrainedEncoder(
        towers,
        refs,
        Confidence(even=EvenCurve(1.5, -0.5, bits)),
        {"note": "ä"},
        {"train": ["a", "b"]},
    )


# ---- saving and loading ----------------------------------------------------------------------


def test_saved_encoder_gives_the_same_codes(dataset: Dataset, tmp_path: Path) -> None:
    encoder = untrained()
    encoder.save(tmp_path / "deep" / "x.model")
    again = load_encoder(tmp_path / "deep" / "x.model")
    assert again.fingerprint == encoder.fingerprint
    assert again.encode_texts(TEXTS) == encoder.encode_texts(TEXTS)
    some = images(dataset)[:10]
    assert again.encode_images(some) == encoder.encode_images(some)
    assert (again.bits, again.confidence) == (32, encoder.confidence)
    assert (again.about, dict(again.split)) == ({"note": "ä"}, {"train": ["a", "b"]})


def test_saving_again_writes_the_same_files(model: Path, tmp_path: Path) -> None:
    TrainedEncoder.load(model).save(tmp_path)
    for name in ("config.json", "weights.safetensors", "split.json"):
        assert (tmp_path / name).read_bytes() == (model / name).read_bytes()


def test_folder_contains_no_pickle_and_no_temporary_files(model: Path) -> None:
    assert sorted(path.name for path in model.iterdir()) == [
        "config.json",
        "history.jsonl",
        "split.json",
        "weights.safetensors",
    ]


# ---- the fingerprint -------------------------------------------------------------------------


def test_every_weight_changes_the_fingerprint() -> None:
    prints = {untrained().fingerprint, untrained().fingerprint}
    assert len(prints) == 1
    names = list(untrained().towers.state_dict())
    for name in names:
        encoder = untrained()
        tensor = encoder.towers.state_dict()[name]
        tensor[(-1,) * tensor.dim()] += 1
        prints.add(encoder.fingerprint)
    assert len(prints) == 1 + len(names)


@pytest.mark.parametrize("modality", MODALITIES)
def test_another_backbone_changes_the_fingerprint(modality: str) -> None:
    encoder = untrained()
    ref = BackboneRef(encoder.backbones[modality].spec, "something else")  # type: ignore[index]
    other = replace(encoder, backbones={**encoder.backbones, modality: ref})  # type: ignore[dict-item]
    assert other.fingerprint != encoder.fingerprint


def test_fingerprint_does_not_depend_on_metadata() -> None:
    encoder = untrained()
    moved = {m: replace(ref, spec="elsewhere") for m, ref in encoder.backbones.items()}
    other = replace(encoder, about={}, split={}, confidence=Confidence(), backbones=moved)
    assert other.fingerprint == encoder.fingerprint


def test_fingerprints_are_16_hexadecimal_digits(encoder: Encoder) -> None:
    assert len(encoder.fingerprint) == 16
    int(encoder.fingerprint, 16)


# ---- damaged folders -------------------------------------------------------------------------


def truncated(name: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:-20])

    return damage


def edited(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        del config["sha256"], config["files"]  # as in earlier versions
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return damage


def replaced(old: bytes, new: bytes) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        text = (folder / "config.json").read_bytes()
        assert old in text
        (folder / "config.json").write_bytes(text.replace(old, new))

    return damage


def other_weights(folder: Path) -> object:
    return shutil.copy(folder.parent / "other.model/weights.safetensors", folder)


DAMAGES = {
    "truncated config": (truncated("config.json"), "damaged"),
    "config that is no object": (lambda f: (f / "config.json").write_text("[]"), "damaged"),
    "config that is no text": (
        lambda f: (f / "config.json").write_bytes(b"\xff\xfe\xfa"),
        "damaged",
    ),
    "truncated weights": (truncated("weights.safetensors"), "damaged"),
    "missing weights": (lambda f: (f / "weights.safetensors").unlink(), "damaged"),
    "truncated split": (truncated("split.json"), "damaged"),
    "missing towers": (edited(lambda c: c.pop("towers")), "damaged"),
    "another code width": (edited(lambda c: c["towers"].update(bits=64)), "damaged"),  # type: ignore[attr-defined]
    "invalid code width": (edited(lambda c: c["towers"].update(bits=7)), "damaged"),  # type: ignore[attr-defined]
    "missing slope": (edited(lambda c: c["confidence"].pop("slope")), "damaged"),  # type: ignore[attr-defined]
    "missing modality": (edited(lambda c: c["backbones"].pop("text")), "damaged"),  # type: ignore[attr-defined]
    "later format": (edited(lambda c: c.update(format=99)), "format 99"),
    "weights of another encoder": (other_weights, "weights.safetensors has sha256"),
    "other weights without a recorded hash": (
        lambda f: (edited(lambda c: None)(f), other_weights(f)),
        "fingerprint",
    ),
    "edited confidence": (
        replaced(b'"offset": -', b'"offset": -1'),
        "config.json was changed",
    ),
    "edited note": (replaced(b"note", b"nose"), "config.json was changed"),
    "another backbone": (
        edited(lambda c: c["backbones"]["text"].update(fingerprint="words-0")),  # type: ignore[index]
        "fingerprint",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_folder_raises_one_line(tmp_path: Path, kind: str) -> None:
    damage, message = DAMAGES[kind]
    untrained(seed=1).save(tmp_path / "other.model")
    untrained().save(tmp_path / "x.model")
    damage(tmp_path / "x.model")
    with pytest.raises(ModelError, match=message) as caught:
        load_encoder(tmp_path / "x.model")
    assert "\n" not in str(caught.value)


def test_folder_without_hashes_or_with_another_key_order_loads(tmp_path: Path) -> None:
    encoder = untrained()
    encoder.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(dict(sorted(config.items()))))
    assert load_encoder(tmp_path).fingerprint == encoder.fingerprint
    edited(lambda c: c.update(note="new"))(tmp_path)
    again = load_encoder(tmp_path)
    assert again.fingerprint == encoder.fingerprint and again.about == {"note": "new"}


def test_file_modes_follow_the_umask(tmp_path: Path) -> None:
    mask = 0o027
    program = """
import os, sys
os.umask(int(sys.argv[2]))
from test_encoder import untrained
from xmodal.training.compress import compress
import numpy as np
untrained().save(sys.argv[1] + "/deep/x.model")
rows = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
compress(rows, 16, sys.argv[1] + "/codes", {"epochs": 1})
"""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", program, str(tmp_path), str(mask)]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, check=True)
    found = sorted(tmp_path.rglob("*"))
    assert {"weights.safetensors", "codes.npy"} < {path.name for path in found}
    for path in found:
        default = 0o777 if path.is_dir() else 0o666
        assert oct(stat.S_IMODE(path.stat().st_mode)) == oct(default & ~mask), path


def test_missing_encoder_error_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="xmodal train DATA --out"):
        load_encoder(tmp_path / "nothing")
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="training there was stopped"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("modality", MODALITIES)
def test_changed_backbone_raises_one_line(modality: str) -> None:
    encoder = untrained()
    ref = replace(encoder.backbones[modality], fingerprint="older")  # type: ignore[index]
    other = replace(encoder, backbones={**encoder.backbones, modality: ref})  # type: ignore[dict-item]
    with pytest.raises(ModelError, match=rf"--{modality}-backbone") as caught:
        if modality == "image":
            other.encode_images([Image.new("RGB", (8, 8))])
        else:
            other.encode_texts(TEXTS)
    assert "\n" not in str(caught.value)
    assert "older" in str(caught.value)


def test_moved_backbone_loads_and_another_one_raises(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from torchvision import models

    encoder = untrained()
    encoder.save(tmp_path / "x.model")
    weights = tmp_path / "resnet18.safetensors"
    save_file(models.resnet18(weights=None).state_dict(), weights)
    other = load_encoder(tmp_path / "x.model", image_backbone=f"{weights}?size=32")
    assert other.fingerprint == encoder.fingerprint
    assert other.encode_texts(TEXTS) == encoder.encode_texts(TEXTS)
    with pytest.raises(ModelError, match="image backbone"):
        other.encode_images([Image.new("RGB", (8, 8))])


# ---- encoding --------------------------------------------------------------------------------


@pytest.fixture(params=["encoder", "portable"])
def any_encoder(request: pytest.FixtureRequest) -> Encoder:
    """The encoder of the synthetic data, computed by torch and by onnxruntime."""
    loaded: Encoder = request.getfixturevalue(request.param)
    return loaded


def test_path_bytes_and_image_give_the_same_code(any_encoder: Encoder, dataset: Dataset) -> None:
    paths = images(dataset)[:12]
    expected = any_encoder.encode_images(paths)
    assert len({expected[[row]].to_hex()[0] for row in range(12)}) > 1
    assert any_encoder.encode_images([str(path) for path in paths]) == expected
    assert any_encoder.encode_images([path.read_bytes() for path in paths]) == expected
    assert any_encoder.encode_images([Image.open(path) for path in paths]) == expected


def test_cache_does_not_change_codes(
    any_encoder: Encoder, dataset: Dataset, tmp_path: Path
) -> None:
    paths = images(dataset)[:40]
    image_codes, text_codes = any_encoder.encode_images(paths), any_encoder.encode_texts(TEXTS)
    for _ in range(2):  # the second call reads the cache
        assert any_encoder.encode_images(paths, cache=tmp_path) == image_codes
        assert any_encoder.encode_texts(TEXTS, cache=tmp_path) == text_codes
    assert list(tmp_path.glob("*.sqlite"))


def test_codes_do_not_depend_on_the_batch(any_encoder: Encoder, dataset: Dataset) -> None:
    paths = images(dataset)[:5]
    codes = any_encoder.encode_images(paths)
    for row, path in enumerate(paths):
        assert any_encoder.encode_images([path]) == codes[[row]]


def test_exif_orientation_is_applied(
    any_encoder: Encoder, dataset: Dataset, tmp_path: Path
) -> None:
    path = images(dataset)[3]
    expected = any_encoder.encode_images([path])
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}
    for tag, turn in turns.items():
        exif = Image.Exif()
        exif[0x0112] = tag  # the rotation that restores it
        turned = tmp_path / f"{tag}.png"
        Image.open(path).transpose(turn).save(turned, exif=exif)
        assert any_encoder.encode_images([turned]) == expected
        assert any_encoder.encode_images([turned.read_bytes()], cache=tmp_path) == expected
        with Image.open(turned) as opened:
            assert any_encoder.encode_images([opened], cache=tmp_path) == expected


def test_empty_input_gives_no_codes(any_encoder: Encoder) -> None:
    for codes in (any_encoder.encode_texts([]), any_encoder.encode_images([])):
        assert (len(codes), codes.bits) == (0, any_encoder.bits)


def test_unusable_source_raises_with_its_name(any_encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'!!!'"):
        any_encoder.encode_texts(["a dog", "!!!"])
    with pytest.raises(DataError, match=r"missing\.png"):
        any_encoder.encode_images([tmp_path / "missing.png"])


def test_encode_data_skips_and_records_unusable_sources(
    any_encoder: Encoder, dataset: Dataset, tmp_path: Path, cache: Path
) -> None:
    one, two, three = dataset.items[:3]
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    items = (
        one,
        replace(two, images=()),
        replace(three, captions=()),
        Item("broken", images=(broken,), captions=("!!!",)),
    )
    problems = Problems()
    found = any_encoder.encode_data(Dataset(items), cache=cache, problems=problems)
    assert found["image"][0] == [one.id, three.id]
    assert found["text"][0] == [one.id, two.id]
    assert found["image"][1] == any_encoder.encode_images([one.images[0], three.images[0]])
    assert found["text"][1] == any_encoder.encode_texts([one.captions[0], two.captions[0]])
    assert sum(problems.count_by_kind().values()) == 2


def test_encode_data_gives_the_codes_of_all_sources_of_an_item(
    any_encoder: Encoder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = dataset.items[:3]
    items = (
        replace(one, captions=("a red star", "!!!", "a blue cross"), images=one.images * 2),
        replace(two, captions=()),
        replace(three, captions=("a blue cross",), images=(*one.images, *three.images)),
    )
    encoded: list[int] = []
    encode = type(any_encoder).encode

    def counted(self: Encoder, modality: Modality, sources: Any, **options: Any) -> Any:
        encoded.append(len(sources))
        return encode(self, modality, sources, **options)

    monkeypatch.setattr(type(any_encoder), "encode", counted)
    found = any_encoder.encode_data(Dataset(items), problems=Problems())
    assert sorted(encoded) == [3, 3]  # three different pictures, three different captions
    texts, images = found["text"], found["image"]
    assert texts.ids == [one.id, three.id] and texts.offsets.tolist() == [0, 2, 3]
    assert texts.positions.tolist() == [0, 2, 0]
    assert texts.id_of_codes() == [one.id, one.id, three.id]
    assert images.ids == [one.id, two.id, three.id] and images.offsets.tolist() == [0, 2, 3, 5]
    assert texts.codes == any_encoder.encode_texts(["a red star", "a blue cross", "a blue cross"])
    pictures = [*one.images, *one.images, *two.images, *one.images, *three.images]
    assert images.codes == any_encoder.encode_images(pictures)


def test_batches_have_all_codes_and_the_coded_sources_first(
    any_encoder: Encoder, dataset: Dataset
) -> None:
    one, two, three = dataset.items[:3]
    items = (
        replace(one, captions=("!!!", "a red star", "???", "a blue cross")),
        replace(two, images=(), captions=("!!!",)),
        replace(three, captions=(), images=(*one.images, *three.images)),
    )
    data = Dataset(items, problems=Problems())
    for size, count in ((1, 2), (10, 1)):
        batches = list(any_encoder.batches(data, size=size))
        assert len(batches) == count
        joined = DocumentBatch.join(batches)
        assert joined.ids == [one.id, three.id]
        assert joined.counts("text").tolist() == [2, 0]
        assert joined.counts("image").tolist() == [1, 2]
        texts = any_encoder.encode_texts(["a red star", "a blue cross"])
        assert joined.codes("text")[1] == texts
        fields = joined.fields_by_id()
        assert fields[one.id]["text"] == ["a red star", "a blue cross", "!!!", "???"]
        assert fields[three.id]["image"] == [str(one.images[0]), str(three.images[0])]


def test_encode_pairs_leaves_out_unusable_sources_and_items(
    any_encoder: Encoder, dataset: Dataset
) -> None:
    one, two = dataset.items[:2]
    first = replace(one, captions=("!!!", "a red star", "a blue cross"))
    pairs = Dataset((first, replace(two, captions=("???",))))
    usable, encoded = any_encoder.encode_pairs(pairs)
    assert usable.ids == [one.id] and usable.items[0].captions == first.captions[1:]
    assert encoded["text"].codes == any_encoder.encode_texts(first.captions[1:])
    assert len(encoded["image"].codes) == len(encoded["image"].features) == 1


def test_encode_data_without_pictures_gives_no_image_codes(any_encoder: Encoder) -> None:
    found = any_encoder.encode_data(Dataset((Item("a", captions=("a red star",)),)))
    ids, codes, *_ = found["image"]
    assert (ids, len(codes), codes.bits) == ([], 0, any_encoder.bits)
    assert found["text"][0] == ["a"]


def test_as_tensor_keeps_uint8_and_converts_float16() -> None:
    pixels = np.zeros((2, 3), np.uint8)
    assert as_tensor(pixels).dtype == torch.uint8
    assert as_tensor(np.zeros((2, 3), np.float16)).dtype == torch.float32


def test_encoding_does_not_change_the_towers(encoder: Encoder) -> None:
    assert not encoder.towers.training
    before = {name: tensor.clone() for name, tensor in encoder.towers.state_dict().items()}
    encoder.encode_texts(TEXTS)
    assert all(torch.equal(before[k], v) for k, v in encoder.towers.state_dict().items())


# ---- confidence ------------------------------------------------------------------------------


def test_confidence_is_higher_for_matches(encoder: Encoder, dataset: Dataset, cache: Path) -> None:
    codes = encoder.encode_data(dataset, cache=cache)
    distances = codes["text"][1].distances(codes["image"][1])
    similarities = 1 - 2 * distances / encoder.bits
    find = encoder.confidence.hits_confidence
    values = np.array([find("hamming", row.tolist(), len(row)) for row in similarities], float)
    own = np.eye(len(values), dtype=bool)
    assert values[own].mean() > values[~own].mean() + 0.01
    assert 0 <= values.min() <= values.max() <= 1
