"""Kill -9 at random points of index, index --prune and delete: the index stays consistent."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import CommandResult
from support.forks import Forks, forks

from xmodal.index.contract import FullTextIndex, WordsQuery, open_index
from xmodal.index.origins import ListedIndex

Run = Callable[..., CommandResult]

KILLS = 18
IMPORTS = (
    *("xmodal.cli", "xmodal.cli.commands", "pyarrow.parquet", "xmodal.encoders.load"),
    *("xmodal.encoders.onnx_encoder", "xmodal.index.local", "xmodal.index.update"),
)
"""Imports are done before the fork, so that the kills fall into the work on the index."""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Forks]:
    """A process that forks for each command."""
    with forks(tmp_path, *IMPORTS) as started:
        yield started


def seconds_of(
    process: Forks, arguments: list[object], kill_after: float | None = None
) -> float | None:
    """Run a command in a process of its own; return its seconds, None if it was killed."""
    started = time.monotonic()
    done = process.run(*arguments, kill_after=kill_after)
    if done.status == -signal.SIGKILL:
        return None
    assert done.status == 0, done.err
    return time.monotonic() - started


class Source:
    """A folder of pictures with captions, which changes."""

    def __init__(self, folder: Path, pictures: list[Path]) -> None:
        self.folder, self._pictures = folder, pictures
        self._numbers = iter(range(10_000))
        folder.mkdir()

    def add(self, count: int) -> None:
        """Add pictures, each with a word of its own in its caption."""
        for _ in range(count):
            number = next(self._numbers)
            name = f"p{number:04}"
            picture = self._pictures[number % len(self._pictures)]
            # Bytes after the end of a PNG are ignored: equal pictures have different hashes.
            content = picture.read_bytes() + name.encode()
            (self.folder / f"{name}.png").write_bytes(content)
            (self.folder / f"{name}.txt").write_text(f"a picture called word{name}x")

    def remove(self, names: list[str]) -> None:
        for name in names:
            (self.folder / name).unlink()
            (self.folder / name).with_suffix(".txt").unlink()

    def rename_one(self) -> None:
        """Rename a picture and its caption, whose word stays."""
        name = min(name for name in self.names() if not name.endswith("-moved.png"))
        for path in (self.folder / name, (self.folder / name).with_suffix(".txt")):
            path.rename(path.with_stem(f"{path.stem}-moved"))

    def names(self) -> set[str]:
        return {path.name for path in self.folder.glob("*.png")}


def check(index: Path, model_bits: int) -> set[str]:
    """Check that codes, vectors, fields and words belong together; return the ids."""
    opened = open_index(index)
    assert isinstance(opened, ListedIndex)
    entries = list(opened.entries())
    ids = [entry.id for entry in entries]
    batch = opened.get(ids)
    assert batch.ids == ids and len(opened) == len(ids)
    assert opened.count_codes() == {"image": len(ids), "text": len(ids)}
    if opened.dim is not None:
        assert batch.dim == opened.dim
        # A vector has the signs of its code where it is not 0.
        for modality in ("image", "text"):
            signs = np.unpackbits(batch.packed[modality], axis=1).astype(np.int8) * 2 - 1
            assert (batch.vectors[modality] * signs >= 0).all()
    for row, entry in enumerate(entries):
        one = batch.take([row])
        assert one.bits == model_bits
        for modality in ("image", "text"):
            hits = opened.search(one.codes(modality)[1], len(ids), target=modality, radius=0)[0]
            assert entry.id in {hit.id for hit in hits}
        word = entry.fields["text"].rpartition(" ")[2]
        stem = entry.id.removesuffix(".png").removesuffix("-moved")
        assert word == f"word{stem}x" and Path(entry.fields["image"]).name == entry.id
        if isinstance(opened, FullTextIndex):
            (found,) = opened.search_words([WordsQuery(word)], len(ids), target="image")
            assert found[0].id == entry.id, word
            (found,) = opened.search_words([WordsQuery("picture")], len(ids) + 9, target="text")
            assert sorted(hit.id for hit in found) == ids
    return set(ids)


@pytest.mark.slow
def test_killed_commands_leave_an_index_whose_parts_agree(
    xmodal_cli: Run,
    process: Forks,
    portable_path: Path,
    photos_folder: Path,
    cache: Path,
    tmp_path: Path,
) -> None:
    chosen = random.Random(0)
    source = Source(tmp_path / "source", sorted(photos_folder.glob("**/*.png")))
    source.add(40)
    index = tmp_path / "i"
    model = ["--model", portable_path, "--index", index, "--cache", cache]
    seconds = {"first": seconds_of(process, ["index", source.folder, *model]) or 1.0}
    bits = open_index(index).bits
    expected, kills = source.names(), 0
    assert check(index, bits) == expected
    while kills < KILLS:
        before = set(expected)
        kind = ("index", "prune", "delete")[kills % 3]
        if kind == "delete":
            gone = chosen.sample(sorted(expected), 3)
            command: list[object] = ["delete", index, *gone]
            source.remove(sorted(source.names() & set(gone)))
            expected -= set(gone)
        else:
            source.add(5)
            source.remove(chosen.sample(sorted(source.names()), 3))
            source.rename_one()
            command = ["index", source.folder, *model, *(["--prune"] if kind == "prune" else [])]
            expected = source.names() if kind == "prune" else expected | source.names()
            expected = {id_ for id_ in expected if f"{Path(id_).stem}-moved.png" not in expected}
        limit = seconds.get(kind, seconds["first"])
        spent = seconds_of(process, command, kill_after=chosen.uniform(0, limit))
        if spent is None:
            kills += 1
            found = check(index, bits)
            assert found in (before, expected), (kind, found ^ before, found ^ expected)
            # The next command ends what the killed one began.
            assert xmodal_cli(*command).status in (0, 1)
        else:
            seconds[kind] = spent
        assert check(index, bits) == expected, kind
        left = {path.name for path in index.iterdir() if path.name.startswith("saving-")}
        assert not left
