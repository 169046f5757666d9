"""A portable encoder is used like any other, without torch, and a damaged one is one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from absent import TORCH, command, environment
from PIL import Image

import xmodal
from xmodal.data import Dataset
from xmodal.encoder import Encoder
from xmodal.errors import ExtraMissing, ModelError
from xmodal.loading import load_encoder
from xmodal.portable import PortableEncoder

Run = Callable[..., Any]
QUERY = "a red circle on the left"


def without(absent: tuple[str, ...], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``xmodal`` in a process in which some packages cannot be imported."""
    line = command(absent, *arguments)
    return subprocess.run(line, env=environment(), capture_output=True, text=True)


# ---- without torch ---------------------------------------------------------------------------


def test_search_index_encode_and_evaluate_need_no_torch(
    portable_path: Path,
    model: Path,
    world: Path,
    dataset: Dataset,
    encoder: Encoder,
    index_path: Path,
    tmp_path: Path,
) -> None:
    ours = ("--model", portable_path)
    done = without(TORCH, "index", world, *ours, "--index", tmp_path / "i", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["documents"], told["image"], told["text"]) == (150, 150, 150)

    # Codes of torch and of onnxruntime belong together: each index answers either query alike.
    for index in (tmp_path / "i", index_path):
        done = without(TORCH, "search", QUERY, *ours, "--index", index, "-k", 5, "--json")
        assert done.returncode == 0, done.stderr
        hits = json.loads(done.stdout)["hits"]
        opened = xmodal.open_index(index, encoder=encoder.fingerprint)
        expected = opened.search(encoder.encode_texts([QUERY]), 5, target="image")[0]
        assert [(hit["id"], hit["distance"]) for hit in hits] == [hit[:2] for hit in expected]
        opened.close()

    picture = dataset.items[0].image
    done = without(TORCH, "encode", *ours, "--text", QUERY, "--image", picture)
    codes = [encoder.encode_texts([QUERY]), encoder.encode_images([str(picture)])]
    assert done.stdout.split() == [one.to_hex()[0] for one in codes], done.stderr

    done = without(TORCH, "evaluate", world, *ours, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    report, _ = xmodal.evaluate(encoder, dataset)
    for name in ("xmodal schgan", "cca + itq", "label codeword"):
        for way, figures in report.rows[name].items():
            assert rows[name][way]["mAP"] == pytest.approx(figures["mAP"], abs=0.02), (name, way)

    done = without(TORCH, "search", QUERY, "--model", model, "--index", index_path)
    assert done.returncode == 2 and "[torch]'" in done.stderr
    assert "xmodal export makes a portable one of it" in done.stderr


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers"])
def test_what_is_not_installed_is_named(
    portable_path: Path, package: str, monkeypatch: pytest.MonkeyPatch, clip_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExtraMissing, match=r"the portable encoder in .*\[onnx\]'"):
        load_encoder(clip_path / "x.onnx").encode_texts(["a dog"])


# ---- used like any other ---------------------------------------------------------------------


def test_the_cache_keeps_codes_and_features(
    portable_path: Path, dataset: Dataset, tmp_path: Path
) -> None:
    cache, moved = tmp_path / "cache", shutil.copytree(portable_path, tmp_path / "m")
    first = PortableEncoder.load(portable_path).encode_pairs(dataset, cache=cache)[1]
    again = PortableEncoder.load(moved)
    for name in ("image.onnx", "text.onnx"):  # whoever opened a graph now would notice
        (moved / name).write_bytes(b"\0" * (moved / name).stat().st_size)
    kept = again.encode_pairs(dataset, cache=cache)[1]
    for side, one in first.items():
        assert kept[side].codes == one.codes
        assert kept[side].features.dtype == one.features.dtype
        assert np.array_equal(kept[side].features, one.features)
    with pytest.raises(ModelError, match="is damaged"):
        again.encode_texts(["something new"], cache=cache)


def test_threads_follow_the_environment(portable_path: Path) -> None:
    program = f"""
import os, threading, xmodal
encoder = xmodal.load_encoder({str(portable_path)!r})
encoder.encode_texts(["a"])
print(len(os.listdir("/proc/self/task")))
"""
    if not Path("/proc/self/task").exists():
        pytest.skip("threads are counted in /proc")
    counts = []
    for threads in ("1", "5"):
        counted = environment() | {
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": "1",
            "RAYON_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", program], env=counted, capture_output=True, text=True
        )
        counts.append(int(done.stdout))
    assert counts[1] == counts[0] + 4


