"""Training benchmarks: parts of each task, rows, runs that continue after a kill."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install -e '.[torch]'")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "schgan.py"
KINDS = ("Shirts", "Watches", "Shoes")
TINY = 'about = "tiny"\nmethod = "schgan"\n[settings]\nepochs = 2\nhidden = 16\nbatch = 32\n'
TASK = "wikipedia-sift-lda-clean-50"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The program and modules of its harness."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    names = ("harness.tasks", "harness.rows", "schgan")
    return {name.rpartition(".")[2]: importlib.import_module(name) for name in names}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the benchmark's data, of 120 and 90 items."""
    folder, rng = tmp_path_factory.mktemp("benchmark") / "data", np.random.default_rng(0)
    (folder / "fashion").mkdir(parents=True)
    (folder / "wikipedia").mkdir()
    ids = [str(1000 + number) for number in range(120)]
    with (folder / "fashion" / "items.jsonl").open("w") as file:
        for number, id_ in enumerate(ids):
            kind, split = KINDS[number % 3], "query" if number % 6 < 2 else "database"
            item = {"id": id_, "text": f"Brand {number} {kind}", "labels": [kind], "split": split}
            words = "" if number == 7 else f"Brand {number}"
            file.write(json.dumps(item | {"text_without_label_words": words}) + "\n")
    np.savez(
        folder / "fashion" / "image_features_mobilenet_v2.npz",
        ids=np.array(ids[::-1]),
        features=rng.random((120, 12), dtype=np.float32).astype(np.float16),
    )
    label = np.arange(90) % 3
    centres = rng.normal(size=(3, 8))
    features = {
        name: (centres[label] + rng.normal(size=(90, 8))).astype(np.float32)
        for name in ("image_sift128", "image_roph128", "text_lda10", "text_tfidf1000")
    }
    official = np.arange(90) < 60
    article = official & (np.arange(90) != 5)
    np.savez(
        folder / "wikipedia" / "wikipedia.npz",
        label=label,
        official_train=official,
        article_train=article,
        **features,
    )
    return folder


