"""Program that loads numbered documents and may be killed; does not import torch.

Arguments: URI CHECKPOINTS COUNT SEED
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
    uri, folder, count, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    bulk.batches = partial(
        bulk.batches, max_lines=200
    )  # many batches, so that kills fall between them
    index = open_opensearch(uri, bits=BITS, create=True)
    report = load(index, [batch(count, seed=seed)], checkpoints=folder)
    index.close()
    print(json.dumps(report.results), flush=True)
