"""Loads numbered documents as a process that can be killed; numpy and the client, no torch.

python loader.py URI NOTES COUNT SEED
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from support.filled import BITS, batch

from xmodal_opensearch.client import bulk
from xmodal_opensearch.index.store import open_opensearch
from xmodal_opensearch.loading.load import load


def main() -> None:
    uri, notes, count, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    bulk.batches = partial(bulk.batches, count=200)  # many moments between two of them
    print("ready", flush=True)
    index = open_opensearch(uri, bits=BITS, create=True)
    report = load(index, [batch(count, seed=seed)], checkpoints=notes)
    index.close()
    print(json.dumps(report.results), flush=True)


if __name__ == "__main__":
    main()
