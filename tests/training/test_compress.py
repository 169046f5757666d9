"""``compress`` and its command: results, finished and stopped runs, errors."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.config import OLD_NAMES
from xmodal.data.vectors import read_features
from xmodal.encoders.compressor import Compressor, read_codes
from xmodal.errors import ConfigError, DataError, ModelError
from xmodal.linear_models import unit
from xmodal.training.compress import _identity, compress

Cli = Callable[..., Any]
QUICK = {"epochs": 2, "units": 16, "discriminator_units": 4}
SET = " ".join(f"--set {name}={value}" for name, value in QUICK.items())
ANNOUNCED = re.compile(r".+: [\d,]+ vectors of [\d,]+ dimensions|epoch .*")


def vectors(n: int = 300, seed: int = 0) -> np.ndarray:
    """Skewed vectors (n, 24) near a curved surface of a few dimensions, as embeddings are."""
    rng = np.random.default_rng(seed)
    shape = np.random.default_rng(99)
    hidden = rng.normal(size=(n, 6)) @ shape.normal(size=(6, 24))
    return (np.maximum(hidden, 0) + 0.2 * rng.normal(size=(n, 24)) + 1).astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished folder of codes of ``vectors()``; read-only."""
    folder = tmp_path_factory.mktemp("compress") / "my.codes"
    compress(vectors(), 32, folder, QUICK)
    return folder


def never(*figures: Any) -> None:
    raise AssertionError(f"trained again: {figures}")


# ---- results -------------------------------------------------------------------------------------


def test_codes_are_signs_of_a_linear_map_of_unit_rows(made: Path) -> None:
    compressor = Compressor.load(made)
    relaxed = unit(vectors()) @ compressor.weight.T + compressor.offset
    assert read_codes(made) == BinaryCodes.from_relaxed(relaxed) == compressor.encode(vectors())
    packed = np.load(made / "codes.npy", allow_pickle=False)
    assert (packed.shape, packed.dtype) == ((300, 4), np.uint8)
    assert (compressor.bits, compressor.dim) == (32, 24)


def test_config_json_has_options_settings_data_and_versions(made: Path) -> None:
    names = "codes.npy config.json history.jsonl report.json weights.safetensors"
    assert sorted(path.name for path in made.iterdir()) == names.split()
    config = json.loads((made / "config.json").read_text())
    assert config["bits"] == 32 and config["dim"] == 24 and config["seed"] == 0
    assert config["settings"]["epochs"] == 2
    assert config["rows"] == {"all": 300, "query": 30, "validation": 15, "train": 255}
    assert config["fingerprint"] == Compressor.load(made).fingerprint
    assert set(config["versions"]) == {"xmodal", "torch", "python"}
    history = [json.loads(line) for line in (made / "history.jsonl").read_text().splitlines()]
    assert len(history) == 2 and {"recall@10", "k", "convergence", "sensing"} <= set(history[0])


def test_report_is_measured_on_held_out_rows(made: Path) -> None:
    report = json.loads((made / "report.json").read_text())
    assert report["measured"] == {"queries": 30, "searched": 270, "neighbours": 10}
    assert set(report["recall"]) == {"sigah", "itq", "pca"}
    for figures in report["recall"].values():
        assert 10 / 270 < figures["recall@10"] < figures["in first 100"] <= 1
    assert 0.5 < report["health"]["distinct"] <= 1


def clustered(n: int, seed: int = 0) -> np.ndarray:
    """Vectors (n, 24) of 40 clusters, each with variance in three directions."""
    shape, rng = np.random.default_rng(99), np.random.default_rng(seed)
    centres, ways = shape.normal(size=(40, 24)), shape.normal(size=(40, 24, 3))
    kind = rng.integers(40, size=n)
    along = np.einsum("ndk,nk->nd", ways[kind], rng.normal(size=(n, 3)))
    return centres[kind] + 0.7 * along + 0.1 * rng.normal(size=(n, 24))


