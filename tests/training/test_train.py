"""``train`` and ``evaluate``: finished and stopped runs, training data, errors, evaluation."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xmodal.config import OLD_NAMES, REMOVED, Options
from xmodal.data.dataset import Dataset, Item, Problems
from xmodal.data.split import split
from xmodal.encoders.folder import write_config
from xmodal.encoders.load import load_encoder
from xmodal.errors import CodeError, ConfigError, DataError
from xmodal.evaluation.evaluate import evaluate
from xmodal.training.train import METHODS, _identity, train

OPTIONS = Options(bits=16, image_backbone="small-cnn", text_backbone="words")
SETTINGS = {"epochs": 1, "batch": 64, "hidden": 16}


@pytest.fixture(scope="module")
def few(dataset: Dataset) -> Dataset:
    """60 items of the synthetic data, without a given split."""
    return replace(dataset, items=tuple(replace(item, split=None) for item in dataset.items[:60]))


@pytest.fixture(scope="module")
def trained(few: Dataset, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an encoder of these items after one epoch; read-only."""
    folder = tmp_path_factory.mktemp("trained") / "few.model"
    train(few, folder, OPTIONS, SETTINGS, cache=cache)
    return folder


def never(*figures: Any) -> None:
    raise AssertionError(f"trained again: {figures}")


# ---- finished and stopped runs -------------------------------------------------------------------


def test_finished_run_is_loaded(trained: Path, few: Dataset) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in trained.iterdir()}
    started = time.perf_counter()
    again = train(few, trained, OPTIONS, SETTINGS, show=never, progress=never)
    assert time.perf_counter() - started < 1
    assert again.fingerprint == load_encoder(trained).fingerprint
    assert {path.name: path.stat().st_mtime_ns for path in trained.iterdir()} == before


