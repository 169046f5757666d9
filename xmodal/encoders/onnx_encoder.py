"""A portable encoder: both sides as ONNX graphs, for which numpy and onnxruntime are enough.

    config.json       what it is: both sides, preprocessing, confidence, figures, agreement
    image.onnx        pixels (b, size, size, 3) uint8 -> codes, relaxed codes, features
    text.onnx         token ids and mask, or hashed words -> the same
    tokenizer.json    where texts are cut into tokens, with how they are cut off and padded
    split.json        the ids it was trained on, chosen by, and must be asked with
    README.md         the model card

``xmodal export`` makes it of a trained encoder. Scaling and normalisation of pixels, the backbone,
the scaling of features to length 1, their rounding to float16 and the tower are inside a graph;
what happens before (decoding, cropping, resizing; tokens) is declared in ``config.json``. A file is
compared with its sha256 in ``config.json`` when it is opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from xmodal.codes import BinaryCodes, check_bits
from xmodal.data.dataset import Problems, Progress
from xmodal.data.images import Preprocessing
from xmodal.encoders.encoder import Encoded, Encoder
from xmodal.encoders.folder import (
    DAMAGE,
    DIGEST,
    FILES,
    check_config,
    check_file,
    check_size,
    damaged,
    read_config,
    read_curve,
    read_split,
)
from xmodal.errors import ExtraMissing, ModelError, missing_extra
from xmodal.features.backbones.builtin import Words
from xmodal.features.extract import Array, Usable, image_rows, says_something, text_rows
from xmodal.modality import MODALITIES, Modality

KIND, FORMAT = "portable", 1
OWNER, FED = "xmodal.encoder", "xmodal.side"
"""Where a graph's metadata say whose it is, and how it is fed: no other config goes with it."""
TOKENS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Tensors that a graph of tokens may ask for, and what the package tokenizers calls them."""
AGAIN = "bring the whole folder, or make it again with xmodal export"
OWN = (
    *("kind", "format", "fingerprint", "bits", "confidence", "shared_space"),
    *("precision", "sides", FILES, DIGEST),
)


@dataclass(frozen=True)
class SideConfig:
    """What ``config.json`` declares of a side.

    ``input``: "pixels", "tokens", or "words" (hashed as by
    :class:`~xmodal.features.backbones.builtin.Words`). ``dim``: length of its features, of type
    uint8 if ``raw`` (the pixels), else float16.
    ``batch``: how many at a time. ``inputs``: the tensors of the graph, in order. Pixels have
    ``preprocessing``; tokens have at most ``max_tokens`` and are padded to the longest of a batch,
    or to that length ("max_length").
    """

    graph: str
    input: str
    inputs: tuple[str, ...]
    dim: int
    raw: bool
    batch: int
    preprocessing: Preprocessing | None = None
    tokenizer: str | None = None
    max_tokens: int | None = None
    padding: str | None = None

    def told(self) -> dict[str, Any]:
        """As ``config.json`` has it."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def to_json(self) -> str:
        """The same, as a graph has it in its metadata."""
        return json.dumps(self.told(), sort_keys=True)

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> SideConfig:
        """From ``config.json``. Raises one of DAMAGE for anything else."""
        values = {one.name: told[one.name] for one in fields(cls) if one.name in told}
        values["inputs"] = tuple(map(str, told["inputs"]))
        if "preprocessing" in told:
            values["preprocessing"] = _preprocessing(told["preprocessing"])
        side = cls(**values)
        needs = {"pixels": side.preprocessing, "tokens": side.tokenizer, "words": side.inputs}
        fits = set(side.inputs) <= set(TOKENS) if side.input == "tokens" else len(side.inputs) == 1
        raw = side.raw is True and side.input == "pixels"
        if not needs[side.input] or not fits or side.raw != raw or min(side.dim, side.batch) < 1:
            raise ValueError(f"the side of {side.graph} does not say what {side.input} need")
        return side


def _preprocessing(told: Mapping[str, Any]) -> Preprocessing:
    mean, std = (tuple(map(float, told[name])) for name in ("mean", "std"))
    out = Preprocessing(**{**told, "mean": mean, "std": std})
    if out.fit not in ("crop", "squash") or min(out.size, out.share) <= 0:
        raise ValueError(f"preprocessing is {dict(told)}")
    Image.Resampling[out.resample.upper()]
    return out


