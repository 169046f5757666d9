"""Portable encoder: ONNX graphs of both modalities, computed by onnxruntime.

    config.json       both modalities, preprocessing, calibration curve, figures, comparison
    image.onnx        pixels (b, size, size, 3) uint8 -> codes, outputs, features
    text.onnx         token ids and mask, or hashed words -> the same
    *.tower.onnx      features -> outputs, for features in the cache; not in int8
    tokenizer.json    tokenizer with truncation and padding, unless texts are hashed words
    split.json        ids of the training, validation, query and gallery parts
    README.md         model card

``xmodal export`` converts a trained encoder into this folder. A graph contains the scaling and
normalisation of pixels, the backbone, the scaling of features to length 1, their rounding to
float16, and the tower. ``config.json`` declares the preparation of its inputs: decoding, cropping,
resizing and tokens. A file is compared with its sha256 in ``config.json`` when it is opened.
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

from xmodal.checksums import check_file, check_size
from xmodal.codes import BinaryCodes, check_bits
from xmodal.data.preprocessing import FITS, Preprocessing
from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.encoders.calibration import Confidence
from xmodal.encoders.encoder import Encoded, Encoder
from xmodal.encoders.folder import (
    FILES_KEY,
    ONNX_ENCODER,
    damage_as_model_error,
    damaged,
    read_config,
    read_split,
)
from xmodal.encoders.providers import (
    Provider,
    check_codes,
    check_started,
    session_providers,
)
from xmodal.errors import ConfigError, ExtraMissing, ModelError, XmodalError, missing_extra
from xmodal.features.backbones.builtin import Words
from xmodal.features.backbones.words import GRAMS
from xmodal.features.extract import (
    Array,
    Usable,
    image_rows,
    text_rows,
    usable_rows,
)
from xmodal.features.known_tokens import KnownTokens
from xmodal.features.rows import Features, unit_float16
from xmodal.modality import MODALITIES, Modality

FINGERPRINT_METADATA, MODALITY_METADATA = "xmodal.encoder", "xmodal.side"
"""Keys of a graph's metadata: fingerprint of its encoder, and its ModalityConfig as JSON."""
TOKEN_TENSORS = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}
"""Supported inputs of a graph of tokens, and their names in the package tokenizers."""
OUTPUTS, RELAXED = "outputs", "relaxed"
"""Names in graphs: outputs of the tower before tanh, and of earlier versions after tanh."""
TOWER_BATCH = 1024
"""Features for which a graph computes outputs at once."""


@dataclass(frozen=True)
class ModalityConfig:
    """Declaration of a graph and its inputs, from the key "sides" of ``config.json``.

    ``graph``: file name. ``input``: "pixels", "tokens", or "words" (vectors of
    :class:`~xmodal.features.backbones.builtin.Words`). ``inputs``: names of the graph's input
    tensors, in order. ``dim``: length of the features, which are uint8 pixels if ``raw``, else
    float16. ``batch``: batch size. Pixels have ``preprocessing``. Tokens have a ``tokenizer`` file;
    they are truncated to ``max_tokens`` and padded to the longest text of a batch ("longest") or
    to ``max_tokens`` ("max_length"). ``words``: fingerprint of the vectors of words; None, in
    folders of earlier versions, is "words-1". ``prompt``: text in front of every text. ``tower``:
    file name of the tower's graph; ``cache``: fingerprint under which torch caches the same
    features. Both are None in int8 and in folders of earlier versions, ``tower`` also for pixels.
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
    words: str | None = None
    prompt: str | None = None
    tower: str | None = None
    cache: str | None = None

    def to_config(self) -> dict[str, Any]:
        """Return the content for ``config.json``."""
        config = {name: value for name, value in asdict(self).items() if value is not None}
        if self.preprocessing is not None:
            config["preprocessing"] = self.preprocessing.shown_fields()
        return config

    def to_metadata(self) -> str:
        """Return the content for the graph's metadata."""
        return json.dumps(self.to_config(), sort_keys=True)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModalityConfig:
        """Parse the content of ``config.json``; raise one of DAMAGE_ERRORS if it is invalid."""
        values = {one.name: config[one.name] for one in fields(cls) if one.name in config}
        values["inputs"] = tuple(map(str, config["inputs"]))
        if "preprocessing" in config:
            values["preprocessing"] = _parse_preprocessing(config["preprocessing"])
        parsed = cls(**values)
        is_tokens, is_pixels = parsed.input == "tokens", parsed.input == "pixels"
        needs = {
            "pixels": parsed.preprocessing,
            "tokens": parsed.tokenizer,
            "words": parsed.inputs,
        }
        known = set(parsed.inputs) <= set(TOKEN_TENSORS) if is_tokens else len(parsed.inputs) == 1
        raw = parsed.raw is True and is_pixels
        too_small = min(parsed.dim, parsed.batch) < 1
        known &= (parsed.words or "words-1") in GRAMS
        if not needs[parsed.input] or not known or parsed.raw != raw or too_small:
            raise ValueError(f"the declaration of {parsed.graph} is incomplete for {parsed.input}")
        return parsed


