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
from xmodal.data.dataset import Dataset
from xmodal.data.groups import with_groups
from xmodal.data.items import Item
from xmodal.data.problems import Problems
from xmodal.data.split import split
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.folder import write_config
from xmodal.encoders.load import load_encoder
from xmodal.errors import CodeError, ConfigError, DataError
from xmodal.evaluation.evaluate import Evaluated, evaluate
from xmodal.evaluation.protocol import Part
from xmodal.features.extract import Array
from xmodal.features.units import Units
from xmodal.training.identity import run_identity
from xmodal.training.train import METHODS, train

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
    config |= {"settings": settings, "identity": run_identity(few, config["options"], settings)}
    write_config(folder, config)
    again = train(few, folder, OPTIONS, SETTINGS, show=never, progress=never)
    assert again.fingerprint == load_encoder(trained).fingerprint
    with pytest.raises(ConfigError, match=r"another setting \(epochs .*, not 2\)"):
        train(few, folder, OPTIONS, SETTINGS | {"epochs": 2}, show=never)


@pytest.mark.parametrize(
    ("options", "settings", "rows", "named"),
    [
        (replace(OPTIONS, bits=24), SETTINGS, 60, "bits"),
        (replace(OPTIONS, seed=1), SETTINGS, 60, "seed"),
        (OPTIONS, SETTINGS | {"hidden": 8}, 60, "hidden"),
        (OPTIONS, SETTINGS, 50, "items"),
    ],
)
def test_other_settings_or_data_are_named(
    trained: Path, few: Dataset, options: Options, settings: Any, rows: int, named: str
) -> None:
    data = replace(few, items=few.items[:rows])
    before = (trained / "config.json").read_bytes()
    with pytest.raises(ConfigError, match=rf"{named}.*: name another --out, or replace it"):
        train(data, trained, options, settings, show=never)
    assert (trained / "config.json").read_bytes() == before