def test_finished_run_of_an_earlier_version_is_loaded(
    trained: Path, few: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "old.model"
    shutil.copytree(trained, folder)
    config = json.loads((folder / "config.json").read_text())
    names = {new: old for old, new in OLD_NAMES.items()}
    settings = {names.get(name, name): value for name, value in config["settings"].items()}
    settings |= {"positives": "believed", **REMOVED}
    config.pop("sha256", None)  # added by later versions
    config |= {"settings": settings, "identity": _identity(few, config["options"], settings)}
    write_config(folder, config)
    again = train(few, folder, OPTIONS, SETTINGS, show=never, progress=never)
    assert again.fingerprint == load_encoder(trained).fingerprint
    with pytest.raises(ConfigError, match="other data or settings"):
        train(few, folder, OPTIONS, SETTINGS | {"epochs": 2}, show=never)


@pytest.mark.parametrize(
    ("options", "settings", "rows"),
    [
        (replace(OPTIONS, bits=24), SETTINGS, 60),
        (replace(OPTIONS, seed=1), SETTINGS, 60),
        (OPTIONS, SETTINGS | {"hidden": 8}, 60),
        (OPTIONS, SETTINGS, 50),
    ],
)
def test_other_settings_or_data_raise_config_error(
    trained: Path, few: Dataset, options: Options, settings: Any, rows: int
) -> None:
    data = replace(few, items=few.items[:rows])
    before = (trained / "config.json").read_bytes()
    with pytest.raises(ConfigError, match=r"other data or settings: name another --out, or rep"):
        train(data, trained, options, settings, show=never)
    assert (trained / "config.json").read_bytes() == before


def test_restart_replaces_encoder_and_sheets(few: Dataset, cache: Path, tmp_path: Path) -> None:
    train(few, tmp_path, OPTIONS, SETTINGS, cache=cache)
    (tmp_path / "synthetic-010.png").write_bytes(b"")  # a method's sheet of pictures
    shown: list[int] = []
    other = train(
        few,
        tmp_path,
        replace(OPTIONS, bits=24),
        SETTINGS,
        cache=cache,
        restart=True,
        show=lambda epoch, *_: shown.append(epoch),
    )
    assert shown == [1]
    assert other.bits == load_encoder(tmp_path).bits == 24
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1
    assert not (tmp_path / "synthetic-010.png").exists()


def test_fingerprint_depends_on_the_seed_and_not_on_the_folder(
    trained: Path, few: Dataset, cache: Path, tmp_path: Path
) -> None:
    first = load_encoder(trained).fingerprint
    assert train(few, None, OPTIONS, SETTINGS, cache=cache).fingerprint == first
    other = train(few, None, replace(OPTIONS, seed=1), SETTINGS, cache=cache)
    assert other.fingerprint != first


def test_stopped_run_continues_with_the_same_result(
    few: Dataset, cache: Path, tmp_path: Path
) -> None:
    settings = SETTINGS | {"epochs": 3, "warmup": 1}
    whole = train(few, None, OPTIONS, settings, cache=cache)

    def stop(epoch: int, _count: int, _figures: Mapping[str, float]) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(few, tmp_path, OPTIONS, settings, cache=cache, show=stop)
    assert (tmp_path / "checkpoint.pt").exists()
    with pytest.raises(ConfigError, match=r"stopped run with other data or settings"):
        train(few, tmp_path, OPTIONS, SETTINGS | {"hidden": 8}, cache=cache)
    shown: list[int] = []
    resumed = train(
        few, tmp_path, OPTIONS, settings, cache=cache, show=lambda epoch, *_: shown.append(epoch)
    )
    assert shown == [3]
    assert resumed.fingerprint == whole.fingerprint
    assert resumed.confidence == whole.confidence
    assert not (tmp_path / "checkpoint.pt").exists()
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 3


# ---- training data -------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "labelled"), [(0.0, 0), (0.5, 24), (1.0, 49)])
def test_label_share_reduces_labelled_pairs(
    few: Dataset, cache: Path, share: float, labelled: int
) -> None:
    encoder = train(few, None, replace(OPTIONS, label_share=share), SETTINGS, cache=cache)
    assert encoder.about["data"]["train"] == 49  # 60, less a tenth (6), less a tenth (5)
    assert encoder.about["data"]["labelled"] == labelled


def test_encoder_stores_the_split(trained: Path, few: Dataset) -> None:
    encoder = load_encoder(trained)
    expected = split(few, validation=0.1, query=0.1, seed=0).ids()
    assert {role: list(ids) for role, ids in encoder.split.items()} == expected
    ids = [id_ for part in expected.values() for id_ in part]
    assert sorted(ids) == sorted(few.ids)


def test_config_json_has_options_settings_data_and_versions(trained: Path) -> None:
    config = json.loads((trained / "config.json").read_text())
    assert config["options"] | {"bits": 16, "method": "schgan"} == config["options"]
    assert config["settings"] | SETTINGS == config["settings"]
    assert config["data"] | {"train": 49, "validation": 5, "query": 6} == config["data"]
    assert config["figures"]["epoch"] == 1
    assert set(config["versions"]) == {"xmodal", "torch", "python"}


def test_without_a_folder_nothing_is_written(
    few: Dataset, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(few, None, OPTIONS, SETTINGS, cache=cache)
    assert list(tmp_path.iterdir()) == []


def test_unusable_items_are_problems_and_do_not_change_the_encoder(
    trained: Path, few: Dataset, cache: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    picture = few.items[0].images[0]
    bad = (
        Item("broken", images=(broken,), captions=("a red star",)),
        Item("unread", images=(picture,), captions=("!!!",)),
        Item("alone", captions=("a red star",)),
    )
    data = Dataset((*few.items, *bad), problems=Problems())
    encoder = train(data, None, OPTIONS, SETTINGS, cache=cache)
    assert encoder.about["data"]["train"] == 49
    assert sum(data.problems.count_by_kind().values()) == 2  # "alone" is not a pair, and no problem
    # Unusable items change neither the split nor the codes.
    assert encoder.fingerprint == load_encoder(trained).fingerprint


def test_training_without_validation_keeps_the_last_epoch(few: Dataset, cache: Path) -> None:
    options = replace(OPTIONS, validation=0.0, patience=1)
    encoder = train(few, None, options, SETTINGS | {"epochs": 3}, cache=cache)
    assert encoder.about["figures"] == {"epoch": 3}
    assert encoder.confidence.slope == 0
    assert list(encoder.split["validation"]) == []


# ---- errors --------------------------------------------------------------------------------------


def test_invalid_options_raise_before_the_folder_is_created(few: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no method 'gan', expected one of schgan"):
        train(few, tmp_path / "x", replace(OPTIONS, method="gan"))
    with pytest.raises(ConfigError, match=r"no setting 'epoch'"):
        train(few, tmp_path / "x", OPTIONS, {"epoch": 1})
    with pytest.raises(CodeError, match=r"bits is 12"):
        train(few, tmp_path / "x", replace(OPTIONS, bits=12))
    assert not (tmp_path / "x").exists()
    names = ["schgan", "schgan-paper", "dshgan", "multiadversarial", "sigah", "ssah"]
    assert list(METHODS) == names


def test_data_without_pairs_raises_data_error(few: Dataset) -> None:
    alone = Dataset(tuple(replace(item, images=()) for item in few), name="captions")
    with pytest.raises(DataError, match=r"captions has no pair of a picture and a text among 60"):
        train(alone, None, OPTIONS, SETTINGS)


def test_too_few_pairs_raise_data_error(few: Dataset, cache: Path) -> None:
    with pytest.raises(DataError, match=r"expected at least 8"):
        train(replace(few, items=few.items[:7]), None, OPTIONS, SETTINGS, cache=cache)


def test_folder_with_other_files_raises_and_is_not_changed(few: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ConfigError, match=r"is a file, expected a folder"):
        train(few, file, OPTIONS, SETTINGS)
    for restart in (False, True):
        with pytest.raises(ConfigError, match=r"other things in it"):
            train(few, tmp_path, OPTIONS, SETTINGS, restart=restart)
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]


# ---- evaluation ----------------------------------------------------------------------------------


def test_evaluate_queries_are_not_training_pairs(trained: Path, few: Dataset, cache: Path) -> None:
    encoder = load_encoder(trained)
    report, [(query, database)] = evaluate(encoder, few, cache=cache)
    assert sorted(query.ids) == sorted(encoder.split["query"])
    assert sorted([*query.ids, *database.ids]) == sorted(few.ids)
    assert report.facts["bits"] == 16
    assert {"chance", "cca + itq", "xmodal schgan"} <= set(report.rows)
    # For any part of the data and any stored split names.
    learned = {*encoder.split["train"], *encoder.split["validation"]}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        items = [replace(item, split="test") for item in few]
        part = tuple(items[row] for row in rng.permutation(60)[:45])
        _, [(query, _)] = evaluate(encoder, replace(few, items=part), cache=cache)
        assert query.ids
        assert not learned.intersection(query.ids)


def test_evaluate_uses_new_pairs_as_queries(
    trained: Path, few: Dataset, dataset: Dataset, cache: Path
) -> None:
    encoder = load_encoder(trained)
    known = [item for item in few if item.id in set(encoder.split["train"])]
    new = [replace(item, split=None) for item in dataset.items[60:75]]
    _, [(query, database)] = evaluate(encoder, Dataset((*known, *new)), cache=cache)
    assert sorted(query.ids) == sorted(item.id for item in new)
    assert sorted(database.ids) == sorted(item.id for item in known)


def test_evaluate_on_training_pairs_alone_raises_data_error(
    trained: Path, few: Dataset, cache: Path
) -> None:
    encoder = load_encoder(trained)
    learned = {*encoder.split["train"], *encoder.split["validation"]}
    with pytest.raises(DataError, match=r"all 54 were used to train"):
        evaluate(encoder, few.keep(lambda item: item.id in learned), cache=cache)


def test_evaluate_splits_new_data_as_training_does(
    trained: Path, dataset: Dataset, cache: Path
) -> None:
    encoder = load_encoder(trained)
    other = replace(
        dataset, items=tuple(replace(item, split=None) for item in dataset.items[60:140])
    )
    _, [(query, database)] = evaluate(encoder, other, cache=cache)
    expected = split(other, validation=0.1, query=0.1, seed=0)
    assert query.ids == expected.query.ids
    assert len(query) + len(database) == 80


def test_evaluate_uses_the_codes_of_the_encoder(trained: Path, few: Dataset, cache: Path) -> None:
    encoder = load_encoder(trained)
    _, [(query, _)] = evaluate(encoder, few, cache=cache)
    texts = {item.id: item.captions[0] for item in few}
    assert query.codes["text"] == encoder.encode_texts([texts[id_] or "" for id_ in query.ids])


def test_evaluate_averages_over_encoders(trained: Path, few: Dataset, cache: Path) -> None:
    one = load_encoder(trained)
    other = train(few, None, replace(OPTIONS, seed=1), SETTINGS, cache=cache)
    report, parts = evaluate([one, other], few, cache=cache)
    alone = [evaluate(encoder, few, cache=cache)[0] for encoder in (one, other)]
    assert (report.seeds, len(parts)) == (2, 2)
    way = "image->text"
    values = [each.rows["xmodal schgan"][way]["mAP"] for each in alone]
    assert report.rows["xmodal schgan"][way]["mAP"] == pytest.approx(sum(values) / 2)


def test_evaluate_leaves_out_unreadable_pictures(
    trained: Path, few: Dataset, cache: Path, tmp_path: Path
) -> None:
    encoder = load_encoder(trained)
    broken = tmp_path / "broken.png"
    Image.new("RGB", (8, 8)).save(broken)
    broken.write_bytes(broken.read_bytes()[:30])
    asked = encoder.split["query"][0]
    items = tuple(replace(item, images=(broken,)) if item.id == asked else item for item in few)
    data = replace(few, items=items, problems=Problems())
    _, [(query, database)] = evaluate(encoder, data, cache=cache)
    assert asked not in [*query.ids, *database.ids]
    assert len(data.problems) == 1
