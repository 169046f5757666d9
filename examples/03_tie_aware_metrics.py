"""mAP of binary codes depends on the order of ties; its expected value over ties does not.

python examples/03_tie_aware_metrics.py
"""

import numpy as np

from xmodal import BinaryCodes
from xmodal.evaluation.metrics import average_precision, groups_by_codes, mean


def sorted_map(distances: np.ndarray, relevance: np.ndarray, order: np.ndarray) -> float:
    """Mean average precision of a stable sort by distance: ties keep the given order."""
    values = []
    for row, relevant in zip(distances[:, order], relevance[:, order], strict=True):
        hits = relevant[np.argsort(row, kind="stable")]
        ranks = np.flatnonzero(hits) + 1
        values.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return float(np.mean(values))


def main() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 10, size=2100)
    centres = rng.standard_normal((10, 16))
    relaxed = centres[classes] + 1.5 * rng.standard_normal((2100, 16))
    codes = BinaryCodes.from_relaxed(relaxed)
    queries, database = codes[:100], codes[100:]
    relevance = classes[:100, None] == classes[None, 100:]
    distances = queries.distances(database)

    by_class = np.argsort(classes[100:], kind="stable")
    print(f"ties in the order of the data  {sorted_map(distances, relevance, np.arange(2000)):.4f}")
    print(f"ties ordered by class          {sorted_map(distances, relevance, by_class):.4f}")
    expected = mean(average_precision(groups_by_codes(queries, database, relevance)))
    print(f"expected value over ties       {expected:.4f}")

    equal = BinaryCodes(np.zeros((2100, 2), np.uint8), 16)
    expected = mean(average_precision(groups_by_codes(equal[:100], equal[100:], relevance)))
    best = sorted_map(
        np.zeros((100, 2000)), relevance[:1].repeat(100, 0), np.argsort(~relevance[0])
    )
    print(f"all codes equal: {best:.4f} with the best order of ties, expected value {expected:.4f}")


if __name__ == "__main__":
    main()
