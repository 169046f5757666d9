"""Why ties decide: one set of codes, three "mAPs", and the one that does not depend on a sort.

python examples/03_honest_metrics.py
"""

import numpy as np

from xmodal import BinaryCodes
from xmodal.metrics import average_precision, groups_by_codes, mean


def sorted_map(distances: np.ndarray, relevance: np.ndarray, order: np.ndarray) -> float:
    """Mean AP as scripts compute it: whatever the sort does with ties."""
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
    print(f"sorted as the data came       {sorted_map(distances, relevance, np.arange(2000)):.4f}")
    print(f"sorted, database by class     {sorted_map(distances, relevance, by_class):.4f}")
    expected = mean(average_precision(groups_by_codes(queries, database, relevance)))
    print(f"expected over all tie orders  {expected:.4f}")

    alike = BinaryCodes(np.zeros((2100, 2), np.uint8), 16)
    truth = mean(average_precision(groups_by_codes(alike[:100], alike[100:], relevance)))
    lucky = sorted_map(
        np.zeros((100, 2000)), relevance[:1].repeat(100, 0), np.argsort(~relevance[0])
    )
    print(f"all codes alike: a lucky sort says {lucky:.4f}, the expectation {truth:.4f}")


if __name__ == "__main__":
    main()