def test_compress_has_more_recall_than_pca() -> None:
    settings = {"epochs": 10, "units": 32, "discriminator_units": 8}
    recall = compress(clustered(800), 16, None, settings).report["recall"]
    assert recall["sigah"]["recall@10"] > 1.1 * recall["pca"]["recall@10"]


def test_codes_do_not_depend_on_row_norm_and_dtype(made: Path) -> None:
    compressor, x = Compressor.load(made), vectors()
    codes = compressor.encode(x)
    lengths = np.geomspace(1e-30, 1e30, len(x))[:, None]
    for same in (x.astype(np.float64) * lengths, np.asfortranarray(x), x.astype(">f4")):
        assert (compressor.encode(same).to_bits() == codes.to_bits()).mean() > 0.9999
    half = compressor.encode(x.astype(np.float16))
    assert (half.to_bits() == codes.to_bits()).mean() > 0.99
    assert len(compressor.encode(np.zeros((3, 24)))) == 3  # zero rows: the offset alone


@pytest.mark.parametrize(
    "features",
    [
        vectors(8),
        vectors(23),
        np.ones((9, 5)),
        np.zeros((9, 5)),
        np.eye(9, 1),
        vectors(12).astype(np.float16),
        np.repeat(vectors(4), 5, axis=0),
    ],
    ids=["8 rows", "23 rows", "constant", "zero", "1 dimension", "half", "repeated"],
)
def test_compress_encodes_small_and_degenerate_matrices(features: np.ndarray) -> None:
    done = compress(features, 16, None, QUICK)
    assert len(done.codes) == len(features)
    values = [value for figures in done.report["recall"].values() for value in figures.values()]
    assert all(0 <= value <= 1 for value in values)


# ---- finished and stopped runs -------------------------------------------------------------------


def test_finished_run_is_loaded(made: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in made.iterdir()}
    again = compress(vectors(), 32, made, QUICK, show=never)
    assert {path.name: path.stat().st_mtime_ns for path in made.iterdir()} == before
    assert again.codes == read_codes(made)
    assert again.report == json.loads((made / "report.json").read_text())


