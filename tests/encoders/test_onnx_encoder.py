"""Portable encoders: no torch, cache, threads, damaged folders."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.absent import TORCH, command, environment

import xmodal
from xmodal.checksums import file_record
from xmodal.data.dataset import Dataset
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.folder import write_config
from xmodal.encoders.load import load_encoder
from xmodal.encoders.onnx_encoder import PortableEncoder
from xmodal.errors import ExtraMissing, ModelError

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
    photos_folder: Path,
    dataset: Dataset,
    encoder: Encoder,
    index_path: Path,
    tmp_path: Path,
) -> None:
    portable = ("--model", portable_path)
    done = without(TORCH, "index", photos_folder, *portable, "--index", tmp_path / "i", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["documents"], summary["image"], summary["text"]) == (150, 150, 150)

    # Codes of torch and of onnxruntime are equal: an index of either gives the same hits.
    for index in (tmp_path / "i", index_path):
        done = without(TORCH, "search", QUERY, *portable, "--index", index, "-k", 5, "--json")
        assert done.returncode == 0, done.stderr
        hits = json.loads(done.stdout)["hits"]
        opened = xmodal.open_index(index, fingerprint=encoder.fingerprint)
        expected = xmodal.Retriever(encoder, opened).search(text=QUERY, k=5)
        assert [(hit["id"], hit["distance"]) for hit in hits] == [hit[:2] for hit in expected]
        opened.close()

    picture = dataset.items[0].images[0]
    done = without(TORCH, "encode", *portable, "--text", QUERY, "--image", picture)
    codes = [encoder.encode_texts([QUERY]), encoder.encode_images([str(picture)])]
    assert done.stdout.split() == [one.to_hex()[0] for one in codes], done.stderr

    done = without(TORCH, "evaluate", photos_folder, *portable, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    report, _ = xmodal.evaluate(encoder, dataset)
    for name in ("xmodal schgan", "cca + itq", "label codeword"):
        for direction, figures in report.rows[name].items():
            expected_map = pytest.approx(figures["mAP"], abs=0.02)
            assert rows[name][direction]["mAP"] == expected_map, (name, direction)

    done = without(TORCH, "search", QUERY, "--model", model, "--index", index_path)
    assert done.returncode == 2 and "[torch]'" in done.stderr


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers"])
def test_missing_package_error_names_the_extra(
    portable_path: Path, package: str, monkeypatch: pytest.MonkeyPatch, clip_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExtraMissing, match=r"the portable encoder in .*\[onnx\]'"):
        load_encoder(clip_path / "x.onnx").encode_texts(["a dog"])


# ---- cache and threads -----------------------------------------------------------------------


def test_cached_features_need_no_backbone(
    clip_path: Path, dataset: Dataset, tmp_path: Path
) -> None:
    cache, moved = tmp_path / "cache", shutil.copytree(clip_path / "x.onnx", tmp_path / "m")
    first = PortableEncoder.load(moved).encode_pairs(dataset, cache=cache)[1]
    again = PortableEncoder.load(moved)
    for name in ("image.onnx", "text.onnx"):  # opening them raises an error
        (moved / name).write_bytes(b"\0" * (moved / name).stat().st_size)
    cached = again.encode_pairs(dataset, cache=cache)[1]
    for modality, one in first.items():
        assert cached[modality].codes == one.codes
        assert np.array_equal(cached[modality].outputs, one.outputs)
        assert np.array_equal(cached[modality].features, one.features)
    with pytest.raises(ModelError, match="is damaged"):
        again.encode_texts(["something new"], cache=cache)


@pytest.mark.parametrize("first", ["torch", "onnx"])
def test_torch_and_onnx_share_cached_features(
    clip_path: Path, dataset: Dataset, tmp_path: Path, first: str
) -> None:
    encoders = [load_encoder(clip_path / name) for name in ("x.model", "x.onnx")]
    for encoder in encoders if first == "torch" else encoders[::-1]:
        encoder.encode_data(dataset, cache=tmp_path)
        files = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.sqlite")}
        assert len(files) == 2  # one of each backbone


def test_number_of_threads_is_omp_num_threads(portable_path: Path) -> None:
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


# ---- damaged folders -------------------------------------------------------------------------


def truncated(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-20])


def removed(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def noise(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(b"\xff" * (folder / name).stat().st_size)


def edited(**changes: object) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        del config["sha256"]  # as in earlier versions
        (folder / "config.json").write_text(json.dumps(config | changes))

    return damage


def flipped(name: str, share: float, bit: int = 0x10) -> Callable[[Path], object]:
    """Flip a bit of a file at a share of its length."""

    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[int(len(data) * share)] ^= bit
        (folder / name).write_bytes(data)

    return damage


def replaced(name: str, value: object) -> Callable[[Path], object]:
    """Replace a number of config.json."""

    def damage(folder: Path) -> None:
        text = (folder / "config.json").read_text()
        changed = re.sub(rf'("{name}": )[-0-9.e]+', rf"\g<1>{value}", text)
        assert changed != text
        (folder / "config.json").write_text(changed)

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit of a graph": (flipped("text.onnx", 0.4), "text.onnx has sha256"),
    "flipped bit of a tokenizer": (flipped("tokenizer.json", 0.5), "tokenizer.json has sha256"),
    "edited confidence": (replaced("offset", 9.5), "config.json was changed"),
    "edited preprocessing": (replaced("max_tokens", 7), "config.json was changed"),
    "truncated text graph": (truncated("text.onnx"), r"text.onnx has [\d,]+ bytes"),
    "truncated image graph": (truncated("image.onnx"), r"image.onnx has [\d,]+ bytes"),
    "missing graph": (removed("text.onnx"), "damaged .*text.onnx"),
    "graph of noise": (noise("text.onnx"), "damaged .*xmodal export"),
    "missing tokenizer": (removed("tokenizer.json"), "damaged .*tokenizer.json"),
    "tokenizer of noise": (noise("tokenizer.json"), "damaged"),
    "missing config": (removed("config.json"), "no finished encoder"),
    "truncated config": (truncated("config.json"), "damaged"),
    "later format": (edited(format=99), "format 99"),
    "another encoder": (edited(fingerprint="0" * 16), "do not belong together"),
    "another code width": (edited(bits=24), "do not belong together"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_folder_raises_one_line(
    xmodal_cli: Run, clip_path: Path, tmp_path: Path, kind: str
) -> None:
    damage, message = DAMAGES[kind]
    folder = Path(shutil.copytree(clip_path / "x.onnx", tmp_path / "x.onnx"))
    damage(folder)
    done = xmodal_cli("encode", "--model", folder, "--text", "a dog")
    assert (done.status, done.out) == (2, ""), done
    assert done.err.count("\n") == 1 and done.err.startswith("xmodal: ")
    with pytest.raises(ModelError, match=message):
        load_encoder(folder).encode_texts(["a dog"])


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("graph", ["image.onnx", "text.tower.onnx"])
def test_flipped_bit_of_a_graph_raises(
    portable_path: Path, tmp_path: Path, graph: str, share: float
) -> None:
    folder = Path(shutil.copytree(portable_path, tmp_path / "x.onnx"))
    flipped(graph, share, 0x40)(folder)
    with pytest.raises(ModelError, match=f"{graph} has sha256"):
        if graph == "image.onnx":
            load_encoder(folder).encode("image", [Image.new("RGB", (40, 40), "red")])
        else:  # the features of hashed words need no graph
            load_encoder(folder).encode("text", ["a red star"])


def test_flipped_bit_of_external_data_raises(portable_path: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    square = Image.new("RGB", (40, 40), "red")
    folder = Path(shutil.copytree(portable_path, tmp_path / "x.onnx"))
    graph = folder / "image.onnx"
    model = onnx.load(graph)
    data = {"save_as_external_data": True, "location": "image.onnx.data", "size_threshold": 1024}
    graph.unlink()
    onnx.save(model, graph, **data)
    config = json.loads((folder / "config.json").read_text())
    config["files"] |= {p.name: file_record(p) for p in folder.glob("image.onnx*")}
    write_config(folder, config)
    whole = load_encoder(portable_path).encode_images([square])
    assert load_encoder(folder).encode_images([square]) == whole
    flipped("image.onnx.data", 0.5, 0x40)(folder)
    with pytest.raises(ModelError, match=r"image.onnx.data has sha256"):
        load_encoder(folder).encode_images([square])


def test_portable_encoder_without_a_digest_loads(portable_path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(portable_path, tmp_path / "x.onnx"))
    edited(note="changed")(folder)
    whole, older = load_encoder(portable_path), load_encoder(folder)
    assert older.encode_texts(["a red star"]) == whole.encode_texts(["a red star"])


def edits(config: dict[str, Any], depth: int = 3) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield descriptions and configs in which one key is missing or has another value."""
    for key in config:
        yield f"without {key}", {k: v for k, v in config.items() if k != key}
        for value in (None, [], "x", {}, -1):
            yield f"{key} is {value!r}", config | {key: value}
        if isinstance(config[key], dict) and depth:
            for what, inner in edits(config[key], depth - 1):
                yield f"{key}: {what}", config | {key: inner}


def test_changed_config_raises_or_gives_the_same_codes(clip_path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(clip_path / "x.onnx", tmp_path / "x.onnx"))
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"]  # as in earlier versions
    square = Image.fromarray(np.arange(60 * 40 * 3, dtype=np.uint8).reshape(60, 40, 3))

    def codes() -> list[str]:
        loaded = load_encoder(folder)
        found = loaded.confidence.hits_confidence("vectors", [0.5], 9, distances=[1])
        assert found[0] is None or 0 <= found[0] <= 1
        return [
            loaded.encode(*of).codes.to_hex()[0] for of in (("text", ["a"]), ("image", [square]))
        ]

    expected, raised = codes(), []
    decides = ("bits", "fingerprint", "confidence", "sides", "files", "kind", "format")
    for what, changed in edits({name: config[name] for name in decides}):
        others = {name: config[name] for name in config if name not in decides}
        (folder / "config.json").write_text(json.dumps(others | changed))
        try:
            assert codes() == expected, what  # a value that does not decide a code
        except ModelError as error:
            assert "\n" not in str(error), what
            raised.append(what)
    assert {"without sides", "bits is 'x'", "sides: image: preprocessing: fit is 'x'"} < set(raised)
    assert len(raised) > 150