def test_fashion_tasks_have_their_parts(
    bench: dict[str, ModuleType], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = bench["tasks"]
    monkeypatch.setattr(tasks, "TRAIN", 50)
    monkeypatch.setattr(tasks, "WATCHED", 20)
    loaded = tasks.load(tasks.find_task("fashion-words-names-100"), data, tmp_path, 0, 16)
    assert [len(loaded.train), len(loaded.database), len(loaded.query)] == [50, 80, 40]
    assert len(loaded.data.train) == 50
    assert len(loaded.data.validation) == 0
    assert set(loaded.train.ids) <= set(loaded.database.ids)
    assert not set(loaded.query.ids) & set(loaded.database.ids)
    for features in loaded.train.features.values():
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    # Rows of the features file are matched by id: its order is the reverse of that of the items.
    stored = np.load(data / "fashion" / "image_features_mobilenet_v2.npz", allow_pickle=False)
    first = stored["features"][stored["ids"].tolist().index(loaded.query.ids[0])]
    expected = first.astype(np.float32) / np.linalg.norm(first.astype(np.float32))
    np.testing.assert_allclose(loaded.query.features["image"][0], expected, atol=1e-5)

    watched = tasks.load(tasks.find_task("fashion-words-names-100-watched"), data, tmp_path, 0, 16)
    assert len(watched.data.validation) == 20
    texts = {row.tobytes() for row in watched.data.train.text.numpy()}
    assert not texts & {row.tobytes() for row in watched.data.validation.text.numpy()}

    removed = tasks.load(tasks.find_task("fashion-words-removed-100"), data, tmp_path, 0, 16)
    assert not np.array_equal(removed.query.features["text"], loaded.query.features["text"])


@pytest.mark.parametrize(
    ("protocol", "sizes"),
    [("clean", (60, 30, 30)), ("official", (60, 60, 30)), ("article", (59, 31, 31))],
)
def test_wikipedia_protocols(
    bench: dict[str, ModuleType], data: Path, tmp_path: Path, protocol: str, sizes: tuple[int, ...]
) -> None:
    tasks = bench["tasks"]
    loaded = tasks.load(
        tasks.find_task(f"wikipedia-roph-tfidf-{protocol}-100"), data, tmp_path, 0, 16
    )
    assert (len(loaded.train), len(loaded.database), len(loaded.query)) == sizes
    assert not set(loaded.train.ids) & set(loaded.query.ids)


@pytest.mark.parametrize("name", ["fashion-words-names", "wikipedia-sift-lda-clean"])
def test_hidden_labels_are_absent_from_training(
    bench: dict[str, ModuleType], data: Path, tmp_path: Path, name: str
) -> None:
    tasks = bench["tasks"]
    half, other = (tasks.load(tasks.find_task(f"{name}-50"), data, tmp_path, s, 16) for s in (0, 1))
    train = half.data.train
    assert int(train.labelled.sum()) == round(len(train) / 2)
    assert not bool(train.labels[~train.labelled].any())
    assert bool(train.labels[train.labelled].any(1).all())
    assert not half.train.labels[~half.train.labelled].any()
    assert not bool((train.labelled == other.data.train.labelled).all())
    assert half.query.labelled.all()
    none = tasks.load(tasks.find_task(f"{name}-0"), data, tmp_path, 0, 16)
    assert none.data.classes == 0
    assert not bool(none.data.train.labelled.any())
    assert none.query.labels.shape[1] == 3


def test_the_released_protocol_hides_labels_unless_they_leak(
    bench: dict[str, ModuleType], data: Path, tmp_path: Path
) -> None:
    tasks = bench["tasks"]
    task = tasks.find_task("wikipedia-sift-lda-released-100")
    train = tasks.load(task, data, tmp_path, 0, 16).data.train
    assert [len(train), int(train.labelled.sum())] == [90, 60]
    assert not bool(train.labels[~train.labelled].any())
    leaked = tasks.load(task, data, tmp_path, 0, 16, leak=True).data.train
    assert bool(leaked.labels[~leaked.labelled].any(1).all())


def test_plan_files_are_rows_and_faults_have_two_rows(bench: dict[str, ModuleType]) -> None:
    rows = bench["rows"]
    found = rows.read_all()
    assert {"random", "semi-hard", "policy", "default", "paper"} <= set(found)
    assert all(row.about for row in found.values())
    corrected, released = found["paper"].config(), found["paper-released"].config()
    for alone, without in rows.fault_rows().values():
        assert alone.config() != corrected
        assert without.config() != released


@pytest.mark.slow
def test_a_killed_run_continues(
    bench: dict[str, ModuleType],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record, work = tmp_path / "tiny.toml", tmp_path / "work"
    record.write_text(TINY)
    words = ["--data", data, "--work", work, "--row", record, "--task", TASK, "--seeds", "4"]
    command = [sys.executable, SCRIPT, *words, "--jobs", "1"]
    started = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    while not list(work.glob("*.json")) and started.poll() is None:
        time.sleep(0.002)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in work.glob("*.json")}
    assert 1 <= len(done) < 8

    monkeypatch.setattr(sys, "argv", list(map(str, command[1:])))
    assert bench["schgan"].main() == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    results = [json.loads(path.read_text()) for path in work.glob("*.json")]
    assert len(results) == 8
    trained = [one for one in results if one["method"] == "schgan"]
    assert sorted(one["seed"] for one in trained) == [0, 1, 2, 3]
    assert all(one["config"]["hidden"] == 16 and one["epochs"] == 2 for one in trained)
    assert all(one["updates"][0] == 18 for one in trained)  # 60 pairs, 9 steps an epoch, 2 epochs
    printed = capsys.readouterr().out
    assert f"8 jobs, {len(done)} of them done" in printed
    assert "| tiny | 0." in printed

    record.write_text(TINY.replace("hidden = 16", "hidden = 8"))  # other settings, other jobs
    assert bench["schgan"].main() == 0
    assert len(list(work.glob("*.json"))) == 12


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--row", "unknown"], "there is no row 'unknown', expected one of no-pseudo-labels"),
        (["--row", "absent.toml"], "absent.toml cannot be read"),
        (["--task", "fashion-bert-names-5"], "there is no task 'fashion-bert-names-5'"),
        (["--task", "wikipedia-sift-lda-clean-101"], "expected fashion-(minilm|words)"),
        (["--row", "random", "--task", TASK], "wikipedia.npz is missing"),
    ],
)
def test_a_wrong_argument_is_reported_in_one_line(
    bench: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    reason: str,
) -> None:
    folders = ["--data", str(tmp_path), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *folders, *words])
    assert bench["schgan"].main() == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1


def test_a_plan_file_with_an_unknown_setting_is_refused(
    bench: dict[str, ModuleType], tmp_path: Path
) -> None:
    record = tmp_path / "wrong.toml"
    record.write_text(TINY + "negative = 1\n")
    with pytest.raises(ValueError, match=r"wrong\.toml: there is no setting 'negative'"):
        bench["rows"].read(record)


