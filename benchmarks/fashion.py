"""mAP on product photos and names, through the commands of the README.

    python benchmarks/fashion.py --data items.jsonl --image-backbone mobilenet_v2.safetensors \\
        --text-backbone PATH|words [--text-column NAME] [--seeds 3] [--work FOLDER]

Writes results/fashion-*.md; takes about half an hour on 2 cores. Trains one encoder per seed with
all labels, evaluates it on the held-out queries with all baselines, and counts how many of the
first five hits for ten class names have that class.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from harness.report import table, write

from xmodal import Encoder, evaluate, load_encoder, open_index, read
from xmodal.data.readers.columns import Columns
from xmodal.features.cache import default_cache
from xmodal.retrieval.query import Query
from xmodal.retrieval.retriever import Retriever

WORDS = (
    "Shirts", "Watches", "Handbags", "Casual Shoes", "Jeans",
    "Sunglasses", "Kurtas", "Heels", "Belts", "Wallets",
)  # fmt: skip


def command(*words: str) -> float:
    """Run an xmodal command; return the seconds."""
    print("$ xmodal", *words, flush=True)
    started = time.perf_counter()
    subprocess.run([str(Path(sys.executable).with_name("xmodal")), *words], check=True)
    return time.perf_counter() - started


def ten_words(encoder: Encoder, index: str, k: int = 5) -> tuple[int, list[list[object]]]:
    """Number of the first k hits that have the class named by the query: total, and per query."""
    opened = open_index(index, fingerprint=encoder.fingerprint)
    retriever = Retriever(encoder, opened)
    found = retriever.search_batch([Query(text=word, k=k) for word in WORDS])
    correct = [
        sum(word in hit.fields["labels"] for hit in hits)
        for word, hits in zip(WORDS, found, strict=True)
    ]
    return sum(correct), [[word, f"{n} of {k}"] for word, n in zip(WORDS, correct, strict=True)]


def main() -> None:
    """Run the benchmark and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--image-backbone", required=True)
    parser.add_argument("--text-backbone", default="words")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--bits", default="32")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("fashion-work"))
    parser.add_argument(
        "--set", action="append", default=[], help="setting of the method, KEY=VALUE"
    )
    args = parser.parse_args()
    path = Path(args.text_backbone)
    text = path.parent.name if path.name == "model" else path.name
    work = args.work / f"{text}-{args.text_column}"
    column = ["--text-column", args.text_column]
    extra = [word for setting in args.set for word in ("--set", setting)]
    models, seconds = [], []
    for seed in range(args.seeds):
        model = str(work / f"seed{seed}.model")
        models.append(model)
        seconds.append(
            command(
                "train", args.data, "--out", model, "--bits", args.bits, "--seed", str(seed),
                "--image-backbone", args.image_backbone, "--text-backbone", args.text_backbone,
                "--no-report", *column, *extra,
            )
        )  # fmt: skip
    index = str(work / "seed0.index")
    indexing = command("index", args.data, "--model", models[0], "--index", index, *column)

    data = read(args.data, Columns(text=args.text_column), label_column="labels")
    encoders = [load_encoder(model) for model in models]
    report, _ = evaluate(encoders, data, cache=default_cache())
    total, each = ten_words(encoders[0], index)
    metrics = ("mAP", "P@10", "P@100", "pair R@10")
    times = ", ".join(f"{one:.0f}" for one in seconds)
    write(
        f"fashion-{text.replace('_', '-')}-{args.text_column.replace('_', '-')}",
        f"Fashion photos and names: {args.bits} bits, all labels, text by {text} "
        f"({args.text_column})",
        f"python benchmarks/fashion.py --seeds {args.seeds} --text-column {args.text_column}",
        [
            (
                f"Held-out queries, mean ± standard deviation over {args.seeds} seeds",
                table(report.table(metrics)) + "\n\n" + "\n".join(f"- {x}" for x in report.notes()),
            ),
            (f"Ten words: {total} of {5 * len(WORDS)} hits have the class",
             table([["query", "correct"], *each])),
            ("Time", f"train {times} s (the first also encodes); index {indexing:.0f} s"),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
