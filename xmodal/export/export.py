"""Export of a trained encoder: two ONNX graphs, compared with torch, and a model card.

All files are written into a temporary folder beside the target, which takes its place at the end.
A stopped export leaves no folder that can be loaded.
"""

from __future__ import annotations

import logging
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from xmodal import __version__
from xmodal.checksums import DIGEST_KEY, check_digest, file_record, is_damage
from xmodal.data.dataset import Dataset
from xmodal.data.problems import Problems
from xmodal.data.progress import Progress
from xmodal.encoders.encoder import Encoder
from xmodal.encoders.engine import portable_folder, write_obstacle
from xmodal.encoders.folder import (
    DAMAGE_ERRORS,
    FILES_KEY,
    MODEL_CARD,
    NOT_PORTABLE,
    ONNX_ENCODER,
    PORTABLE,
    REPORT,
    TORCH_ENCODER,
    encoder_format,
    read_json,
    replaced_folder,
    write_config,
    write_split,
)
from xmodal.encoders.onnx_encoder import ModalityConfig, PortableEncoder
from xmodal.encoders.torch_encoder import TrainedEncoder
from xmodal.errors import ConfigError, DataError, ModelError
from xmodal.export.model_card import model_card
from xmodal.export.onnx_graph import write_graph
from xmodal.export.parity import Codes, Sample, encode, expected_map, held_out, parity, rendered
from xmodal.export.quantization import quantize, write_fingerprint
from xmodal.modality import MODALITIES, Modality
from xmodal.writing import LOCK, lock_folder, remove, write_text

MIN_EQUAL_BITS = 0.999
"""Share of code bits in which torch and an ONNX graph in float32 must agree."""
DEFAULT_ITEMS = 500
PACKAGES = ("torch", "onnx", "onnxruntime")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """Sample for the comparison with torch: at most ``items`` of ``data``.

    Without ``data``, pictures and captions are rendered.
    """

    data: Dataset | None = None
    items: int = DEFAULT_ITEMS


def export(
    model: str | Path,
    out: str | Path,
    *,
    bits: int | None = None,
    int8: bool = False,
    check: Check | None = None,
    image_backbone: str | None = None,
    text_backbone: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    info: Callable[[str], None] = lambda message: None,
    restart: bool = False,
) -> PortableEncoder:
    """Export the trained encoder in ``model`` to the folder ``out``.

    An encoder in ``out`` is only replaced with ``restart``, when the new one is complete. ``bits``:
    only the first bits of each code, see :meth:`TrainedEncoder.prefix`.

    ``about["export"]`` of the result has the comparison of its codes with those of torch.
    ``progress``: progress bars of the comparison; ``info``: callback for messages.

    Raises ModelError if under 99.9 % of the float32 bits are equal, or if a backbone cannot be
    written as a graph; ConfigError if ``out`` exists, if ``model`` is portable, or if its precision
    is not float32; DataError if there are no items to compare.
    """
    folder, check = Path(out), check or Check()
    if check.items < 1:
        raise ConfigError(f"items is {check.items}, expected at least 1")
    if encoder_format(Path(model)) is ONNX_ENCODER:
        raise ConfigError(f"{model} is a portable encoder already: export the trained encoder")
    if not restart and (folder.is_file() or (folder.is_dir() and any(folder.iterdir()))):
        raise ConfigError(
            f"{folder} exists already: name a new folder, or replace it with --restart"
        )
    trained = TrainedEncoder.load(
        model,
        image_backbone=image_backbone,
        text_backbone=text_backbone,
        trust_remote_code=trust_remote_code,
    )
    if bits is not None and bits != trained.bits:
        trained = trained.prefix(bits)
    if trained.precision != "float32":
        raise ConfigError(
            f"{model} computes in {trained.precision}, expected float32, the precision of an "
            "exported encoder: train again with --precision float32"
        )
    with replaced_folder(folder, ONNX_ENCODER) as new, tempfile.TemporaryDirectory() as rendering:
        sample = (
            rendered(Path(rendering), check.items)
            if check.data is None
            else held_out(check.data, trained, check.items)
        )
        info(f"writing the graphs of both modalities into {folder}")
        graphs: dict[Modality, ModalityConfig] = {
            modality: write_graph(trained, modality, new) for modality in MODALITIES
        }
        write_split(new, trained.split)
        # The figures of the model are not those of its first bits.
        report = _report(Path(model)) if bits is None else None
        config = _config(trained, graphs, new) | {"report": report}
        info(f"comparing with torch: {sample.about}")
        config = _compare(config, trained, sample, new, int8, progress)
        write_text(new / MODEL_CARD, model_card(folder.name, config))
        write_config(new, config)
    return PortableEncoder.load(folder)


