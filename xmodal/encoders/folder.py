"""Folders of encoders and compressors: file names, formats, reading, restart, atomic writing.

``config.json`` is written last, so a folder that contains it is complete. Its key "files" holds
size and sha256 of the files that a command reads; "sha256" is the digest of all other keys (see
:mod:`xmodal.checksums`). Folders of earlier versions may lack both keys, or records of some files.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tokenize
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodal.checksums import DIGEST_KEY, check_digest, check_file, is_damage, with_digest
from xmodal.errors import CodeError, ConfigError, ModelError
from xmodal.modality import MODALITIES
from xmodal.writing import (
    LOCK,
    NEW,
    OLD,
    atomic_write,
    lock_folder,
    remove,
    replace_folder,
    restore_folder,
    sibling,
    write_json,
)

CONFIG, SPLIT, REPORT = "config.json", "split.json", "report.json"
WEIGHTS, CODES = "weights.safetensors", "codes.npy"
BACKBONE_WEIGHTS = "backbones.safetensors"
"""Weights of backbones that a training has changed."""
HISTORY, CHECKPOINT = "history.jsonl", "checkpoint.pt"
LEFT_OUT = "left_out.jsonl"
"""Training pairs that are probably wrong and were left out."""
PORTABLE, NOT_PORTABLE = "portable", "not-portable.txt"
"""Subfolder of a trained encoder with its export, and the reason why it cannot be exported."""
PORTABLE_NAMES = (PORTABLE, f".{PORTABLE}{NEW}", f".{PORTABLE}{OLD}", f"{PORTABLE}{NEW}")
"""The subfolder, and its names while it is replaced; the last one in earlier versions."""
GRAPHS = {modality: f"{modality}.onnx" for modality in MODALITIES}
TOWER_GRAPHS = {modality: f"{modality}.tower.onnx" for modality in MODALITIES}
TOKENIZER, MODEL_CARD = "tokenizer.json", "README.md"
SENTENCE_MODULES, SENTENCE_CONFIG = "modules.json", "config_sentence_transformers.json"
"""Files by which sentence-transformers loads a portable encoder; xmodal does not read them."""
SHEET = re.compile(r"[a-z]+-\d{3,}\.png")
"""File name of a sheet of pictures: the name of the sheet, a hyphen and the epoch."""
FILES_KEY = "files"
HUB_SCHEME = "hf://"
"""Start of the name of an encoder on the model hub, in place of its folder."""

DAMAGE_ERRORS = (
    *(AttributeError, LookupError, TypeError, ValueError, OSError, RuntimeError, EOFError),
    *(OverflowError, SystemError, SyntaxError, tokenize.TokenError),  # of headers of .npy files
    CodeError,
)
"""Exceptions that reading a damaged file may raise."""


@dataclass(frozen=True)
class FolderFormat:
    """One kind of folder.

    ``kind``: value of "kind" in ``config.json``, None for encoders of torch, which lack the key.
    ``version``: value of "format". ``contents``: a noun for messages. ``command``: command that
    creates the folder; ``usage``: the same with its arguments, without the final path.
    ``repair``: advice for a damaged folder. ``files``: names of its files. ``keys``: keys of
    ``config.json`` that its class interprets. ``sheets``: whether it may have sheets of pictures.
    ``portable``: format of the subfolder ``PORTABLE``, or None.
    """

    kind: str | None
    version: int
    contents: str
    command: str
    usage: str
    repair: str
    files: frozenset[str]
    keys: frozenset[str]
    sheets: bool = False
    portable: FolderFormat | None = None

    def owns(self, name: str) -> bool:
        """Whether a file of this name belongs to the folder; a restart removes only these."""
        if name in (LOCK, NEW):
            return True
        if name in PORTABLE_NAMES:
            return self.portable is not None
        whole = name.removesuffix(NEW)
        return whole in self.files or (self.sheets and bool(SHEET.fullmatch(whole)))

    def foreign(self, folder: Path) -> list[str]:
        """Return the sorted names of the files in ``folder`` that do not belong to this format."""
        found = []
        for path in folder.iterdir() if folder.is_dir() else ():
            inner = self._format_of(path)
            if inner is not None:
                found += [f"{path.name}/{name}" for name in inner.foreign(path)]
            elif path.is_dir() or not self.owns(path.name):
                found.append(path.name)
        return sorted(found)

    def _format_of(self, path: Path) -> FolderFormat | None:
        """Return the format of a subfolder, None for a file and for a foreign folder."""
        if path.is_symlink() or not path.is_dir():
            return None
        return {NEW: self, **dict.fromkeys(PORTABLE_NAMES, self.portable)}.get(path.name)

    def about(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keys of ``config.json`` that describe the training."""
        return {name: value for name, value in config.items() if name not in self.keys}


