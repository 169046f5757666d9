"""Right hits among the first five: by codes, by words and by both, through the commands.

    python benchmarks/finding.py --data FOLDER [--work FOLDER]

Writes results/finding.md; takes about ten minutes on 2 cores, and continues an interrupted run.
The layout of ``--data`` is that of benchmarks/harness/tasks.py.

Emoji: an encoder is trained on all 885 pictures and their names, with MobileNetV2 and MiniLM; all
are indexed. queries/emoji.jsonl has 30 queries. The rule, written before any of them was searched:
an emoji is right if its name (the text before the colon) matches the regular expression "right" of
the query. The figure is the number of right emoji among the first five hits, divided by the
smaller of five and the number of right emoji, summed over the queries.

Fashion: product photos with names and fields, of which colour is one. The rule: a hit is right if
the field "colour" contains the colour of the query and "labels" has one of its types.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.caption_sets import EMOJI, MOBILENET
from harness.report import table, write
from harness.tasks import minilm

from xmodal import load_encoder, open_index
from xmodal.index.contract import Hit
from xmodal.retrieval.query import Query
from xmodal.retrieval.retriever import Retriever

QUERIES = Path(__file__).with_name("queries") / "emoji.jsonl"
FASHION = "fashion/items.jsonl"
COLOURS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "red shoes": ("Red", ("Casual Shoes", "Sports Shoes", "Formal Shoes", "Flats", "Heels")),
    "blue jacket": ("Blue", ("Jackets", "Rain Jacket")),
    "brown wallet": ("Brown", ("Wallets",)),
    "yellow t-shirt": ("Yellow", ("Tshirts",)),
    "purple top": ("Purple", ("Tops",)),
}
"""Colour and types of the right hits of each query."""
RANKINGS = ("codes", "words", "both")
K = 5

Right = Callable[[Hit], bool]


def main() -> None:
    """Train, index, search and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("finding-work"))
    args = parser.parse_args()
    emoji = _retriever(args.data, EMOJI, args.work / "emoji")
    fashion = _retriever(args.data, FASHION, args.work / "fashion")
    write(
        "finding",
        "Right hits among the first five",
        "python benchmarks/finding.py --data FOLDER",
        [_emoji(emoji, args.data), _fashion(fashion)],
    )


def _retriever(data: Path, name: str, work: Path) -> Retriever:
    """Train and index by the commands, with their defaults; return what searches the index."""
    model, index, items = work / "model", work / "index", str(data / name)
    backbones = ["--image-backbone", str(data / MOBILENET), "--text-backbone", minilm()]
    _command("train", items, "--out", str(model), "--no-report", *backbones)
    _command("index", items, "--model", str(model), "--index", str(index))
    encoder = load_encoder(model)
    return Retriever(encoder, open_index(str(index), fingerprint=encoder.fingerprint))


def _command(*words: str) -> None:
    print("$ xmodal", *words, flush=True)
    subprocess.run([str(Path(sys.executable).with_name("xmodal")), *words], check=True)


def _emoji(retriever: Retriever, data: Path) -> tuple[str, str]:
    names = [
        json.loads(line)["text"].partition(":")[0] for line in (data / EMOJI).open(encoding="utf-8")
    ]
    rows, totals, first = [], dict.fromkeys(RANKINGS, 0), dict.fromkeys(RANKINGS, 0)
    possible = 0
    for line in QUERIES.open(encoding="utf-8"):
        query = json.loads(line)
        pattern = re.compile(query["right"])
        count = min(K, sum(map(bool, map(pattern.search, names))))
        possible += count

        def right(hit: Hit, pattern: re.Pattern[str] = pattern) -> bool:
            return bool(pattern.search(str(hit.fields["text"]).partition(":")[0]))

        row: list[Any] = [query["query"], count]
        for by in RANKINGS:
            found = _right_hits(retriever, query["query"], by, right)
            totals[by] += sum(found)
            first[by] += found[0]
            row.append(sum(found))
        rows.append(row)
    rows.append(["**all**", possible, *(f"**{totals[by]}**" for by in RANKINGS)])
    shares = ", ".join(f"{by} {totals[by] / possible:.0%}" for by in RANKINGS)
    firsts = ", ".join(f"{by} {first[by]}" for by in RANKINGS)
    text = table([["query", "right, at most 5", *RANKINGS], *rows])
    text += (
        f"\n\nShare of right ones found: {shares}. First hit right, of {len(rows) - 1} queries: "
    )
    return "Emoji: 885 names and pictures, 30 queries", f"{text}{firsts}."


def _fashion(retriever: Retriever) -> tuple[str, str]:
    rows: list[list[Any]] = []
    for query, (colour, types) in COLOURS.items():

        def right(hit: Hit, colour: str = colour, types: tuple[str, ...] = types) -> bool:
            return colour in hit.fields["colour"] and bool(set(types) & set(hit.fields["labels"]))

        row: list[Any] = [query]
        for by in RANKINGS:
            row.append(f"{sum(_right_hits(retriever, query, by, right))} of {K}")
        rows.append(row)
    title = f"Fashion: {len(retriever.index):,} photos and names, colour as a field"
    return title, table([["query", *RANKINGS], *rows])


def _right_hits(retriever: Retriever, text: str, by: Any, right: Right) -> list[bool]:
    """Return for the first five hits whether each is right; False where there are fewer."""
    (hits,) = retriever.search_batch([Query(text=text, k=K, by=by)])
    return [*map(right, hits), *[False] * (K - len(hits))]


if __name__ == "__main__":
    main()
