"""Quality on a set of product photos and names, by the commands of the README.

    python benchmarks/fashion.py --data items.jsonl --image-backbone mobilenet_v2.safetensors \\
        --text-backbone PATH|words [--text-column NAME] [--seeds 3] [--work FOLDER]

Trains with each seed at 32 bits and all labels, then measures on the held-out queries beside every
baseline, and counts how many of the first five hits of ten plain words are of the class.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from harness.report import table, write

from xmodal import Encoder, evaluate, load_encoder, open_index, read
from xmodal.features import default_cache
from xmodal.readers import Columns

WORDS = (
    "Shirts", "Watches", "Handbags", "Casual Shoes", "Jeans",
    "Sunglasses", "Kurtas", "Heels", "Belts", "Wallets",
)  # fmt: skip


def command(*words: str) -> float:
    """Run an xmodal command as a person would; seconds."""
    print("$ xmodal", *words, flush=True)
    started = time.perf_counter()
    subprocess.run([str(Path(sys.executable).with_name("xmodal")), *words], check=True)
    return time.perf_counter() - started


def ten_words(encoder: Encoder, index: str, k: int = 5) -> tuple[int, list[list[object]]]:
    """How many of the first k hits are of the class that the word names, in all and each."""
    opened = open_index(index, encoder=encoder.fingerprint)
    found = opened.search(encoder.encode_texts(list(WORDS)), k, target="image")
    right = [
        sum(word in hit.fields["labels"] for hit in hits)
        for word, hits in zip(WORDS, found, strict=True)
    ]
    return sum(right), [[word, f"{n} of {k}"] for word, n in zip(WORDS, right, strict=True)]


def main() -> None:
    """Print everything and write results/fashion-*.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--image-backbone", required=True)
    parser.add_argument("--text-backbone", default="words")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--bits", default="32")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("fashion-work"))
    parser.add_argument("--set", action="append", default=[], help="a method's setting")
    told = parser.parse_args()
    path = Path(told.text_backbone)
    text = path.parent.name if path.name == "model" else path.name
    work = told.work / f"{text}-{told.text_column}"
    column = ["--text-column", told.text_column]
    extra = [word for setting in told.set for word in ("--set", setting)]
    models, seconds = [], []
    for seed in range(told.seeds):
        model = str(work / f"seed{seed}.model")
        models.append(model)
        seconds.append(
            command(
                "train", told.data, "--out", model, "--bits", told.bits, "--seed", str(seed),
                "--image-backbone", told.image_backbone, "--text-backbone", told.text_backbone,
                "--no-report", *column, *extra,
            )
        )  # fmt: skip
    index = str(work / "seed0.index")
    indexing = command("index", told.data, "--model", models[0], "--index", index, *column)

    data = read(told.data, Columns(text=told.text_column))
    encoders = [load_encoder(model) for model in models]
    report, _ = evaluate(encoders, data, cache=default_cache())
    total, each = ten_words(encoders[0], index)
    metrics = ("mAP", "P@10", "P@100", "pair R@10")
    times = ", ".join(f"{one:.0f}" for one in seconds)
    write(
        f"fashion-{text.replace('_', '-')}-{told.text_column.replace('_', '-')}",
        f"Fashion photos and names: {told.bits} bits, all labels, text by {text} "
        f"({told.text_column})",
        f"python benchmarks/fashion.py --seeds {told.seeds} --text-column {told.text_column}",
        [
            (
                f"Held-out queries, mean ± standard deviation over {told.seeds} seeds",
                table(report.table(metrics)) + "\n\n" + "\n".join(f"- {x}" for x in report.notes()),
            ),
            (f"Ten words: {total} of {5 * len(WORDS)} hits are of the class",
             table([["word", "right"], *each])),
            ("Time", f"train {times} s (the first run also encodes); index {indexing:.0f} s"),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
