"""Image backbones from torchvision: classification models, by name or with local weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from xmodal.config import Precision
from xmodal.data.images import Pixels
from xmodal.data.preprocessing import Preprocessing
from xmodal.device import DTYPES, batch_size, device, with_precision
from xmodal.errors import ModelError
from xmodal.features.backbones.connectivity import check_reachable
from xmodal.features.backbones.image_processors import verified
from xmodal.features.backbones.modules import PixelNetwork, run, with_preprocessing

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def is_weights_file(spec: str) -> bool:
    """Whether ``spec`` is the path of a safetensors file, perhaps with ?options."""
    return spec.partition("?")[0].endswith(".safetensors")


def is_known(spec: str) -> bool:
    """Whether torchvision has a model or weights of that name."""
    from torchvision import models

    return spec.partition(".")[0].lower().removesuffix("_weights") in {
        name.replace("_", "") if "_weights" in spec.lower() else name
        for name in models.list_models(module=models)
    }


def load(
    spec: str, precision: Precision = "float32", recorded: str | None = None
) -> TorchvisionBackbone:
    """Load the backbone of a torchvision name or local weights file. Raises ModelError.

    ``recorded``: see :func:`~xmodal.features.backbones.load_image_backbone`.
    """
    if is_weights_file(spec):
        return _from_file(spec, precision)
    return _from_name(spec, precision, recorded)


class TorchvisionBackbone:
    """A torchvision model up to the input of its last linear layer.

    ``network`` maps pixels (b, size, size, 3) uint8 to features (b, dim).
    """

    raw = False
    space = None

    def __init__(
        self,
        spec: str,
        create: Callable[[], nn.Module],
        preprocessing: Preprocessing,
        fingerprint: str,
        precision: Precision,
    ) -> None:
        self.spec = spec
        self.preprocessing = preprocessing
        self.fingerprint = with_precision(fingerprint, precision)
        self._create, self._dtype = create, DTYPES[precision]
        self.network = self.fused(PixelNetwork(create().eval(), preprocessing))
        self.batch = batch_size()
        size = preprocessing.size
        self.dim = self.forward(np.zeros((1, size, size, 3), np.uint8)).shape[1]

    def forward(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """(b, size, size, 3) uint8 -> (b, dim)."""
        return run(self.network, torch.from_numpy(pixels))

    def plain(self) -> PixelNetwork:
        """Read the network again, with its layers as torchvision defines them."""
        network = self._create().eval().to(memory_format=torch.channels_last)
        return PixelNetwork(network, self.preprocessing).to(device(), self._dtype)

    def fused(self, plain: PixelNetwork) -> PixelNetwork:
        """Return a network with its normalisations in its convolutions, for inference."""
        network: nn.Module = plain.network.cpu().float()  # the precision of the layers' product
        try:
            network = fuse(network)
        except Exception:  # tracing can raise any type; the network also works without fusion
            pass
        network = network.to(memory_format=torch.channels_last)
        return PixelNetwork(network, self.preprocessing).to(device(), self._dtype)


def _from_name(spec: str, precision: Precision, recorded: str | None) -> TorchvisionBackbone:
    """Load a model by its name or the name of its weights, and download the weights if needed."""
    from torchvision import models

    try:
        weights = models.get_weight(spec) if "." in spec else models.get_model_weights(spec).DEFAULT
    except (ValueError, KeyError) as error:
        raise ModelError(f"torchvision has no weights {spec!r}: {error}") from None
    name = type(weights).__name__.removesuffix("_Weights")
    cached = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
    if not cached.exists():
        check_reachable(weights.url, spec)
    arch = next(n for n in models.list_models() if n.replace("_", "") == name.lower())

    def create() -> nn.Module:
        try:
            state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except OSError as error:
            raise ModelError(f"the weights {weights} could not be downloaded: {error}") from None
        return _filled(arch, state, spec)

    preset = weights.transforms()
    crop, resize = preset.crop_size[0], preset.resize_size[0]
    earlier = Preprocessing(
        size=crop,
        share=crop / resize,
        resample=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
    fingerprint = f"torchvision-{weights}"
    preprocessing = earlier
    if recorded != with_precision(fingerprint, precision):
        preprocessing = _verified(spec, preset, earlier, resize)
        fingerprint = with_preprocessing(fingerprint, preprocessing, earlier)
    return TorchvisionBackbone(spec, create, preprocessing, fingerprint, precision)


def _verified(spec: str, preset: Any, earlier: Preprocessing, resize: int) -> Preprocessing:
    """Return the preprocessing that gives the same pixels as torchvision's transforms."""
    candidates = (
        replace(earlier, share=1.0, fit=fit, resized=resize, offset="round")
        for fit in ("shortest", "squash")
    )
    return verified(spec, "torchvision", lambda image: np.asarray(preset(image)), candidates)