class PortableEncoder(Encoder):
    """An encoder of ONNX graphs. Each side is opened when the first picture or text comes."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Of the content of ``config.json``; one of DAMAGE is raised for what cannot be it."""
        self.folder = folder
        self._bits = check_bits(config["bits"])
        self._fingerprint = str(config["fingerprint"])
        self._shared_space = bool(config["shared_space"])
        self.precision = str(config["precision"])
        self.sides = {side: SideConfig.read(config["sides"][side]) for side in MODALITIES}
        self.confidence = read_curve(config["confidence"], self.bits)
        self.about = {name: value for name, value in config.items() if name not in OWN}
        self.split = read_split(folder)
        files = {str(name): dict(record) for name, record in config[FILES].items()}
        for name, record in files.items():
            check_size(folder / name, record)
        self._readers = {side: _Reader(self, told, files) for side, told in self.sides.items()}

    @property
    def bits(self) -> int:
        """Width of the codes."""
        return self._bits

    @property
    def fingerprint(self) -> str:
        """That of the encoder it was made of; int8 has one of its own."""
        return self._fingerprint

    @property
    def shared_space(self) -> bool:
        """Whether both backbones are sides of one model."""
        return self._shared_space

    def encode(
        self,
        side: Modality,
        sources: Sequence[Any],
        *,
        cache: Path | None = None,
        problems: Problems | None = None,
        progress: Progress | None = None,
    ) -> Encoded:
        """Codes by the graph of a side; see :meth:`xmodal.Encoder.encode`.

        The graph goes from pixels or tokens to bits, so the cache keeps all that it says of an
        item: features and code together.
        """
        reader, preprocessing = self._readers[side], self.sides[side].preprocessing
        work = {"cache": cache, "problems": problems, "progress": progress}
        rows, usable = (
            text_rows(reader, sources, **work)  # type: ignore[arg-type]
            if preprocessing is None
            else image_rows(reader, preprocessing, sources, **work)  # type: ignore[arg-type]
        )
        codes = BinaryCodes(np.ascontiguousarray(rows[:, reader.cut :]), self.bits)
        return Encoded(codes, usable, reader.features(rows))

    @classmethod
    def load(cls, folder: str | Path) -> PortableEncoder:
        """The encoder in ``folder``. Raises ModelError if there is none, or if it is damaged."""
        path = Path(folder)
        config = read_config(path)
        try:
            if config["kind"] != KIND or config["format"] != FORMAT:
                raise ModelError(
                    f"{path} is {config['kind']} of format {config['format']}, this version reads "
                    f"{KIND} of format {FORMAT}: export it again, or use the version that wrote it"
                )
            check_config(config)
            return cls(path, config)
        except DAMAGE as error:
            raise damaged(path, error, AGAIN) from None


class _Reader:
    """Rows of a graph: the features of an item, byte by byte, and then its code."""

    dtype = "uint8"

    def __init__(
        self, encoder: PortableEncoder, side: SideConfig, files: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._folder, self._owner, self._side = encoder.folder, encoder.fingerprint, side
        self._code = encoder.bits // 8
        self.batch = side.batch
        self.fingerprint = f"onnx-{str(files[side.graph]['sha256'])[:32]}"
        self._files = files
        self.cut = side.dim * (1 if side.raw else 2)
        self.dim = self.cut + self._code

    def rows(self, batch: Any) -> tuple[Array, Usable]:
        """Rows (b, dim) of pixels (b, size, size, 3) or ``b`` texts, and which say anything."""
        fed = self._fed(batch)
        if self._side.raw:
            (codes,) = self._session.run(["codes"], fed)
            features, good = batch.reshape(len(batch), -1), np.ones(len(batch), np.bool_)
        else:
            codes, features = self._session.run(["codes", "features"], fed)
            good = says_something(features)
        parts = (np.ascontiguousarray(features).view(np.uint8), codes)
        return np.concatenate(parts, axis=1), good

    def features(self, rows: Array) -> Array:
        """The features (n, dim) of rows."""
        kept = np.ascontiguousarray(rows[:, : self.cut])
        return kept if self._side.raw else kept.view(np.float16)

    def _fed(self, batch: Any) -> dict[str, npt.NDArray[Any]]:
        """What the graph is given."""
        if self._side.input == "pixels":
            return {self._side.inputs[0]: batch}
        if self._side.input == "words":
            return {self._side.inputs[0]: Words().forward(batch)}
        told = self._tokenizer.encode_batch(list(batch))
        return {
            name: np.array([getattr(one, TOKENS[name]) for one in told], np.int64)
            for name in self._side.inputs
        }

    @cached_property
    def _session(self) -> Any:
        """The graph, opened. Raises ModelError if it is damaged or another encoder's.

        Its sha256 is compared first, and that of its external data: onnxruntime opens graphs with
        flipped bits, and they give other codes. The file is then opened by its path. Passing the
        hashed bytes to onnxruntime is slower and takes twice the memory.
        """
        onnxruntime = _needed("onnxruntime", self._folder)
        path = self._folder / self._side.graph
        try:
            for name in (path.name, f"{path.name}.data"):
                if name in self._files:
                    check_file(self._folder / name, self._files[name])
            session = onnxruntime.InferenceSession(
                path, _options(onnxruntime), providers=["CPUExecutionProvider"]
            )
            says = session.get_modelmeta().custom_metadata_map
            widths = {one.name: one.shape[1] for one in session.get_outputs()}
        except Exception as error:  # a damaged file ends in any of many errors
            raise damaged(self._folder, error, AGAIN) from None
        ours = (self._owner, self._side.to_json(), self._code)
        if (says.get(OWNER), says.get(FED), widths.get("codes")) != ours:
            raise ModelError(
                f"{path} and config.json do not belong together: the graph is of encoder "
                f"{says.get(OWNER)}, the config of {self._owner}, or it is fed otherwise; {AGAIN}"
            )
        return session

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizers = _needed("tokenizers", self._folder)
        name = str(self._side.tokenizer)
        try:
            check_file(self._folder / name, self._files[name])
            return tokenizers.Tokenizer.from_file(str(self._folder / name))
        except Exception as error:  # tokenizers raises nothing more precise
            raise damaged(self._folder, error, AGAIN) from None


def _needed(package: str, folder: Path) -> Any:
    """A package of the extra; if it is missing, it is said for what."""
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if missing_extra(error) is None:
            raise
        raise ExtraMissing(f"the portable encoder in {folder}", "onnx") from None


def _options(onnxruntime: Any) -> Any:
    """Threads that wait without spinning, as many as torch would take, or OMP_NUM_THREADS."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they are raised as well
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Weights that are kept in int8 for their size alone are expanded once, when a graph is opened.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told):
        options.intra_op_num_threads = int(told)
    return options