def test_pictures_that_changed_under_their_names_raise_config_error(
    trained: Path, few: Dataset, tmp_path: Path
) -> None:
    items = []
    for item in few:
        (path,) = item.images
        copy = tmp_path / f"{item.id.replace('/', '-')}.png"
        shutil.copy2(path, copy)
        items.append(replace(item, images=(copy,)))
    data, folder = replace(few, items=tuple(items)), tmp_path / "m"
    shutil.copytree(trained, folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("sha256")
    config["identity"] = run_identity(data, config["options"], config["settings"])
    write_config(folder, config)
    train(data, folder, OPTIONS, SETTINGS, show=never)  # equal bytes at other paths
    shutil.copy(items[1].images[0], items[0].images[0])
    with pytest.raises(ConfigError, match="other pictures"):
        train(data, folder, OPTIONS, SETTINGS, show=never)
    config.pop("pictures")  # of an earlier version, without a record
    write_config(folder, config)
    train(data, folder, OPTIONS, SETTINGS, show=never)


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


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_label_share_reduces_labelled_pairs(few: Dataset, cache: Path, share: float) -> None:
    encoder = train(few, None, replace(OPTIONS, label_share=share), SETTINGS, cache=cache)
    pairs = encoder.about["data"]["train"]
    assert pairs == len(split(with_groups(few)).train)
    assert encoder.about["data"]["labelled"] == round(share * pairs)


def test_encoder_stores_the_split(trained: Path, few: Dataset) -> None:
    encoder = load_encoder(trained)
    expected = split(with_groups(few), validation=0.1, query=0.1, seed=0).ids()
    assert {role: list(ids) for role, ids in encoder.split.items()} == expected
    ids = [id_ for part in expected.values() for id_ in part]
    assert sorted(ids) == sorted(few.ids)


def test_config_json_has_options_settings_data_and_versions(trained: Path, few: Dataset) -> None:
    config = json.loads((trained / "config.json").read_text())
    assert config["options"] | {"bits": 16, "method": "schgan"} == config["options"]
    assert config["settings"] | SETTINGS == config["settings"]
    counts = {role: len(ids) for role, ids in split(with_groups(few)).ids().items()}
    assert config["data"] | counts == config["data"]
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
    assert encoder.about["data"]["train"] == len(split(with_groups(few)).train)
    assert sum(data.problems.count_by_kind().values()) == 2  # "alone" is not a pair, and no problem
    # Unusable items change neither the split nor the codes.
    assert encoder.fingerprint == load_encoder(trained).fingerprint


def test_training_without_validation_keeps_the_last_epoch(few: Dataset, cache: Path) -> None:
    options = replace(OPTIONS, validation=0.0, patience=1)
    encoder = train(few, None, options, SETTINGS | {"epochs": 3}, cache=cache)
    assert encoder.about["figures"] == {"epoch": 3}
    assert encoder.confidence.hits_confidence("vectors", [0.5], 10) == [None]
    assert list(encoder.split["validation"]) == []


# ---- errors --------------------------------------------------------------------------------------


def test_invalid_options_raise_before_the_folder_is_created(few: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no method 'gan', expected one of auto"):
        train(few, tmp_path / "x", replace(OPTIONS, method="gan"))
    with pytest.raises(ConfigError, match=r"no setting 'epoch'"):
        train(few, tmp_path / "x", OPTIONS, {"epoch": 1})
    with pytest.raises(CodeError, match=r"bits is 12"):
        train(few, tmp_path / "x", replace(OPTIONS, bits=12))
    assert not (tmp_path / "x").exists()
    names = ["contrastive", "schgan", "schgan-paper", "dshgan", "multiadversarial", "sigah", "ssah"]
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


def label_parts(one: Evaluated) -> tuple[Part, Part]:
    """The queries and the database of the figures by labels."""
    assert one.by_labels is not None
    return one.by_labels


def test_evaluate_queries_are_not_training_pairs(trained: Path, few: Dataset, cache: Path) -> None:
    encoder = load_encoder(trained)
    report, [one] = evaluate(encoder, few, cache=cache)
    query, database = label_parts(one)
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
        _, [one] = evaluate(encoder, replace(few, items=part), cache=cache)
        query, _ = label_parts(one)
        assert query.ids
        assert not learned.intersection(query.ids)


def test_evaluate_uses_new_pairs_as_queries(
    trained: Path, few: Dataset, dataset: Dataset, cache: Path
) -> None:
    encoder = load_encoder(trained)
    known = [item for item in few if item.id in set(encoder.split["train"])]
    new = [replace(item, split=None) for item in dataset.items[60:75]]
    _, [one] = evaluate(encoder, Dataset((*known, *new)), cache=cache)
    query, database = label_parts(one)
    assert sorted(query.ids) == sorted(item.id for item in new)
    assert sorted(database.ids) == sorted(item.id for item in known)


def test_evaluate_on_training_pairs_alone_raises_data_error(
    trained: Path, few: Dataset, cache: Path
) -> None:
    encoder = load_encoder(trained)
    learned = {*encoder.split["train"], *encoder.split["validation"]}
    with pytest.raises(DataError, match=f"all {len(learned)} were used to train"):
        evaluate(encoder, few.keep(lambda item: item.id in learned), cache=cache)


def test_evaluate_splits_new_data_as_training_does(
    trained: Path, dataset: Dataset, cache: Path
) -> None:
    encoder = load_encoder(trained)
    other = replace(
        dataset, items=tuple(replace(item, split=None) for item in dataset.items[60:140])
    )
    _, [one] = evaluate(encoder, other, cache=cache)
    query, database = label_parts(one)
    expected = split(with_groups(other), validation=0.1, query=0.1, seed=0)
    assert sorted(query.ids) == sorted(expected.query.ids)
    assert len(query) + len(database) == 80


def test_evaluate_uses_the_codes_of_the_encoder(trained: Path, few: Dataset, cache: Path) -> None:
    encoder = load_encoder(trained)
    _, [one] = evaluate(encoder, few, cache=cache)
    query, _ = label_parts(one)
    texts = {item.id: item.captions[0] for item in few}
    assert query.codes["text"] == encoder.encode_texts([texts[id_] or "" for id_ in query.ids])


def test_evaluate_averages_over_encoders(trained: Path, few: Dataset, cache: Path) -> None:
    one = load_encoder(trained)
    other = train(few, None, replace(OPTIONS, seed=1), SETTINGS, cache=cache)
    report, evaluated = evaluate([one, other], few, cache=cache)
    alone = [evaluate(encoder, few, cache=cache)[0] for encoder in (one, other)]
    assert (report.seeds, len(evaluated)) == (2, 2)
    way = "image->text"
    values = [each.rows["xmodal schgan"][way]["mAP"] for each in alone]
    assert report.rows["xmodal schgan"][way]["mAP"] == pytest.approx(sum(values) / 2)
    rsums = [each.captions["query"]["rsum"] for each in alone]
    assert report.captions["query"]["rsum"] == pytest.approx(sum(rsums) / 2)


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
    _, [one] = evaluate(encoder, data, cache=cache)
    query, database = label_parts(one)
    assert asked not in [*query.ids, *database.ids]
    assert len(data.problems) == 1


def test_evaluate_measures_captions_of_units(trained: Path, few: Dataset, cache: Path) -> None:
    encoder = load_encoder(trained)
    captions = {id_: f"{id_} once more" for id_ in encoder.split["query"]}
    several = tuple(
        replace(item, captions=(*item.captions, captions.get(item.id, "again")), labels=None)
        for item in few
    )
    data = replace(few, items=several, problems=Problems())
    report, [one] = evaluate(encoder, data, cache=cache)
    assert report.rows == {} and one.by_labels is None
    found, units = report.captions["query"], one.captions["query"].units
    n = len(encoder.split["query"])
    assert (found["units"], found["pictures"], found["captions"]) == (n, n, 2 * n)
    assert set(units.text_ids) == {f"{id_}#{k}" for id_ in captions for k in (0, 1)}
    texts = {f"{item.id}#{k}": text for item in several for k, text in enumerate(item.captions)}
    expected = encoder.encode_texts([texts[name] for name in units.text_ids])
    assert one.captions["query"].codes["text"] == expected
    assert (
        one.captions["query"].codes["text"].to_bits() == (one_outputs(encoder, units) > 0)
    ).all()
    assert {"chance", "cca + itq", "float cosine (cca)"} <= set(found["baselines"])
    assert "validation" in report.captions and "outputs" in found
    # Two of the documents: their codes are those of all their sources.
    assert one.documents.counts("text").tolist() == [2] * len(one.documents)
    assert not set(one.documents.ids) & set(encoder.split["query"])


def one_outputs(encoder: Encoder, units: Units) -> Array:
    outputs = encoder.outputs("text", units.text)
    assert outputs is not None
    return outputs


def test_evaluate_of_labels_that_no_other_pair_has_measures_captions(
    trained: Path, few: Dataset, cache: Path
) -> None:
    items = tuple(replace(item, labels=(item.id,)) for item in few)
    report, [one] = evaluate(load_encoder(trained), replace(few, items=items), cache=cache)
    assert report.rows == {} and one.by_labels is None
    assert "no query shares a label" in report.facts["labels"]
    assert 0 <= report.captions["query"]["image_to_text"]["r10"] <= 1


def test_evaluate_never_asks_with_a_picture_of_the_training(
    trained: Path, few: Dataset, dataset: Dataset, cache: Path
) -> None:
    encoder = load_encoder(trained)
    known = [item for item in few if item.id in set(encoder.split["train"])]
    new = [replace(item, split=None) for item in dataset.items[60:75]]
    again = replace(known[0], id="again", captions=("another caption",))
    data = Dataset((*known, *new, again))
    _, [one] = evaluate(encoder, data, cache=cache)
    query, database = label_parts(one)
    assert sorted(query.ids) == sorted(item.id for item in new)
    assert "again" in database.ids
    # It is one unit with the known item: one picture, two captions.
    assert len(database) == len(known) + 1
    assert "again" in one.documents.ids