ONNX_ENCODER = FolderFormat(
    kind="portable",
    version=1,
    contents="encoder",
    command="xmodal export",
    usage="xmodal export --model MODEL --onnx",
    repair="copy the whole folder again, or repeat xmodal export",
    files=frozenset(
        {CONFIG, SPLIT, MODEL_CARD, TOKENIZER, SENTENCE_MODULES, SENTENCE_CONFIG}
    ).union(
        TOWER_GRAPHS.values(),
        *({name, f"{name}.data", f"{modality}.float.onnx"} for modality, name in GRAPHS.items()),
    ),
    keys=frozenset(
        {"kind", "format", "fingerprint", "bits", "confidence", "shared_space", "precision"}
        | {"sides", FILES_KEY, DIGEST_KEY}
    ),
)
TORCH_ENCODER = FolderFormat(
    kind=None,
    version=1,
    contents="encoder",
    command="xmodal train",
    usage="xmodal train DATA --out",
    repair="train again",
    files=frozenset(
        {CONFIG, WEIGHTS, BACKBONE_WEIGHTS, SPLIT, HISTORY, CHECKPOINT, REPORT, NOT_PORTABLE}
        | {LEFT_OUT}
    ),
    keys=frozenset(
        {"format", "fingerprint", "precision", "towers", "backbones", "confidence"}
        | {FILES_KEY, DIGEST_KEY}
    ),
    sheets=True,
    portable=ONNX_ENCODER,
)
COMPRESSOR = FolderFormat(
    kind="compressor",
    version=1,
    contents="compressor",
    command="xmodal compress",
    usage="xmodal compress FEATURES.npy --out",
    repair="repeat xmodal compress with --restart",
    files=frozenset({CODES, WEIGHTS, CONFIG, REPORT, HISTORY, CHECKPOINT}),
    keys=frozenset({"kind", "format", "fingerprint", "bits", "dim", FILES_KEY, DIGEST_KEY}),
)


# ---- reading ---------------------------------------------------------------------------------


def encoder_format(folder: Path) -> FolderFormat:
    """Return the format of an encoder's folder; raise ModelError if there is no encoder.

    The graphs decide which command repairs a folder without a readable ``config.json``.
    """
    has_graphs = any((folder / name).exists() for name in GRAPHS.values())
    kind = _parse_config(folder, ONNX_ENCODER if has_graphs else TORCH_ENCODER).get("kind")
    return ONNX_ENCODER if kind == ONNX_ENCODER.kind else TORCH_ENCODER


def stored_fingerprint(folder: Path) -> str:
    """Return the fingerprint of an encoder without loading it. Raises ModelError."""
    expected = encoder_format(folder)
    config = read_config(folder, expected)
    with damage_as_model_error(folder, expected):
        return str(config["fingerprint"])


def read_config(folder: Path, expected: FolderFormat) -> dict[str, Any]:
    """Read and check ``config.json``.

    Raises ModelError if it is missing, damaged, of another kind, of another format version, or
    changed after it was written.
    """
    config = _parse_config(folder, expected)
    if config.get("kind") != expected.kind:
        raise ModelError(
            f"{folder} is not a folder of {expected.command}: found kind {config.get('kind')!r}, "
            f"expected {expected.kind!r}"
        )
    with damage_as_model_error(folder, expected):
        version = config["format"]
    if version != expected.version:
        raise ModelError(
            f"{folder} has format {version}, this version reads {expected.version}: "
            f"{expected.repair}, or use the version that wrote it"
        )
    return config