def _parse_preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    mean, std = (tuple(map(float, config[name])) for name in ("mean", "std"))
    fill = tuple(map(int, config.get("fill", (0, 0, 0))))
    parsed = Preprocessing(**{**config, "mean": mean, "std": std, "fill": fill})
    sizes = parsed.size, parsed.share, parsed.resized or 1
    if parsed.fit not in FITS or min(sizes) <= 0:
        raise ValueError(f"preprocessing is {dict(config)}")
    Image.Resampling[parsed.resample.upper()]
    return parsed


class PortableEncoder(Encoder):
    """Encoder of ONNX graphs. A graph is opened at its first use."""

    def __init__(self, folder: Path, config: Mapping[str, Any], provider: Provider = "cpu") -> None:
        """``config``: content of ``config.json``. Raises one of DAMAGE_ERRORS if it is invalid."""
        self.folder, self.provider = folder, provider
        self._bits = check_bits(config["bits"])
        self._fingerprint = str(config["fingerprint"])
        self._shared_space = bool(config["shared_space"])
        self.precision = str(config["precision"])
        self.modality_configs = {
            modality: ModalityConfig.from_config(config["sides"][modality])
            for modality in MODALITIES
        }
        self.confidence = Confidence.from_config(config["confidence"], self.bits)
        self.about = ONNX_ENCODER.about(config)
        self.split = read_split(folder, config)
        files = {str(name): dict(record) for name, record in config[FILES_KEY].items()}
        for name, record in files.items():
            check_size(folder / name, record)
        self._featurizers = {
            modality: _GraphFeaturizer(self, declared, files)
            for modality, declared in self.modality_configs.items()
        }

    @property
    def bits(self) -> int:
        """Width of the codes."""
        return self._bits

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the exported encoder; an int8 encoder has its own."""
        return self._fingerprint

    @property
    def preprocessing(self) -> Preprocessing | None:
        """Preparation of pictures."""
        return self.modality_configs["image"].preprocessing

    @property
    def shared_space(self) -> bool:
        """Whether both backbones belong to one model, so that their features can be compared."""
        return self._shared_space

    def encode(
        self,
        modality: Modality,
        sources: Sequence[Any],
        *,
        cache: Path | None = None,
        problems: Problems | None = None,
        progress: Progress | None = None,
    ) -> Encoded:
        """Encode by the graphs of a modality; see :meth:`xmodal.Encoder.encode`."""
        featurizer = self._featurizers[modality]
        preprocessing = self.modality_configs[modality].preprocessing
        options = {"cache": cache, "problems": problems, "progress": progress}
        rows, usable = (
            text_rows(featurizer, sources, **options)  # type: ignore[arg-type]
            if preprocessing is None
            else image_rows(featurizer, preprocessing, sources, **options)  # type: ignore[arg-type]
        )
        return featurizer.encoded(rows, usable)

    def outputs(self, modality: Modality, features: Features) -> Array | None:
        """Return the outputs of features (n, dim).

        None if the folder has no graph of the tower: int8, or exported by an earlier version.
        """
        return self._featurizers[modality].outputs(np.asarray(features))

    def has_known_token(self, text: str) -> bool:
        """Return whether the text has a known token; see :meth:`xmodal.Encoder.has_known_token`."""
        known = self._featurizers["text"].has_known_token(text)
        return known and self.confidence.has_known_word(text)

    def push_to_hub(self, name: str, **options: Any) -> str:
        """Upload the folder to the model hub; see :func:`xmodal.encoders.hub_push.push`."""
        from xmodal.encoders.hub_push import push

        return push(self.folder, name, **options)

    @classmethod
    def load(cls, folder: str | Path, provider: Provider = "cpu") -> PortableEncoder:
        """Load the encoder in ``folder``. Raises ModelError if there is none or it is damaged.

        ``provider``: execution provider of onnxruntime; another one than the CPU's is compared with
        it, see :mod:`xmodal.encoders.providers`.
        """
        path = Path(folder)
        config = read_config(path, ONNX_ENCODER)
        with damage_as_model_error(path, ONNX_ENCODER):
            encoder = cls(path, config, provider)
        if provider != "cpu":
            session_providers(_import_package("onnxruntime", path), provider)
            check_codes(provider, encoder, cls(path, config))
        return encoder


def _run(session: Any, names: list[str], inputs: Mapping[str, Any]) -> list[Array]:
    """Return the outputs ``names`` of a graph.

    A graph of an earlier version has the outputs after tanh instead.
    """
    if OUTPUTS not in names or any(one.name == OUTPUTS for one in session.get_outputs()):
        found: list[Array] = session.run(names, inputs)
        return found
    found = session.run([RELAXED if name == OUTPUTS else name for name in names], inputs)
    limit = np.nextafter(np.float32(1), np.float32(0))
    place = names.index(OUTPUTS)
    found[place] = np.arctanh(np.clip(found[place], -limit, limit))
    return found


class _GraphFeaturizer:
    """Featurizer of the graphs of a modality.

    A row is the features, which torch and onnxruntime share in the cache. Without a graph that
    continues from features, it has the bytes of the features, followed by those of the outputs.
    """

    def __init__(
        self,
        encoder: PortableEncoder,
        config: ModalityConfig,
        files: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._folder, self._encoder_fingerprint = encoder.folder, encoder.fingerprint
        self._config, self._bits, self._files = config, encoder.bits, files
        self._provider = encoder.provider
        self.batch = config.batch
        self.fingerprint = config.cache or f"onnx-{str(files[config.graph]['sha256'])[:32]}"
        self._only_features = config.raw or config.tower is not None
        feature = np.dtype(np.uint8 if config.raw else np.float16)
        self.dtype = feature.name if self._only_features else "uint8"
        self._feature_bytes = config.dim * feature.itemsize
        self.dim = config.dim if self._only_features else self._feature_bytes + 4 * encoder.bits

    def rows(self, batch: Any) -> tuple[Array, Usable]:
        """Return rows (b, dim) of pixels (b, size, size, 3) or ``b`` texts, and usable ones."""
        if self._config.raw:
            return batch.reshape(len(batch), -1), np.ones(len(batch), np.bool_)
        if self._only_features:
            inputs = self._inputs(batch)
            if self._config.input == "words":  # the graph only scales and rounds them
                features = unit_float16(inputs[self._config.inputs[0]])
            else:
                (features,) = self._graph.run(["features"], inputs)
            return features, usable_rows(features)
        features, outputs = _run(self._graph, ["features", OUTPUTS], self._inputs(batch))
        parts = features, outputs
        rows = [np.ascontiguousarray(part).view(np.uint8) for part in parts]
        return np.concatenate(rows, axis=1), usable_rows(parts[0])

    def encoded(self, rows: Array, usable: Usable) -> Encoded:
        """Return the result of encoding from rows (n, dim)."""
        if self._only_features:
            features, outputs = rows, self.outputs(rows)
        else:
            split = self._feature_bytes
            features = np.ascontiguousarray(rows[:, :split]).view(np.float16)
            outputs = np.ascontiguousarray(rows[:, split:]).view(np.float32)
        assert outputs is not None
        return Encoded(BinaryCodes.from_relaxed(outputs), usable, features, outputs)

    def outputs(self, features: Array) -> Array | None:
        """Return the outputs (n, bits) of features, None without a graph for them."""
        if not self._only_features:
            return None
        parts = [np.zeros((0, self._bits), np.float32)]
        for start in range(0, len(features), TOWER_BATCH):
            parts += self._run_tower(features[start : start + TOWER_BATCH])
        return np.concatenate(parts)

    def _run_tower(self, features: Array) -> list[Array]:
        if self._config.preprocessing is not None and self._config.raw:
            size = self._config.preprocessing.size
            pixels = features.reshape(-1, size, size, 3)
            return _run(self._graph, [OUTPUTS], {self._config.inputs[0]: pixels})
        return _run(self._tower, [OUTPUTS], {"features": features})

    def has_known_token(self, text: str) -> bool:
        """Return whether the vocabulary has a token of the text, longer than one letter."""
        if self._config.input == "words":
            return Words(fingerprint=self._config.words or "words-1").has_known_token(text)
        return self._known_tokens.any_of(self._encodings([text])[0].ids)

    @cached_property
    def _known_tokens(self) -> KnownTokens:
        return KnownTokens(self._tokenizer.decode, self._tokenizer.get_vocab())

    def _inputs(self, batch: Any) -> dict[str, npt.NDArray[Any]]:
        """Return the input tensors of the graph for a batch."""
        if self._config.input == "pixels":
            return {self._config.inputs[0]: batch}
        if self._config.input == "words":
            words = Words(fingerprint=self._config.words or "words-1")
            return {self._config.inputs[0]: words.forward(batch)}
        prompt = self._config.prompt or ""
        encodings = self._encodings([prompt + text for text in batch])
        return {
            name: np.array([getattr(one, TOKEN_TENSORS[name]) for one in encodings], np.int64)
            for name in self._config.inputs
        }

    @cached_property
    def _graph(self) -> Any:
        return self._open(str(self._config.graph))

    @cached_property
    def _tower(self) -> Any:
        return self._open(str(self._config.tower))

    def _open(self, name: str) -> Any:
        """Open a graph. Raises ModelError if it is damaged or of another encoder.

        The sha256 of the graph and of its external data is compared first, because onnxruntime
        opens graphs with flipped bits, whose codes differ. onnxruntime then opens the file by its
        path: passing the hashed bytes is slower and takes twice the memory.
        """
        onnxruntime = _import_package("onnxruntime", self._folder)
        onnxruntime.disable_telemetry_events()
        path = self._folder / name
        self._check(name, *({f"{name}.data"} & self._files.keys()))
        try:
            providers = session_providers(onnxruntime, self._provider)
            session = onnxruntime.InferenceSession(
                path, _session_options(onnxruntime, self._provider), providers=providers
            )
            check_started(session, self._provider)
            metadata = session.get_modelmeta().custom_metadata_map
            widths = {one.name: one.shape[1] for one in session.get_outputs()}
        except ConfigError:
            raise
        except Exception as error:  # of many types; the file is the one that was written
            raise _not_opened(path, onnxruntime, error) from None
        fingerprint = metadata.get(FINGERPRINT_METADATA)
        found = (
            fingerprint,
            metadata.get(MODALITY_METADATA),
            widths.get(OUTPUTS, widths.get(RELAXED)),
        )
        if found != (self._encoder_fingerprint, self._config.to_metadata(), self._bits):
            raise ModelError(
                f"{path} and config.json do not belong together: the graph is of encoder "
                f"{fingerprint}, the config of {self._encoder_fingerprint}, or their inputs "
                f"differ: {ONNX_ENCODER.repair}"
            )
        return session

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizers = _import_package("tokenizers", self._folder)
        name = str(self._config.tokenizer)
        self._check(name)
        try:
            return tokenizers.Tokenizer.from_file(str(self._folder / name))
        except Exception as error:  # tokenizers raises plain Exception
            raise _not_opened(self._folder / name, tokenizers, error) from None

    def _encodings(self, texts: list[str]) -> list[Any]:
        """Return the tokens of texts. Raises ModelError if the tokenizer cannot be used."""
        try:
            found: list[Any] = self._tokenizer.encode_batch(texts)
        except XmodalError:
            raise
        except BaseException as error:  # Exception, or the PanicException of Rust, which is none
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise damaged(
                self._folder, ONNX_ENCODER, f"{self._config.tokenizer}: {error}"
            ) from None
        return found

    def _check(self, *names: str) -> None:
        """Raise ModelError if files are not those that ``config.json`` records."""
        with damage_as_model_error(self._folder, ONNX_ENCODER):
            for name in names:
                check_file(self._folder / name, self._files[name])


def _not_opened(path: Path, package: Any, error: Exception) -> ModelError:
    """Return the error for a file that is whole and that ``package`` cannot open."""
    line = " ".join(str(error).split())[:160]
    return ModelError(
        f"{package.__name__} {package.__version__} cannot open {path}, which is not damaged "
        f"({line}): free memory, or install the version of the export"
    )


def _import_package(package: str, folder: Path) -> Any:
    """Import a package of the extra "onnx"; raise ExtraMissing if it is not installed."""
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if missing_extra(error) is None:
            raise
        raise ExtraMissing(f"the portable encoder in {folder}", "onnx") from None


def _session_options(onnxruntime: Any, provider: Provider = "cpu") -> Any:
    """Return options without spinning threads, with OMP_NUM_THREADS threads if that is set."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they are raised as well
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Weights that are int8 only for their size are expanded once, when a graph is opened.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.enable_mem_pattern = provider != "directml"  # which does not support it
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads):
        options.intra_op_num_threads = int(threads)
    return options