def write_portable(
    model: Path,
    *,
    image_backbone: str | None = None,
    text_backbone: str | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> PortableEncoder:
    """Export the trained encoder in ``model`` to its subfolder ``portable``; replace an old one.

    ``options``: those of :func:`export`. ``model`` stays usable if the process is killed. Raises
    the errors of :func:`export`. That a backbone cannot be exported is recorded in ``model``; see
    :func:`~xmodal.encoders.engine.portable_obstacle`.
    """
    if encoder_format(model) is TORCH_ENCODER:
        encoder = TrainedEncoder.load(
            model,
            image_backbone=image_backbone,
            text_backbone=text_backbone,
            trust_remote_code=trust_remote_code,
        )
        _ = encoder.image_backbone, encoder.text_backbone  # their errors are not recorded
    folder = model / PORTABLE
    with lock_folder(model):
        (model / NOT_PORTABLE).unlink(missing_ok=True)
        try:
            return export(
                model,
                folder,
                image_backbone=image_backbone,
                text_backbone=text_backbone,
                trust_remote_code=trust_remote_code,
                restart=True,
                **options,
            )
        except ModelError as error:
            if not _is_usable(model):
                remove(folder)
            write_obstacle(model, str(error))
            raise


def _is_usable(model: Path) -> bool:
    """Return whether the subfolder ``portable`` has the export of this encoder."""
    try:
        return portable_folder(model) is not None
    except ModelError:
        return False


def _compare(
    config: dict[str, Any],
    trained: TrainedEncoder,
    sample: Sample,
    folder: Path,
    int8: bool,
    progress: Progress | None,
) -> dict[str, Any]:
    """Return the config with the results of the comparison; ``int8``: quantize the graphs too.

    Raises ModelError if the float32 graphs differ from torch in too many bits.
    """
    problems = Problems()

    def codes(encoder: Encoder, problems: Problems) -> Codes:
        return encode(encoder, sample, problems, progress)

    by_torch = codes(trained, problems)
    by_onnx = codes(PortableEncoder(folder, config), Problems())  # the problems are the same
    float32 = parity(by_onnx, by_torch)
    _check_parity(float32, sample)
    equal = {"torch float32": float32}
    computed = {"torch float32": by_torch, "onnx float32": by_onnx}
    if int8:
        config = _to_int8(config, folder)
        by_int8 = codes(PortableEncoder(folder, config), Problems())
        equal = {name: parity(by_int8, other) for name, other in computed.items()}
        equal["onnx float32 with torch float32"] = float32
        computed["onnx int8"] = by_int8
    measured = {name: expected_map(one, sample) for name, one in computed.items()}
    return config | {
        "export": {
            "checked on": sample.about,
            "agreement": equal,
            "mAP": {name: figures for name, figures in measured.items() if figures},
            "problems": problems.count_by_kind(),
            "versions": {"xmodal": __version__}
            | {name: version(name) for name in PACKAGES}
            | {"python": platform.python_version(), "machine": platform.machine()},
        }
    }


def _check_parity(equal: dict[str, dict[str, float]], sample: Sample) -> None:
    """Raise ModelError or DataError unless enough bits of both modalities are equal."""
    for modality in MODALITIES:
        if modality not in equal:
            raise DataError(f"no {modality} among {sample.about} is usable: use other items")
        share = equal[modality]["bits"]
        if share < MIN_EQUAL_BITS:
            raise ModelError(
                f"{share:.2%} of the {modality} bits of the graph equal those of torch, expected "
                f"at least {MIN_EQUAL_BITS:.1%}: this backbone cannot be exported"
            )


def _config(
    trained: TrainedEncoder, graphs: dict[Modality, ModalityConfig], folder: Path
) -> dict[str, Any]:
    """Return the content of ``config.json`` without the comparison."""
    refs = {
        modality: vars(ref) | {"spec": _short(ref.spec)}
        for modality, ref in trained.backbones.items()
    }
    options = {
        name: _short(value) if name.endswith("_backbone") else value
        for name, value in trained.about.get("options", {}).items()
    }
    return {
        "kind": ONNX_ENCODER.kind,
        "format": ONNX_ENCODER.version,
        "fingerprint": trained.fingerprint,
        "bits": trained.bits,
        "precision": "float32",
        "sides": {modality: graph.to_config() for modality, graph in graphs.items()},
        "confidence": trained.confidence.to_config(),
        "shared_space": trained.shared_space,
        "backbones": refs,
        FILES_KEY: _files(folder),
        **trained.about,
        "options": options,
    }


def _to_int8(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Quantize both graphs; return the config with a new fingerprint, because codes change."""
    graphs = {
        modality: quantize(ModalityConfig.from_config(config["sides"][modality]), folder)
        for modality in MODALITIES
    }
    return config | {
        "fingerprint": write_fingerprint([*graphs.values()], folder, config["fingerprint"]),
        "made of": config["fingerprint"],
        "precision": "int8",
        "sides": {modality: graph.to_config() for modality, graph in graphs.items()},
        FILES_KEY: _files(folder),
    }


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and sha256 of each file. The model card is written later: nothing reads it."""
    paths = sorted(path for path in folder.iterdir() if path.name != LOCK)
    return {path.name: file_record(path) for path in paths}


def _short(spec: str) -> str:
    """Return the name of a backbone, or the last two parts of its path, without local folders."""
    return "/".join(Path(spec).parts[-2:])


def _report(model: Path) -> dict[str, Any] | None:
    """Return the content of ``report.json``, or None if it is missing or damaged.

    A damaged one is logged: the model card is written without its figures.
    """
    path = model / REPORT
    if not path.exists():
        return None
    try:
        report = read_json(path)
        check_digest(report, path.name)
    except DAMAGE_ERRORS as error:
        if not is_damage(error):
            raise
        log.warning(
            "%s is damaged (%s): the model card has no figures, xmodal evaluate prints them",
            *(path, error),
        )
        return None
    return {name: value for name, value in report.items() if name != DIGEST_KEY}
