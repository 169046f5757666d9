"""Trained encoder: backbones and towers computed by torch, stored in a folder.

    config.json           backbones, towers, method, settings, data, calibration curve, figures
    weights.safetensors   the towers (the network of a raw backbone is part of its tower)
    backbones.safetensors changed weights of the backbones, if their last blocks were trained
    history.jsonl         losses and validation mAP of each epoch
    split.json            ids of the training, validation, query and gallery parts

Pretrained backbones are referenced by name and are not copied; their fingerprints are checked when
they are loaded. The fingerprint of a backbone with changed weights contains their hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from xmodal.checksums import file_record
from xmodal.codes import BinaryCodes
from xmodal.config import FEATURES, PRECISIONS, Precision
from xmodal.data.preprocessing import Preprocessing
from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.device import device, with_precision
from xmodal.encoders.calibration import Confidence
from xmodal.encoders.changed_weights import Changed, read_changed, write_changed
from xmodal.encoders.encoder import Encoded, Encoder
from xmodal.encoders.folder import (
    BACKBONE_WEIGHTS,
    FILES_KEY,
    SPLIT,
    TORCH_ENCODER,
    WEIGHTS,
    check_fingerprint,
    check_recorded,
    damage_as_model_error,
    read_config,
    read_split,
    write_config,
    write_split,
)
from xmodal.encoders.towers import Towers
from xmodal.errors import ConfigError, ModelError
from xmodal.features.backbones import (
    OWN_CODE,
    ImageBackbone,
    TextBackbone,
    load_image_backbone,
    load_text_backbone,
    recorded_spec,
)
from xmodal.features.backbones.changed import unchanged_fingerprint, with_changed
from xmodal.features.extract import Array, image_features, text_features
from xmodal.features.rows import FeatureRows, Features
from xmodal.modality import MODALITIES, Modality
from xmodal.writing import write_bytes

CPU = torch.device("cpu")
B = TypeVar("B", ImageBackbone, TextBackbone)
PREFIXES = "prefixes"
"""Key of ``about`` with the confidence of codes of the first bits, by their number."""


@dataclass(frozen=True)
class BackboneRef:
    """Reference to the backbone of a tower: its name or path, and its fingerprint."""

    spec: str
    fingerprint: str


@dataclass
class TrainedEncoder(Encoder):
    """Encoder computed by torch; :func:`xmodal.train` returns it.

    ``precision``: number format of the backbones on every processor; the towers compute in float32.
    ``trust_remote_code``: code that belongs to the backbones may run. ``changed``: weights of the
    backbones that the training has changed, by modality and name.
    """

    towers: Towers
    backbones: Mapping[Modality, BackboneRef]
    confidence: Confidence
    about: dict[str, Any] = field(default_factory=dict)
    split: Mapping[str, Sequence[str]] = field(default_factory=dict)
    precision: Precision = "float32"
    trust_remote_code: bool = False
    changed: Changed = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.towers.to(device()).eval()

    @property
    def bits(self) -> int:
        """Width of the codes."""
        return self.towers.bits

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weights and backbones, followed by the precision unless that is float32.

        The device is not part of it: codes computed on a GPU can be searched on a CPU. At least
        99.9 % of the bits are equal; the others have a relaxed value of almost zero.
        """
        hashed = hashlib.blake2b(digest_size=8)
        for modality in MODALITIES:
            hashed.update(self.backbones[modality].fingerprint.encode() + b"\0")
        for name, tensor in sorted(self.towers.state_dict().items()):
            hashed.update(f"{name} {tuple(tensor.shape)}\0".encode())
            hashed.update(tensor.cpu().contiguous().numpy().tobytes())
        return with_precision(hashed.hexdigest(), self.precision)

    @cached_property
    def image_backbone(self) -> ImageBackbone:
        """The image backbone, loaded at the first use. Raises ModelError if it has changed."""
        ref = self.backbones["image"]
        loaded = load_image_backbone(
            ref.spec,
            precision=self.precision,
            trust_remote_code=self.trust_remote_code,
            recorded=unchanged_fingerprint(ref.fingerprint),
        )
        return self._checked("image", loaded)

    @cached_property
    def text_backbone(self) -> TextBackbone:
        """The text backbone, loaded at the first use. Raises ModelError if it has changed."""
        ref = self.backbones["text"]
        spec = recorded_spec(ref.spec, ref.fingerprint)
        loaded = load_text_backbone(
            spec, precision=self.precision, trust_remote_code=self.trust_remote_code
        )
        return self._checked("text", loaded)

    @property
    def preprocessing(self) -> Preprocessing:
        """Preparation of pictures."""
        return self.image_backbone.preprocessing

    @property
    def shared_space(self) -> bool:
        """Whether both backbones belong to one model, so that their features can be compared."""
        if any(ref.spec == FEATURES for ref in self.backbones.values()):
            return False
        spaces = self.image_backbone.space, self.text_backbone.space
        return spaces[0] is not None and spaces[0] == spaces[1]

    def encode(
        self,
        modality: Modality,
        sources: Sequence[Any],
        *,
        cache: Path | None = None,
        problems: Problems | None = None,
        progress: Progress | None = None,
    ) -> Encoded:
        """Encode by backbone and tower; see :meth:`xmodal.Encoder.encode`."""
        options = {"cache": cache, "problems": problems, "progress": progress}
        features, usable = (
            image_features(self.image_backbone, sources, **options)  # type: ignore[arg-type]
            if modality == "image"
            else text_features(self.text_backbone, sources, **options)  # type: ignore[arg-type]
        )
        outputs = self.outputs(modality, features)
        return Encoded(BinaryCodes.from_relaxed(outputs), usable, features, outputs)

    def encode_features(self, modality: Modality, features: Array) -> BinaryCodes:
        """Return the codes of features (n, dim): float16 of length 1, or uint8 pixels."""
        return self.towers.codes(modality, as_tensor(features))

    def outputs(self, modality: Modality, features: Features) -> Array:
        """Return the outputs of features; see :meth:`xmodal.Encoder.outputs`."""
        return self.towers.outputs(modality, as_rows(features))

    def has_known_token(self, text: str) -> bool:
        """Return whether the text has a known token; see :meth:`xmodal.Encoder.has_known_token`."""
        known = self.text_backbone.has_known_token(text)
        return known and self.confidence.has_known_word(text)

    def prefix(self, bits: int) -> TrainedEncoder:
        """Return the encoder of the first ``bits`` bits; it has a fingerprint of its own.

        Its confidence is the one that the training stored for this width. Raises ConfigError for a
        width whose codes were not trained.
        """
        stored = self.about.get(PREFIXES, {})
        if str(bits) not in stored:
            trained = f"the first {' or '.join(stored)} bits" if stored else "no first bits"
            raise ConfigError(
                f"{bits} bits were asked for, and this encoder of {self.bits} bits was trained "
                f"with {trained} as codes: train it with --set prefixes=64, or with --bits {bits}"
            )
        about = self.about | {PREFIXES: {w: x for w, x in stored.items() if int(w) < bits}}
        about["options"] = self.about.get("options", {}) | {"bits": bits}
        figures = self.about.get("figures", {}).items()  # those of validation are of whole codes
        about["figures"] = {k: v for k, v in figures if not k.startswith("validation")}
        confidence = replace(
            Confidence.from_config(stored[str(bits)], bits),
            known_words=self.confidence.known_words,
        )
        return replace(self, towers=self.towers.prefix(bits), confidence=confidence, about=about)

    def save(self, folder: str | Path) -> None:
        """Write the folder; ``config.json`` is written last."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        weights = {k: v.cpu().contiguous() for k, v in self.towers.state_dict().items()}
        # save_file of safetensors ignores the umask: only the owner could read the file.
        write_bytes(path / WEIGHTS, save(weights))
        if self.changed:
            write_changed(path, self.changed)
        write_split(path, self.split)
        files = (WEIGHTS, *((BACKBONE_WEIGHTS,) if self.changed else ()), SPLIT)
        config = {
            "format": TORCH_ENCODER.version,
            "fingerprint": self.fingerprint,
            "precision": self.precision,
            "towers": self.towers.shape,
            "backbones": {modality: vars(ref) for modality, ref in self.backbones.items()},
            "confidence": self.confidence.to_config(),
            FILES_KEY: {name: file_record(path / name) for name in files},
            **self.about,
        }
        write_config(path, config)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        image_backbone: str | None = None,
        text_backbone: str | None = None,
        trust_remote_code: bool = False,
    ) -> TrainedEncoder:
        """Load the encoder in ``folder``.

        ``image_backbone`` and ``text_backbone``: new names or paths of moved backbones;
        ``trust_remote_code``: code that belongs to them may run, as in the training. Raises
        ModelError if there is no encoder, or if its files do not belong together.
        """
        path = Path(folder)
        config = read_config(path, TORCH_ENCODER)
        with damage_as_model_error(path, TORCH_ENCODER, SafetensorError):
            check_recorded(path, config, *config.get(FILES_KEY, {}))
            towers = Towers(**config["towers"])
            towers.load_state_dict(load_file(path / WEIGHTS))
            moved = {"image": image_backbone, "text": text_backbone}
            refs = {
                modality: BackboneRef(str(moved[modality] or ref["spec"]), str(ref["fingerprint"]))
                for modality, ref in ((m, config["backbones"][m]) for m in MODALITIES)
            }
            changed = read_changed(path, {one: ref.fingerprint for one, ref in refs.items()})
            curve = Confidence.from_config(config["confidence"], towers.bits)
            split, recorded = read_split(path, config), config["fingerprint"]
            precision = config.get("precision", "float32")  # earlier versions lack the key
            if precision not in PRECISIONS:
                raise ValueError(f"precision is {precision!r}")
        about = TORCH_ENCODER.about(config)
        encoder = cls(towers, refs, curve, about, split, precision, trust_remote_code, changed)
        check_fingerprint(path, TORCH_ENCODER, encoder.fingerprint, recorded)
        return encoder

    def _checked(self, modality: Modality, loaded: B) -> B:
        """Return a backbone with the changed weights, if it is that of the training."""
        ref = self.backbones[modality]
        recorded = unchanged_fingerprint(ref.fingerprint)
        fingerprint = loaded.fingerprint
        if fingerprint != recorded:
            if OWN_CODE in ref.fingerprint and not self.trust_remote_code:
                raise ModelError(
                    f"this encoder was trained with code that belongs to the {modality} backbone "
                    f"{ref.spec!r}: add --trust-remote-code if you trust it"
                )
            raise ModelError(
                f"the {modality} backbone {ref.spec!r} is {fingerprint}, this encoder was trained "
                f"with {recorded}: restore that one, or name it with --{modality}-backbone"
            )
        changed = self.changed.get(modality)
        return with_changed(loaded, changed) if changed else loaded


def as_tensor(features: Array) -> torch.Tensor:
    """Convert features to a float32 tensor; pixels stay uint8."""
    values = features if features.dtype == np.uint8 else features.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(values))


@dataclass(frozen=True)
class RowTensor:
    """A matrix (n, d) whose rows are read when they are needed, as tensors on ``device``.

    Numbers are float32, pixels uint8. It has the operations of a tensor that select rows.
    """

    stored: FeatureRows
    device: torch.device = CPU

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def shape(self) -> tuple[int, int]:
        """Number and length of the rows."""
        return self.stored.shape

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """Read the rows at positions (b,), or of a mask (n,)."""
        return as_tensor(self.stored[rows.cpu().numpy()]).to(self.device)

    def split(self, size: int) -> Iterator[torch.Tensor]:
        """Read all rows, ``size`` at a time."""
        return (as_tensor(values).to(self.device) for _, values in self.stored.blocks(size))

    def to(self, device: torch.device) -> RowTensor:
        """Return the matrix; its rows are read onto ``device``."""
        return replace(self, device=device)


def as_rows(features: Features) -> torch.Tensor | RowTensor:
    """Convert features to a float32 tensor; those that are read by rows stay so."""
    return RowTensor(features) if isinstance(features, FeatureRows) else as_tensor(features)