def _from_file(spec: str, precision: Precision) -> TorchvisionBackbone:
    """Load FILE[?arch=NAME&normalize=imagenet&size=PIXELS]; the file's metadata are defaults."""
    file, _, query = spec.partition("?")
    path, options = Path(file), dict(parse_qsl(query))
    if not path.is_file():
        raise ModelError(f"there is no weights file at {path}")
    unknown = sorted(set(options) - {"arch", "normalize", "size"})
    if unknown:
        raise ModelError(f"{spec}: unknown option {unknown[0]!r}, expected arch, normalize or size")
    declared, _ = _read(path)
    options = declared | options
    arch = _architecture(path, options)
    preprocessing = _file_preprocessing(spec, options)
    hashed = hashlib.blake2b(path.read_bytes(), digest_size=8)
    hashed.update(str(preprocessing).encode())  # the options change the features too
    return TorchvisionBackbone(
        spec,
        lambda: _filled(arch, _read(path)[1], spec),
        preprocessing,
        f"torchvision-{arch}-{hashed.hexdigest()}",
        precision,
    )


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Return the metadata and the weights of a file, in float32. Raises ModelError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as opened:
            state = {name: opened.get_tensor(name).float() for name in opened.keys()}
            return dict(opened.metadata() or {}), state
    except SafetensorError as error:
        raise ModelError(f"{path} is not a readable safetensors file: {error}") from None


def _architecture(path: Path, options: dict[str, str]) -> str:
    """Return the option ``arch``, or the longest model name that the file name begins with."""
    from torchvision import models

    known = models.list_models(module=models)
    matching = (name for name in known if path.stem.startswith(name))
    arch = options.get("arch") or max(matching, key=len, default="")
    if arch not in known:
        raise ModelError(
            f"{path}: torchvision model {arch!r} is unknown: begin the file name with the name of "
            "the model, or write FILE.safetensors?arch=mobilenet_v2"
        )
    return arch


def _file_preprocessing(spec: str, options: dict[str, str]) -> Preprocessing:
    normalize = options.get("normalize", "none")
    if normalize not in ("none", "imagenet"):
        raise ModelError(f"{spec}: normalize is {normalize!r}, expected none or imagenet")
    size = options.get("size", "224")
    if not size.isascii() or not size.isdigit() or int(size) < 1:
        raise ModelError(f"{spec}: size is {size!r}, expected a number of pixels")
    scale: dict[str, Any] = IMAGENET if normalize == "imagenet" else {}
    return Preprocessing(size=int(size), resample="bilinear", **scale)


def _headless(arch: str) -> nn.Module:
    """Return the model ``arch`` with its last linear layer replaced by the identity."""
    from torchvision import models

    options = {"init_weights": False} if arch in ("googlenet", "inception_v3") else {}
    network: nn.Module = models.get_model(arch, weights=None, **options)
    linear = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    if not linear:
        raise ModelError(
            f"torchvision's {arch} has no linear layer, whose inputs are the features: choose "
            "another model"
        )
    parent, _, name = linear[-1].rpartition(".")
    setattr(network.get_submodule(parent), name, nn.Identity())
    return network


def _filled(arch: str, state: dict[str, torch.Tensor], spec: str) -> nn.Module:
    """Return the model ``arch`` with weights, which may include those of the removed last layer."""
    network = _headless(arch)
    expected = network.state_dict()
    missing = [name for name in expected if name not in state and "num_batches" not in name]
    if missing:
        raise ModelError(
            f"{spec} lacks {len(missing)} of {len(expected)} tensors of this model (first "
            f"{missing[0]}): name the architecture of these weights with ?arch="
        )
    wrong = [n for n, tensor in expected.items() if n in state and state[n].shape != tensor.shape]
    if wrong:
        raise ModelError(
            f"{spec}: tensor {wrong[0]} has shape {tuple(state[wrong[0]].shape)}, expected "
            f"{tuple(expected[wrong[0]].shape)}: name the architecture with ?arch="
        )
    network.load_state_dict({n: t for n, t in state.items() if n in expected}, strict=False)
    return network