def test_finished_run_of_an_earlier_version_is_loaded(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old.codes"
    shutil.copytree(made, folder)
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"], config["files"]  # earlier versions wrote neither
    names = {new: old for old, new in OLD_NAMES.items()}
    settings = {names.get(name, name): value for name, value in config["settings"].items()}
    config |= {"settings": settings, "identity": _identity(vectors(), 32, 0, settings)}
    (folder / "config.json").write_text(json.dumps(config))
    again = compress(vectors(), 32, folder, QUICK, show=never)
    assert again.compressor.fingerprint == Compressor.load(made).fingerprint


def test_fingerprint_depends_on_the_seed_and_not_on_the_folder(made: Path) -> None:
    assert compress(vectors(), 32, None, QUICK).codes == read_codes(made)
    assert compress(vectors(), 32, None, QUICK, seed=1).codes != read_codes(made)
    without = compress(vectors(), 32, None, QUICK | {"adversary": False})
    assert without.compressor.fingerprint != Compressor.load(made).fingerprint


@pytest.mark.parametrize(
    "other",
    [{"bits": 16}, {"seed": 1}, {"settings": QUICK | {"units": 8}}, {"features": vectors(299)}],
)
def test_other_features_or_settings_raise_config_error(made: Path, other: dict[str, Any]) -> None:
    given = {"features": vectors(), "bits": 32, "settings": QUICK, "show": never} | other
    with pytest.raises(ConfigError, match=r"codes of other features or settings: name another"):
        compress(out=made, **given)


def test_stopped_run_continues_with_the_same_result(tmp_path: Path) -> None:
    settings = QUICK | {"epochs": 3}
    whole = compress(vectors(), 16, None, settings)

    def stop(epoch: int, _count: int, _figures: Mapping[str, float]) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(vectors(), 16, tmp_path, settings, show=stop)
    assert (tmp_path / "checkpoint.pt").exists()
    with pytest.raises(ModelError, match="training there was stopped"):
        Compressor.load(tmp_path)
    with pytest.raises(ConfigError, match="stopped run with other data or settings"):
        compress(vectors(), 24, tmp_path, settings)
    shown: list[int] = []
    rest = compress(vectors(), 16, tmp_path, settings, show=lambda epoch, *_: shown.append(epoch))
    assert shown == [3]
    assert rest.compressor.fingerprint == whole.compressor.fingerprint
    assert rest.codes == whole.codes and rest.report == whole.report
    assert not (tmp_path / "checkpoint.pt").exists()


def test_restart_replaces_codes_and_keeps_other_files(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(made, folder)
    done = compress(vectors(), 16, folder, QUICK, restart=True)
    assert read_codes(folder) == done.codes and done.codes.bits == 16
    (folder / "thesis.doc").write_text("mine")
    with pytest.raises(ConfigError, match=r"other things in it \(thesis.doc\)"):
        compress(vectors(), 24, folder, QUICK, restart=True)
    assert (folder / "config.json").exists()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda text: text[: len(text) // 2]),
        ("config.json", lambda text: text.replace(b'"bits": 32', b'"bits": 24')),
        ("config.json", lambda text: text.replace(b'"fingerprint": "', b'"fingerprint": "x')),
        ("config.json", lambda text: text.replace(b'"format": 1', b'"format": 9')),
        ("config.json", lambda text: b"[1]"),
        ("weights.safetensors", lambda data: data[: len(data) // 2]),
        ("weights.safetensors", lambda data: data[:-1] + b"\7"),
        ("weights.safetensors", lambda data: data + b"\0"),
        ("codes.npy", lambda data: data[:-1]),
        ("codes.npy", lambda data: b""),
        ("codes.npy", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        ("report.json", lambda text: b"{"),
        ("report.json", lambda text: text.replace(b'"recall@10": 0.', b'"recall@10": 1.')),
    ],
)
def test_damaged_folder_raises_model_error(
    made: Path, tmp_path: Path, name: str, change: Callable[[bytes], bytes]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(made, folder)
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    with pytest.raises(ModelError, match=f"{name}|format 9") as raised:
        compress(vectors(), 32, folder, QUICK, show=never)
    assert "\n" not in str(raised.value) and "xmodal compress with --restart" in str(raised.value)


@pytest.mark.parametrize("name", ["codes.npy", "report.json", "weights.safetensors"])
def test_restart_mends_a_damaged_folder(made: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(made, folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        compress(vectors(), 32, folder, QUICK, show=never)
    compress(vectors(), 32, folder, QUICK, restart=True)
    assert read_codes(folder) == read_codes(made)


def test_file_of_another_compressor_of_the_same_shape_is_named(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(made, folder)
    compress(vectors(), 32, tmp_path / "other", QUICK, seed=5)
    shutil.copy(tmp_path / "other" / "codes.npy", folder)
    with pytest.raises(ModelError, match=r"codes\.npy"):
        read_codes(folder)


# ---- command line --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bad(made: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with valid feature files and invalid ones of each kind."""
    folder = tmp_path_factory.mktemp("features")
    x = vectors()
    infinite, missing = x.copy(), x.copy()
    infinite[4, 2], missing[299, 0] = np.inf, np.nan
    arrays = {
        "x": x,
        "other": vectors(5, seed=1).astype(np.float16),
        "inf": infinite,
        "nan": missing,
        "huge": np.full((9, 3), 1e300),
        "line": x[0],
        "cube": x[None],
        "scalar": np.float32(3),
        "empty": x[:0],
        "flat": x[:, :0],
        "seven": x[:7],
        "whole": np.ones((9, 4), np.int64),
        "bytes": np.ones((9, 4), np.uint8),
        "complex": np.ones((9, 4), np.complex64),
        "narrow": x[:, :8],
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "objects.npy", np.array([[{}, 1]], dtype=object), allow_pickle=True)
    np.savez(folder / "two.npz", image=x, text=x)
    np.savez(folder / "two.npy.npz", image=x)
    shutil.move(folder / "two.npy.npz", folder / "two.npy")
    (folder / "words.npy").write_text("a,b\n1,2\n")
    (folder / "nothing.npy").write_bytes(b"")
    (folder / "cut.npy").write_bytes((folder / "x.npy").read_bytes()[:500])
    (folder / "cut.npz").write_bytes((folder / "two.npz").read_bytes()[:500])
    (folder / "folder.npy").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "photo.jpg").write_bytes(b"")
    shutil.copytree(made, folder / "made")
    shutil.copytree(model, folder / "model")
    return folder


LEARN = "compress {t}/%s.npy --out {t}/new --bits 16 " + SET
APPLY = "compress {t}/x.npy --apply {t}/%s --out {t}/new"
MISTAKES = [
    ("not there", LEARN % "gone", "gone.npy does not exist"),
    ("folder", LEARN % "folder", "folder.npy is a folder"),
    ("text", LEARN % "words", "words.npy .* expected a .npy file"),
    ("empty file", LEARN % "nothing", "nothing.npy .* expected a .npy file"),
    ("truncated", LEARN % "cut", "not a readable .npy file"),
    ("pickled", LEARN % "objects", "not a readable .npy file of numbers"),
    (
        "several",
        LEARN % "two",
        r"two.npy .*\(.npz\)",
    ),
    ("npz", "compress {t}/two.npz --out {t}/new", r"two.npz .*\(.npz\)"),
    ("npz truncated", "compress {t}/cut.npz --out {t}/new", r"cut.npz .*\(.npz\)"),
    ("infinite", LEARN % "inf", "row 4 of the features has NaN, infinity"),
    ("nan", LEARN % "nan", "row 299 of the features has NaN"),
    ("beyond float32", LEARN % "huge", "row 0 of the features has .* beyond float32"),
    ("one vector", LEARN % "line", r"line.npy has shape \(24,\), expected \(n, dim\)"),
    ("three axes", LEARN % "cube", r"shape \(1, 300, 24\), expected \(n, dim\)"),
    ("a number", LEARN % "scalar", r"shape \(\), expected"),
    ("no rows", LEARN % "empty", r"shape \(0, 24\)"),
    ("no columns", LEARN % "flat", r"shape \(300, 0\)"),
    ("too few", LEARN % "seven", "there are 7 rows, expected at least 8"),
    ("whole numbers", LEARN % "whole", "is int64, expected float16, float32 or float64"),
    ("bytes", LEARN % "bytes", "is uint8, expected float16"),
    ("complex", LEARN % "complex", "is complex64, expected float16"),
    ("bits", LEARN % "x" + " --bits 12", "bits is 12, expected a multiple of 8"),
    ("no bits", LEARN % "x" + " --bits 0", "bits is 0, expected a multiple of 8"),
    ("bits no number", LEARN % "x" + " --bits many", "Invalid value for '--bits'"),
    ("seed", LEARN % "x" + " --seed -1", "seed is -1, expected 0 or more"),
    ("setting", LEARN % "x" + " --set speed=3", "no setting 'speed'"),
    ("setting type", LEARN % "x" + " --set gamma=high", "gamma is 'high', expected a number"),
    ("setting range", LEARN % "x" + " --set gamma=2", "gamma is 2.0, expected at most 1"),
    ("no out", "compress {t}/x.npy", "Missing option '--out'"),
    ("out a file", "compress {t}/x.npy --out {t}/words.npy", "is a file, expected a folder"),
    ("out in a file", "compress {t}/x.npy --out {t}/words.npy/x " + SET, "words.npy"),
    ("out full", "compress {t}/x.npy --out {t}/full", r"other things in it \(photo.jpg\)"),
    ("out other codes", "compress {t}/x.npy --out {t}/made", "codes of other features or settings"),
    ("out an encoder", "compress {t}/x.npy --out {t}/model", "not a folder of xmodal compress"),
    (
        "apply nothing",
        APPLY % "gone",
        "no finished compressor at .*: create one with xmodal compress",
    ),
    ("apply an encoder", APPLY % "model", "not a folder of xmodal compress"),
    ("apply bits", APPLY % "made" + " --bits 32", "--bits .*--apply"),
    ("apply seed", APPLY % "made" + " --seed 0", "--seed .*--apply"),
    ("apply set", APPLY % "made" + " --set epochs=3", "--set .*--apply"),
    (
        "apply other width",
        "compress {t}/narrow.npy --apply {t}/made --out {t}/new",
        "the vectors have 8 dimensions, expected 24",
    ),
    ("apply nan", "compress {t}/nan.npy --apply {t}/made --out {t}/new", "row 299 of the feat"),
    ("apply to itself", "compress {t}/x.npy --apply {t}/made --out {t}/made", "--out and --apply"),
]


@pytest.mark.parametrize(
    ("command", "words"), [case[1:] for case in MISTAKES], ids=[c[0] for c in MISTAKES]
)
def test_invalid_command_prints_one_line(
    command: str, words: str, bad: Path, xmodal_cli: Cli
) -> None:
    told = xmodal_cli(*shlex.split(command.format(t=bad)))
    mistake = told.error_line(ANNOUNCED)
    assert re.search(words, mistake), mistake
    assert not (bad / "new").exists()


def test_command_trains_and_applies_a_compressor(
    bad: Path, tmp_path: Path, xmodal_cli: Cli
) -> None:
    ours, theirs = tmp_path / "my.codes", tmp_path / "other.codes"
    told = xmodal_cli("compress", bad / "x.npy", "--bits", "32", "--out", ours, *SET.split())
    assert told.status == 0
    assert "300 vectors of 24 dimensions" in told.err and "epoch   2/2" in told.err
    assert f" compress OTHER.npy --apply {ours} --out other.codes" in told.err
    fingerprint = Compressor.load(ours).fingerprint
    assert f"{ours}: 300 codes of 32 bits, {fingerprint}" in told.out
    for words in ("recall@10", "in first 100", "PCA + ITQ", "sign of PCA", "distinct"):
        assert words in told.out
    assert "10 exact cosine neighbours" in told.out and "30 held-out" in told.out

    applied = xmodal_cli("compress", bad / "other.npy", "--apply", ours, "--out", theirs)
    assert applied.status == 0
    assert f"{theirs}: 5 codes of 32 bits, {fingerprint}" in applied.out
    assert read_codes(theirs) == Compressor.load(ours).encode(np.load(bad / "other.npy"))
    again = xmodal_cli("compress", bad / "x.npy", "--apply", theirs, "--out", tmp_path / "third")
    assert again.status == 0  # a folder made by --apply can be applied
    assert read_codes(tmp_path / "third") == read_codes(ours)
    refused = xmodal_cli("compress", bad / "x.npy", "--apply", ours, "--out", theirs)
    assert refused.status == 2 and "--restart" in refused.err
    as_json = "compress", bad / "x.npy", "--apply", ours, "--out", theirs, "--restart", "--json"
    replaced = json.loads(xmodal_cli(*as_json).out)
    assert replaced == {
        "codes": str(theirs),
        "fingerprint": fingerprint,
        "n": 300,
        "bits": 32,
    }


def test_command_with_json_prints_one_object(made: Path, bad: Path, xmodal_cli: Cli) -> None:
    told = xmodal_cli(
        "compress", bad / "x.npy", "--bits", "32", "--out", made, "--json", *SET.split()
    )
    answer = json.loads(told.out)
    assert answer["recall"] == json.loads((made / "report.json").read_text())["recall"]
    assert (answer["n"], answer["bits"], answer["codes"]) == (300, 32, str(made))
    assert "epoch" not in told.err  # the finished run is loaded


def test_read_features_is_memory_mapped(bad: Path) -> None:
    features = read_features(bad / "x.npy")
    assert isinstance(features, np.memmap)
    with pytest.raises(DataError, match=r"the features is float128|longdouble|expected float16"):
        compress(vectors().astype(np.longdouble), 16, None, QUICK)