# ---- damage ----------------------------------------------------------------------------------


def cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-20])


def gone(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def noise(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(b"\xff" * (folder / name).stat().st_size)


def edited(**changes: object) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "graph cut off": (cut("text.onnx"), r"damaged \(text.onnx has [\d,]+ bytes, expected [\d,]+\)"),
    "the other graph cut off": (cut("image.onnx"), r"damaged \(image.onnx has "),
    "graph missing": (gone("text.onnx"), "damaged .*No such file"),
    "graph of noise": (noise("text.onnx"), "damaged .*bring the whole folder, or make it again"),
    "tokenizer missing": (gone("tokenizer.json"), "damaged .*No such file"),
    "tokenizer of noise": (noise("tokenizer.json"), "damaged"),
    "config missing": (gone("config.json"), "there is no finished encoder"),
    "config cut off": (cut("config.json"), "damaged"),
    "format of the future": (edited(format=99), "is portable of format 99, this version reads"),
    "other encoder": (edited(fingerprint="0" * 16), "do not belong together: the graph is of"),
    "other width": (edited(bits=24), "do not belong together.*bring the whole folder"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_one_line(xmodal_cli: Run, clip_path: Path, tmp_path: Path, kind: str) -> None:
    damage, words = DAMAGES[kind]
    folder = Path(shutil.copytree(clip_path / "x.onnx", tmp_path / "x.onnx"))
    damage(folder)
    done = xmodal_cli("encode", "--model", folder, "--text", "a dog")
    assert (done.status, done.out) == (2, ""), done
    assert done.err.count("\n") == 1 and done.err.startswith("xmodal: ")
    with pytest.raises(ModelError, match=words):
        load_encoder(folder).encode_texts(["a dog"])


def edits(config: dict[str, Any], depth: int = 3) -> Iterator[tuple[str, dict[str, Any]]]:
    """The configuration without one of its keys, or with something else in its place."""
    for key in config:
        yield f"without {key}", {k: v for k, v in config.items() if k != key}
        for value in (None, [], "x", {}, -1):
            yield f"{key} is {value!r}", config | {key: value}
        if isinstance(config[key], dict) and depth:
            for what, inner in edits(config[key], depth - 1):
                yield f"{key}: {what}", config | {key: inner}


def test_a_config_that_was_tampered_with_does_no_more_than_be_refused(
    clip_path: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(clip_path / "x.onnx", tmp_path / "x.onnx"))
    config = json.loads((folder / "config.json").read_text())
    square = Image.fromarray(np.arange(60 * 40 * 3, dtype=np.uint8).reshape(60, 40, 3))

    def codes() -> list[str]:
        loaded = load_encoder(folder)
        assert 0 <= loaded.confidence(1) <= 1
        return [
            loaded.encode(*of).codes.to_hex()[0] for of in (("text", ["a"]), ("image", [square]))
        ]

    expected, refused = codes(), []
    decides = ("bits", "fingerprint", "confidence", "sides", "files", "kind", "format")
    for what, changed in edits({name: config[name] for name in decides}):
        kept = {name: config[name] for name in config if name not in decides}
        (folder / "config.json").write_text(json.dumps(kept | changed))
        try:
            assert codes() == expected, what  # what decides no code
        except ModelError as error:
            assert "\n" not in str(error), what
            refused.append(what)
    assert {"without sides", "bits is 'x'", "sides: image: preprocessing: fit is 'x'"} < set(
        refused
    )
    assert len(refused) > 150
