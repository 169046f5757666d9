"""Upload of a portable encoder to the model hub, with the metadata of its model card."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xmodal.encoders.folder import (
    CONFIG,
    FILES_KEY,
    HUB_SCHEME,
    MODEL_CARD,
    ONNX_ENCODER,
    SENTENCE_CONFIG,
    SENTENCE_MODULES,
    check_recorded,
    damage_as_model_error,
    read_config,
)
from xmodal.encoders.hub import HubName, hub_errors
from xmodal.errors import ConfigError, require
from xmodal.modality import DIRECTIONS

TASK = "feature-extraction"
TAGS = ("xmodal", "cross-modal-retrieval", "binary-codes", "image-text", "onnx")


def push(
    folder: Path,
    name: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    licence: str | None = None,
    message: str = "Upload the encoder",
) -> str:
    """Upload the portable encoder in ``folder`` as one commit; return the address of the commit.

    ``name``: ``OWNER/NAME``, with ``@BRANCH`` for another branch than the default one; model and
    branch are created if they do not exist. ``private``: of a model that is created, None for the
    owner's default. ``token``: by default $HF_TOKEN or that of ``hf auth login``. ``licence``: for
    the model card, for example "apache-2.0". Only the files of the portable encoder are uploaded.

    Raises ModelError if a file is damaged or the hub refuses, ConfigError for a wrong name,
    ExtraMissing without the package huggingface_hub.
    """
    target = HubName.parse(name)
    require(str(target), "hub")
    from huggingface_hub import CommitOperationAdd, HfApi

    config = read_config(folder, ONNX_ENCODER)
    with damage_as_model_error(folder, ONNX_ENCODER):
        recorded = [file for file in config[FILES_KEY] if file in ONNX_ENCODER.files]
        check_recorded(folder, config, *recorded)
    others = [file for file in (SENTENCE_MODULES, SENTENCE_CONFIG) if (folder / file).is_file()]
    card = hub_card(folder, target, config, licence)
    operations = [
        CommitOperationAdd(MODEL_CARD, io.BytesIO(card.encode())),
        *(CommitOperationAdd(file, str(folder / file)) for file in (*recorded, *others, CONFIG)),
    ]
    with hub_errors(target, "was not uploaded", "run it again"):
        api = HfApi(library_name="xmodal", token=token)
        api.create_repo(target.repo, private=private, exist_ok=True)
        if target.revision:
            api.create_branch(target.repo, branch=target.revision, exist_ok=True)
        commit = api.create_commit(
            target.repo, operations, commit_message=message, revision=target.revision
        )
        return str(commit.commit_url)


def hub_card(
    folder: Path, name: HubName, config: Mapping[str, Any], licence: str | None = None
) -> str:
    """Return the model card of ``folder`` for the hub: metadata, then its text.

    The folder is called by its name on the hub. Metadata that the card has already is kept. Raises
    ConfigError if it cannot be read.
    """
    from huggingface_hub import ModelCard, ModelCardData

    path = folder / MODEL_CARD
    text = path.read_text("utf-8") if path.is_file() else f"# {folder.name}\n"
    try:
        card = ModelCard(text if text.startswith("---") else f"---\n{{}}\n---\n{text}")
    except Exception as error:  # of yaml and of huggingface_hub
        line = " ".join(str(error).split())[:160]
        raise ConfigError(f"the metadata of {path} cannot be read ({line}): correct it") from None
    data: dict[str, Any] = {
        "library_name": "xmodal",
        "pipeline_tag": TASK,
        "tags": [
            *TAGS,
            *(["sentence-transformers"] if (folder / SENTENCE_MODULES).exists() else []),
        ],
        "license": licence,
    }
    results = _results(config)
    if results:
        data |= {"model_name": name.repo.rpartition("/")[2], "eval_results": results}
    card.data = ModelCardData(**data | {k: v for k, v in vars(card.data).items() if v})
    card.text = _renamed(card.text, name)
    return str(card)


def _results(config: Mapping[str, Any]) -> list[Any]:
    """Return the figures of the encoder in its report: mAP by labels, R@10 of captions."""
    from huggingface_hub import EvalResult

    report = config.get("report") or {}
    named = report.get("rows", {}).get(report.get("name", "xmodal"), {})
    captions = report.get("captions", {}).get("query", {})
    dataset = str((config.get("data") or {}).get("name", "unknown"))
    results = []
    for source, target in DIRECTIONS:
        figures = {
            "map": ("mAP", named.get(f"{source}->{target}", {}).get("mAP")),
            "recall_at_10": ("R@10", captions.get(f"{source}_to_{target}", {}).get("r10")),
        }
        results += [
            EvalResult(
                task_type=TASK,
                task_name=f"{source} to {target}",
                dataset_type="custom",
                dataset_name=dataset,
                dataset_config=f"{source}-to-{target}",
                metric_type=kind,
                metric_name=f"{label} {source} to {target}",
                metric_value=round(float(value), 4),
            )
            for kind, (label, value) in figures.items()
            if value is not None
        ]
    return results


def _renamed(text: str, name: HubName) -> str:
    """Return the text of a card with the name on the hub in its title and its commands."""
    title, end, rest = text.lstrip("\n").partition("\n")
    if not title.startswith("# "):
        return text
    rest = rest.replace(f"--model {title[2:]} ", f"--model {HUB_SCHEME}{name.repo} ")
    return f"\n# {name.repo.rpartition('/')[2]}{end}{rest}"