def _parse_config(folder: Path, expected: FolderFormat) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        hint = (
            "training there was stopped: repeat the same command to continue it"
            if (folder / CHECKPOINT).exists()
            else f"create one with {expected.usage} {folder}"
        )
        raise ModelError(
            f"there is no finished {expected.contents} at {folder}, which has no {CONFIG}: {hint}"
        )
    with damage_as_model_error(folder, expected):
        config = read_json(folder / CONFIG)
        check_digest(config, CONFIG)
    return config


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises an exception of DAMAGE_ERRORS for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise TypeError(f"{path.name} contains no JSON object")
    return content


def read_split(folder: Path, config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the ids of each part of the data; an empty dict if there is no ``split.json``.

    ``config``: content of ``config.json``, whose record of the file is compared. Raises an
    exception of DAMAGE_ERRORS for a damaged file, and for a missing one that is recorded.
    """
    check_recorded(folder, config, SPLIT)
    path = folder / SPLIT
    parts = read_json(path) if path.exists() else {}
    return {role: list(ids) for role, ids in parts.items()}


def check_recorded(folder: Path, config: Mapping[str, Any], *names: str) -> None:
    """Compare files with their records in ``config.json``; earlier versions may have none.

    Raises an exception of DAMAGE_ERRORS for a damaged or missing file.
    """
    records = config.get(FILES_KEY, {})
    for name in names:
        if name in records:
            check_file(folder / name, records[name])


def damaged(folder: Path, expected: FolderFormat, reason: object) -> ModelError:
    """Return the error of a damaged folder, in one line."""
    line = " ".join(str(reason).split())[:160]
    return ModelError(f"the {expected.contents} in {folder} is damaged ({line}): {expected.repair}")


@contextmanager
def damage_as_model_error(
    folder: Path, expected: FolderFormat, *more: type[Exception]
) -> Iterator[None]:
    """Context that turns the exceptions of damaged files into a ModelError.

    A missing permission stays a PermissionError. ``more``: exceptions of packages that are not
    always installed, such as safetensors.
    """
    errors: tuple[type[Exception], ...] = (*DAMAGE_ERRORS, *more)
    try:
        yield
    except errors as error:
        if not is_damage(error):
            raise
        raise damaged(folder, expected, error) from None


def check_fingerprint(folder: Path, expected: FolderFormat, computed: str, recorded: str) -> None:
    """Raise ModelError if the weights have another fingerprint than ``config.json`` records."""
    if computed != recorded:
        raise ModelError(
            f"the {expected.contents} in {folder} has fingerprint {computed}, its config says "
            f"{recorded}: weights and config do not belong together"
        )


# ---- writing ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunFolder:
    """The locked folder of a run.

    ``work``: the folder in which the run writes. During a restart it is another one, which takes
    the place of ``folder`` at the end. Both are None for a run without a folder. ``finished``:
    ``folder`` has the result of an earlier run.
    """

    folder: Path | None
    work: Path | None
    finished: bool = False

    @property
    def is_restart(self) -> bool:
        """Whether ``folder`` keeps an older result until the run is complete."""
        return self.work is not self.folder

    def clear(self) -> None:
        """Remove what a stopped restart left in ``work``."""
        if self.is_restart and self.work is not None:
            _clear(self.work, kept={LOCK})

    def complete(self) -> None:
        """Let ``work`` take the place of ``folder``, and remove the checkpoint.

        The checkpoint marks a work folder that was not yet put in place.
        """
        if self.folder is None or self.work is None:
            return
        if self.is_restart:
            replace_folder(self.work, self.folder, CONFIG.__eq__)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        if self.is_restart:
            shutil.rmtree(self.work, ignore_errors=True)


@contextmanager
def open_run(folder: Path | None, expected: FolderFormat, restart: bool) -> Iterator[RunFolder]:
    """Context with the folder of a run: a new one, that of a stopped run, or a finished one.

    With ``restart``, what is in ``folder`` stays until :meth:`RunFolder.complete`; a restart that
    was stopped is continued. Files of a killed run that nothing reads are removed. Raises
    ConfigError for a file and for a folder with other files than those of an earlier run, InUse if
    another process writes the folder, OSError.
    """
    if folder is None:
        yield RunFolder(None, None)
        return
    restore_folder(folder)
    _check_folder(folder, expected, restart)
    with lock_folder(folder):
        _check_folder(folder, expected, restart)  # another process may have ended meanwhile
        for path in folder.glob(f"?*{NEW}"):
            remove(path)
        names = {path.name for path in folder.iterdir()} - {LOCK}
        if restart and names:
            with _work_folder(folder, expected) as work:
                yield RunFolder(folder, work)
            return
        finished = CONFIG in names
        if finished:
            (folder / CHECKPOINT).unlink(missing_ok=True)
            if not (sibling(folder, NEW) / CHECKPOINT).exists():
                _remove_work(sibling(folder, NEW), expected)
        yield RunFolder(folder, folder, finished)


@contextmanager
def replaced_folder(folder: Path, expected: FolderFormat) -> Iterator[Path]:
    """Context with an empty folder that takes the place of ``folder`` unless the block raises.

    ``folder`` is missing, or has the files of an earlier result, which stay until then.
    """
    restore_folder(folder)
    _check_folder(folder, expected, restart=True)
    with ExitStack() as locks:
        if folder.exists():
            locks.enter_context(lock_folder(folder))
        work = locks.enter_context(_work_folder(folder, expected))
        _clear(work, kept={LOCK})
        yield work
        replace_folder(work, folder, CONFIG.__eq__)
        shutil.rmtree(work, ignore_errors=True)


def _check_folder(folder: Path, expected: FolderFormat, restart: bool) -> None:
    """Raise ConfigError if a run may not write into ``folder``."""
    if folder.is_file():
        raise ConfigError(f"{folder} is a file, expected a folder for the {expected.contents}")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    others = set(expected.foreign(folder))
    if not restart:
        others |= {name for name in names if not name.endswith(NEW)}
    if others and (restart or not names & {CONFIG, CHECKPOINT, LOCK}):
        raise ConfigError(
            f"{folder} is a folder with other things in it ({min(others)}): name a new one"
        )


@contextmanager
def _work_folder(folder: Path, expected: FolderFormat) -> Iterator[Path]:
    """Context with the locked folder in which the successor of ``folder`` is written.

    It is beside ``folder``. For a mount point, and in a folder that this user may not change, it is
    the subfolder NEW. If the block raises, it stays if it has a checkpoint.
    """
    work = sibling(folder, NEW)
    if folder.exists() and not _is_possible(work, folder):
        work = folder / NEW
    foreign = expected.foreign(work) if not work.is_symlink() else ["it is a symbolic link"]
    if work.is_file() or foreign:
        found = foreign[0] if foreign else "it is a file"
        raise ConfigError(
            f"the temporary folder {work} exists with other things in it ({found}): move it away, "
            f"or name another folder than {folder}"
        )
    with lock_folder(work, shown=folder):
        for path in work.glob(f"?*{NEW}"):
            remove(path)
        try:
            yield work
        except BaseException:
            if not (work / CHECKPOINT).exists():
                _remove_work(work, expected)
            raise


def _is_possible(work: Path, folder: Path) -> bool:
    """Return whether ``work``, beside a folder, can be made and take its place; make it."""
    if os.path.ismount(os.path.realpath(folder)):
        return False
    try:
        work.mkdir()
    except FileExistsError:
        return True
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return False
    return True


def _remove_work(work: Path, expected: FolderFormat) -> None:
    """Remove a work folder and its lock, unless it is a link or has other files in it."""
    if work.is_dir() and not work.is_symlink() and not expected.foreign(work):
        shutil.rmtree(work, ignore_errors=True)


def _clear(folder: Path, kept: Collection[str]) -> None:
    for path in list(folder.iterdir()):
        if path.name not in kept:
            remove(path)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.json`` with its digest."""
    write_json(folder / CONFIG, with_digest(config))


def write_split(folder: Path, split: Mapping[str, Sequence[str]]) -> None:
    """Write the ids of each part of the data, one by one, in the layout of ``write_json``."""
    with atomic_write(folder / SPLIT) as file:
        for number, (role, ids) in enumerate(split.items()):
            start = f"{',' if number else '{'}\n {json.dumps(role)}: ["
            file.write(start.encode())
            for place, id_ in enumerate(ids):
                text = json.dumps(id_, ensure_ascii=False)
                file.write(f"{',' if place else ''}\n  {text}".encode())
            file.write(b"\n ]" if len(ids) else b"]")
        file.write(b"\n}\n" if split else b"{}\n")
