"""Folders of encoders and compressors: file names, formats, reading, restart, atomic writing.

``config.json`` is written last, so a folder that contains it is complete. Its key "files" holds
size and sha256 of the files that a command reads; "sha256" is the digest of all other keys (see
:mod:`xmodal.checksums`). Folders of earlier versions may lack both keys, or records of some files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from xmodal.checksums import DIGEST_KEY, check_digest, check_file, is_damage, with_digest
from xmodal.errors import CodeError, ConfigError, ModelError
from xmodal.modality import MODALITIES

CONFIG, SPLIT, REPORT = "config.json", "split.json", "report.json"
WEIGHTS, CODES = "weights.safetensors", "codes.npy"
HISTORY, CHECKPOINT = "history.jsonl", "checkpoint.pt"
PORTABLE, NOT_PORTABLE = "portable", "not-portable.txt"
"""Subfolder of a trained encoder with its export, and the reason why it cannot be exported."""
GRAPHS = {modality: f"{modality}.onnx" for modality in MODALITIES}
TOWER_GRAPHS = {modality: f"{modality}.tower.onnx" for modality in MODALITIES}
TOKENIZER, MODEL_CARD = "tokenizer.json", "README.md"
SHEET = re.compile(r"[a-z]+-\d{3,}\.png")
"""File name of a sheet of pictures: the name of the sheet, a hyphen and the epoch."""
NEW = ".new"
"""Suffix of a file that is being written."""
FILES_KEY = "files"

DAMAGE_ERRORS = (
    *(AttributeError, LookupError, TypeError, ValueError, OSError, RuntimeError, EOFError),
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
        whole = name.removesuffix(NEW)
        if whole == PORTABLE:
            return self.portable is not None
        return whole in self.files or (self.sheets and bool(SHEET.fullmatch(whole)))

    def foreign(self, folder: Path) -> list[str]:
        """Return the sorted names of the files in ``folder`` that do not belong to this format."""
        found = []
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_dir() and self.portable is not None and self.owns(path.name):
                found += [f"{path.name}/{name}" for name in self.portable.foreign(path)]
            elif path.is_dir() or not self.owns(path.name):
                found.append(path.name)
        return sorted(found)

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
    files=frozenset({CONFIG, SPLIT, MODEL_CARD, TOKENIZER}).union(
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
    files=frozenset({CONFIG, WEIGHTS, SPLIT, HISTORY, CHECKPOINT, REPORT, NOT_PORTABLE}),
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
    with damage_as_model_error(folder, expected):
        check_digest(config, CONFIG)
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
        return read_json(folder / CONFIG)


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


def prepare_folder(folder: Path, expected: FolderFormat, restart: bool) -> bool:
    """Create the folder of a run, or clear it for a restart; return whether a run is finished.

    Raises ConfigError for a file, and for a folder with other files than those of an earlier run.
    """
    if folder.is_file():
        raise ConfigError(f"{folder} is a file, expected a folder for the {expected.contents}")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    foreign = expected.foreign(folder)
    others = foreign if restart else sorted({*foreign, *(n for n in names if not n.endswith(NEW))})
    if others and (restart or not names & {CONFIG, CHECKPOINT}):
        raise ConfigError(
            f"{folder} is a folder with other things in it ({others[0]}): name a new one"
        )
    if restart:
        for name in sorted(names, key=CONFIG.__ne__):  # config.json first: it marks completeness
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / CONFIG).is_file()


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.json`` with its digest."""
    write_json(folder / CONFIG, with_digest(config))


def write_split(folder: Path, split: Mapping[str, Sequence[str]]) -> None:
    """Write the ids of each part of the data."""
    write_json(folder / SPLIT, {role: list(ids) for role, ids in split.items()})


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, in UTF-8."""
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(path) as file:
        file.write(content)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Context with a file that replaces ``path`` at the end of the block.

    After a kill at any moment ``path`` is the old file or the new one. Its mode follows the umask.
    """
    new = path.with_name(f"{path.name}{NEW}")
    with open(new, "wb") as file:
        yield file
    os.replace(new, path)