def test_the_other_jobs_run_after_a_failed_one(
    bench: dict[str, ModuleType],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = tmp_path / "wild.toml"
    record.write_text(TINY + "learning_rate = 1e30\n")
    words = ["--data", data, "--work", tmp_path / "work", "--row", record, "--task", TASK]
    monkeypatch.setattr(sys, "argv", list(map(str, [SCRIPT, *words, "--seeds", 1, "--jobs", 1])))
    assert bench["schgan"].main() == 1
    captured = capsys.readouterr()
    assert "lower the learning rate" in captured.err
    assert "1 results are missing" in captured.out
    assert "| cca + itq | 0." in captured.out


# ---- all methods -----------------------------------------------------------------------------


@pytest.fixture
def methods(
    bench: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """The program of all methods, with four small rows and one small data set."""
    script = importlib.import_module("methods")
    records, quick = tmp_path / "records", "epochs = 2\nhidden = 16\nbatch = 32\n"
    records.mkdir()
    for name, settings in {
        "schgan": f'{quick}negatives = "policy"\nwarmup = 0\n',
        "schgan-off": quick,
        "multiadversarial": quick,
        "multiadversarial-off": f'{quick}reconstruction = "l2"\ncodes = "penalty"\n',
    }.items():
        method = name.removesuffix("-off")
        record = f'about = "tiny {name}"\nmethod = "{method}"\n[settings]\n{settings}'
        (records / f"{name}.toml").write_text(record)
    changed = {"FOLDER": records, "RESULTS": tmp_path, "BITS": (16,), "SHARES": (50,)}
    sets = ("wikipedia-sift-lda-clean",)
    for name, value in (changed | {"SETS": sets, "DETAILED": sets, "SEVERAL_WIDTHS": sets}).items():
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(importlib.import_module("harness.report"), "RESULTS", tmp_path)
    return script


@pytest.mark.slow
def test_methods_table_and_plots(
    methods: ModuleType,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--data", data, "--work", tmp_path / "work", "--seeds", 2, "--jobs", 1]
    monkeypatch.setattr(sys, "argv", list(map(str, [SCRIPT, *words])))
    assert methods.main() == 0
    # Two seeds of the baselines and four rows: all labels, half of them, 16 bits (two rows).
    assert "26 jobs, 0 of them done" in capsys.readouterr().out
    table = (tmp_path / "methods.md").read_text()
    for method in ("schgan", "multiadversarial"):
        for cell, bits in (("100", 32), ("50", 32)):
            assert f"| {method} | wikipedia-sift-lda-clean-{cell} | {bits} |" in table
    narrow = table.split("## mAP at 16 bits")[1].split("##")[0]
    assert "| schgan |" in narrow and "-off" not in narrow
    assert "results are missing" not in table and "other code" not in table
    health = table[table.index("codes of the database") :]
    [line] = [one for one in health.splitlines() if one.startswith("| schgan |")]
    assert len(line.split("|")) == 2 + 14 and " - " not in line  # memory is known on Linux
    for picture in ("methods-bits.png", "methods-shares.png", "methods-radius.png"):
        assert picture in table and (tmp_path / picture).stat().st_size > 5000

    assert methods.main() == 0
    assert "26 jobs, 26 of them done" in capsys.readouterr().out


def test_results_have_precision_and_recall_by_radius(
    methods: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--data", data, "--work", tmp_path, "--only", "schgan", "--quick", "--jobs", 1]
    monkeypatch.setattr(methods, "QUICK", ("wikipedia-sift-lda-clean-100",))
    monkeypatch.setattr(sys, "argv", list(map(str, [SCRIPT, *words])))
    assert methods.main() == 0
    found = [json.loads(path.read_text()) for path in tmp_path.glob("*schgan*.json")]
    assert len(found) == 2
    for direction in ("image->text", "text->image"):
        curve = found[0]["by radius"][direction]
        assert len(curve["recall"]) == len(curve["precision"]) == 17
        assert curve["recall"] == sorted(curve["recall"])
        assert curve["recall"][-1] == 1
        assert curve["precision"][-1] == pytest.approx(1 / 3)  # of all items: three equal classes


def test_a_method_without_rows_is_refused(
    methods: ModuleType,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--data", str(data), "--only", "dcmh"])
    assert methods.main() == 2
    error = capsys.readouterr().err
    assert error == (
        "error: no row has the method 'dcmh', expected one of multiadversarial, schgan\n"
    )


def test_other_codes_of_vectors_find_neighbours(bench: dict[str, ModuleType]) -> None:
    peers = importlib.import_module("harness.vector_peers")
    centres = np.random.default_rng(0).normal(size=(40, 16))
    rows = centres[np.arange(400) % 40] + np.random.default_rng(1).normal(size=(400, 16))
    found = dict(peers.peers(rows.astype(np.float32), 16, 0))
    assert list(found) == list(peers.NAMES)
    chance = 10 / 360
    assert all(3 * chance < one["recall@10"] < one["in first 100"] <= 1 for one in found.values())
    assert dict(peers.peers(rows.astype(np.float32), 32, 0)) == {}  # fewer numbers than bits


@pytest.mark.slow
def test_compress_reports_baselines_and_reuses_trainings(
    bench: dict[str, ModuleType],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = importlib.import_module("compress")
    monkeypatch.setattr(sys, "argv", ["x", "--data", f"{data}", "--work", f"{tmp_path}", "--quick"])
    assert script.main() == 0
    table = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line[:2] == "| "]
    head, body = table[0], table[2:]
    assert [row[2] for row in body] == ["sigah", "itq", "pca", "no adversary"] * 2
    recall = head.index("recall@10")
    assert all(0 < float(row[recall]) <= 1 for row in body)
    first, itq = body[0], body[1]
    gap = float(first[recall]) - float(itq[recall])
    assert float(first[head.index("above itq")]) == pytest.approx(gap, abs=2e-3)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/report.json")}
    assert len(kept) == 4
    assert script.main() == 0
    assert kept == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/report.json")}
