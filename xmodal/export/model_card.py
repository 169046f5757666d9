"""Model card of a portable encoder: use, training, figures, comparison with torch, limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xmodal.evaluation.report import Report
from xmodal.modality import DIRECTIONS

METRICS = ("mAP", "P@10", "pair R@10")


def model_card(name: str, config: Mapping[str, Any]) -> str:
    """Return the card in Markdown; ``config``: ``config.json`` with ``report`` and ``export``."""
    parts = [
        _usage(name, config),
        _training(config),
        _figures(config.get("report")),
        _parity(config),
        _quality(config),
        _limits(config),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _usage(name: str, config: Mapping[str, Any]) -> str:
    image, text = config["sides"]["image"], config["sides"]["text"]
    pixels, bits = image["preprocessing"], config["bits"]
    image_input = f"`pixels` (b, {pixels['size']}, {pixels['size']}, 3) uint8 RGB"
    decoding = (
        f"upright by EXIF, transparency on white, {pixels['fit']} (share {pixels['share']:g}), "
        f"{pixels['resample']}"
    )
    text_preparation = {
        "words": "words and pieces of words, hashed into 4,096 numbers (`words` of xmodal)",
        "tokens": f"`tokenizer.json`, at most {text.get('max_tokens')} tokens",
    }
    text_input = ", ".join(f"`{name}`" for name in text["inputs"])
    rows = [
        ["modality", "graph", "input", "preparation"],
        ["image", f"`{image['graph']}`", image_input, decoding],
        ["text", f"`{text['graph']}`", text_input, text_preparation[text["input"]]],
    ]
    return f"""# {name}

Encoder of pictures and texts to binary codes of {bits} bits, as ONNX graphs in
{config["precision"]}. Written by `xmodal export`; encoder {config["fingerprint"]}.

Requires xmodal with its extra `onnx` (from a checkout: `pip install '.[onnx]'`); not torch.

```bash
xmodal index photos/ --model {name} --index my.index
xmodal search "red shoes" --model {name} --index my.index
```

{_table(rows)}

Both graphs have the outputs `codes` (b, {bits // 8}) uint8, most significant bit first, and
`outputs` (b, {bits}) float32, whose signs are the bits. The graphs contain the normalisation of
pixels, backbone and tower; `config.json` declares the preparation of their inputs."""


def _training(config: Mapping[str, Any]) -> str:
    options, data = config.get("options", {}), config.get("data", {})
    specs = {modality: ref["spec"] for modality, ref in config["backbones"].items()}
    counts = ", ".join(
        f"{data[role]:,} {what}"
        for role, what in (
            ("train", "for training"),
            ("validation", "for validation"),
            ("query", "as queries"),
            ("gallery", "only in the database"),
        )
        if data.get(role)
    )
    settings = ", ".join(f"{key} {value}" for key, value in config.get("settings", {}).items())
    lines = [
        "## Training data",
        "",
        f"- data: {data.get('name', 'unknown')}; pairs: {counts or 'unknown'}",
        f"- labelled training pairs: {data.get('labelled', 'unknown')} "
        f"(share of labels used: {options.get('label_share', 'unknown')})",
        f"- backbones: {specs['image']} for pictures, {specs['text']} for texts",
        "",
        "## Protocol",
        "",
        f"- method {options.get('method', 'unknown')}, seed {options.get('seed', 'unknown')}, "
        f"split seed {options.get('split_seed', 'unknown')}",
        "- the epoch was selected on validation pairs; queries were used for "
        "neither training nor selection",
        "- mAP is the exact expectation over ties, on the whole database; confidence was fitted "
        "to validation groups that search indexes of several sizes",
        f"- settings: {settings or 'unknown'}",
    ]
    return "\n".join(lines)


def _figures(report: Mapping[str, Any] | None) -> str:
    if not report:
        return "## Figures\n\nThe model has no report: measure with `xmodal evaluate DATA --model`."
    tables = []
    if report["rows"]:
        header = ["", *(f"{m} {a}->{b}" for m in METRICS for a, b in DIRECTIONS)]
        rows = [
            [name, *(_cell(figures[f"{a}->{b}"].get(m)) for m in METRICS for a, b in DIRECTIONS)]
            for name, figures in report["rows"].items()
        ]
        tables.append(_table([header, *rows]))
    if "query" in report.get("captions", {}):  # reports of earlier versions have no captions
        captions = _table(Report(**report).caption_table("query"))
        tables.append(f"Captions: R@k in % and median rank of the first own one.\n\n{captions}")
    facts = "\n".join(f"- {name}: {value}" for name, value in report["facts"].items())
    return "\n\n".join(
        [
            "## Figures, with baselines on the same features",
            f"Measured by torch on held-out queries: {report['title']}.",
            *tables,
            facts,
        ]
    )


def _parity(config: Mapping[str, Any]) -> str:
    export = config["export"]
    rows = [
        [other, modality, f"{equal['bits']:.3%}", f"{equal['codes']:.1%}", str(equal["n"])]
        for other, modalities in export["agreement"].items()
        for modality, equal in modalities.items()
    ]
    versions = ", ".join(f"{name} {number}" for name, number in export["versions"].items())
    header = ["compared with", "modality", "equal bits", "equal codes", "items"]
    compatibility = (
        "An index of the torch encoder can be searched and extended with this encoder."
        if config["precision"] == "float32"
        else "Codes in int8 differ: index the data again with this encoder."
    )
    return (
        "## Equal bits with torch\n\n"
        f"On {export['checked on']} ({versions}). {compatibility}\n\n{_table([header, *rows])}"
    )


def _quality(config: Mapping[str, Any]) -> str:
    measured = config["export"]["mAP"]
    if not measured:
        return ""
    rows = [
        [name, *(f"{values[f'{a}->{b}']:.4f}" for a, b in DIRECTIONS)]
        for name, values in measured.items()
    ]
    header = ["computed by", *(f"mAP {a}->{b}" for a, b in DIRECTIONS)]
    return (
        f"## mAP of each runtime\n\nOn {config['export']['checked on']}, as queries and as "
        f"database; items that share a label are relevant.\n\n{_table([header, *rows])}"
    )


def _limits(config: Mapping[str, Any]) -> str:
    lines = [
        "## Limits",
        "",
        f"- Codes can be compared only with codes of encoder {config['fingerprint']}.",
        "- Figures are for data like the training data. Every input gets a code; for inputs unlike "
        "the training data it carries little information.",
        "- Confidence is the probability that a hit is right in the searched index, for queries "
        "like those of the training data.",
        "- The folder contains the weights of the backbones: their licences apply.",
    ]
    if config["precision"] == "int8":
        lines.append(
            "- Weights are in int8, so codes differ from those of encoder "
            f"{config['made of']}; confidence was fitted to that encoder."
        )
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    header, *body = rows
    lines: Iterable[Sequence[str]] = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
