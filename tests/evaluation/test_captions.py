"""Caption protocol: figures by hand, brute force under ties, several captions, intervals."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from support.evaluation_parts import codes, units_of

from xmodal.codes import BinaryCodes
from xmodal.evaluation import captions
from xmodal.evaluation.baselines import Baseline, identity
from xmodal.evaluation.captions import caption_figures, measure_captions, query_figures
from xmodal.evaluation.search_stages import stage_distances
from xmodal.features.units import Units
from xmodal.index.documents import DocumentBatch
from xmodal.index.local import HammingIndex
from xmodal.index.query_codes import QueryCodes
from xmodal.modality import DIRECTIONS

# Two pictures; the first has the captions a and b, the second one c.
TWO = units_of([["a", "b"], ["c"]])
TWO_CODES = {"image": codes([0, 1]), "text": codes([7, 0, 0])}


def point(figures: dict[str, Any]) -> dict[str, float]:
    """The figures without their intervals."""
    return {name: value for name, value in figures.items() if not name.endswith("_interval")}


# ---- by hand ---------------------------------------------------------------------------------


def test_figures_by_hand() -> None:
    found = caption_figures(TWO, TWO_CODES)
    # Picture 0: captions at 3, 0, 0 bits; its b is tied with c: rank 1 or 2, expected 1.5.
    # Picture 1: at 2, 1, 1 bits; its c is tied with b.
    assert point(found["image_to_text"]) == {"r1": 0.5, "r5": 1, "r10": 1, "median_rank": 1.5}
    # a (7): pictures at 3, 2 bits: rank 2. b (0): at 0, 1: rank 1. c (0): at 0, 1: rank 2.
    expected = {"r1": pytest.approx(1 / 3), "r5": 1, "r10": 1, "median_rank": 2}
    assert point(found["text_to_image"]) == expected
    assert found["rsum"] == pytest.approx(100 * (0.5 + 1 + 1 + 1 / 3 + 1 + 1))


def test_an_equal_caption_of_another_unit_is_a_wrong_result_that_is_tied() -> None:
    units = units_of([["red", "round"], ["red"]])
    found = caption_figures(units, {"image": codes([0, 0]), "text": codes([0, 3, 0])})
    # Picture 0: "red" of both units is tied, one of them is its own. Picture 1 likewise.
    assert found["image_to_text"]["r1"] == 0.5
    assert found["image_to_text"]["median_rank"] == 1.5


def test_equal_captions_are_tied_by_cosine_whatever_the_rounding() -> None:
    rng = np.random.default_rng(0)
    # 700 units with one caption of their own and one that all share, nearest to every picture.
    units = units_of([["same", f"own {number}"] for number in range(700)])
    vectors = rng.normal(size=(701, 48)).astype(np.float32)[units.text_key]
    shared = vectors[units.text_ids.index("u0#0")]
    ranked = {"image": np.repeat(shared[None], 700, axis=0), "text": vectors}
    found = caption_figures(units, ranked)["image_to_text"]
    assert found["median_rank"] == (700 + 1) / 2
    assert found["r10"] == pytest.approx(10 / 700)


def test_figures_of_constant_codes_are_those_of_chance() -> None:
    units = units_of([["a", "b"], ["c", "d"], ["e", "f"]])
    rows = measure_captions(units, {"image": codes([0, 1, 2]), "text": codes([3] * 6)})
    chance = rows["baselines"]["chance"]
    # Two of six captions are right; the first of them is at (6 + 1) / (2 + 1) on average.
    expected = {"r1": 2 / 6, "r5": 1, "r10": 1, "median_rank": 7 / 3}
    assert point(chance["image_to_text"]) == pytest.approx(expected)
    assert point(chance["text_to_image"]) == pytest.approx(
        expected | {"r1": 1 / 3, "median_rank": 2}
    )


# ---- brute force -----------------------------------------------------------------------------


def brute_force(distances: list[int], own: set[int], k: int) -> tuple[float, float]:
    """Share of orders with a hit in the first ``k``, and mean rank of the first own item."""
    items = range(len(distances))
    orders = [o for o in permutations(items) if sorted(o, key=lambda i: distances[i]) == list(o)]
    ranks = [next(place for place, item in enumerate(o, 1) if item in own) for o in orders]
    return float(np.mean([rank <= k for rank in ranks])), float(np.mean(ranks))


@pytest.mark.parametrize("seed", range(4))
def test_figures_are_means_over_all_orders_of_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    units = units_of([["a", "b", "c"], ["d"], ["e", "f"]], pictures=[2, 1, 2])
    ranked = {
        "image": codes(rng.integers(0, 4, size=5).tolist()),
        "text": codes(rng.integers(0, 4, size=6).tolist()),
    }
    for source, target in DIRECTIONS:
        found = query_figures(units, source, ranked[source], ranked[target])
        unit_of_item = units.unit_of_rows(target)
        for query, unit in enumerate(units.unit_of_rows(source)):
            distances = ranked[source][query : query + 1].distances(ranked[target])[0].tolist()
            own = set(np.flatnonzero(unit_of_item == unit).tolist())
            for column, k in enumerate(captions.HIT_CUTS):
                hit, rank = brute_force(distances, own, k)
                assert found.hits[query, column] == pytest.approx(hit)
                assert found.rank[query] == pytest.approx(rank)


@pytest.mark.parametrize("cells", [1, 7, 23])
def test_figures_do_not_depend_on_the_chunks(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    units, ranked = random_units(9)
    whole = [query_figures(units, s, ranked[s], ranked[t]) for s, t in DIRECTIONS]
    monkeypatch.setattr(captions, "CHUNK_CELLS", cells)
    for one, (source, target) in zip(whole, DIRECTIONS, strict=True):
        found = query_figures(units, source, ranked[source], ranked[target])
        assert (found.hits == one.hits).all() and (found.rank == one.rank).all()


def random_units(n: int) -> tuple[Units, dict[str, BinaryCodes]]:
    """Units with one to three captions, and codes that are close within a unit."""
    rng = np.random.default_rng(n)
    units = units_of([[f"{unit} {k}" for k in range(1 + unit % 3)] for unit in range(n)])
    base = rng.integers(0, 256, size=n)
    noise = 1 << rng.integers(0, 8, size=len(units.text_ids))
    texts = base[units.unit_of_rows("text")] ^ noise
    return units, {"image": codes(base.tolist()), "text": codes(texts.tolist())}


# ---- layout, intervals, errors ---------------------------------------------------------------


def test_measure_captions_has_the_layout_of_the_report() -> None:
    baseline = Baseline("float cosine (backbone)", identity(), by_cosine=True)
    outputs = {"image": np.ones((2, 8)), "text": np.ones((3, 8))}
    found = measure_captions(TWO, TWO_CODES, [baseline], outputs=outputs)
    assert (found["units"], found["pictures"], found["captions"], found["bits"]) == (2, 2, 3, 8)
    assert list(found["baselines"]) == ["chance", "float cosine (backbone)"]
    figures = ["r1", "r5", "r10", "median_rank"]
    for row in (found, found["outputs"], *found["baselines"].values()):
        for direction in ("image_to_text", "text_to_image"):
            assert list(point(row[direction])) == figures
            for name in figures:
                low, high = row[direction][f"{name}_interval"]
                assert low <= row[direction][name] <= high
        assert row["rsum_interval"][0] <= row["rsum"] <= row["rsum_interval"][1]


def test_intervals_are_narrower_with_more_units_and_equal_for_equal_seeds() -> None:
    def width(n: int, seed: int = 0) -> float:
        units, ranked = random_units(n)
        low, high = caption_figures(units, ranked, seed=seed)["text_to_image"]["r1_interval"]
        return float(high - low)

    assert width(600) < width(30) / 2
    assert width(30) == width(30) != width(30, seed=1)


def test_interval_of_a_share_is_near_the_binomial_one() -> None:
    # 400 pictures with one caption each; half of the pictures find theirs at the first place.
    n = 400
    units = units_of([[str(number)] for number in range(n)])
    bits = np.eye(n, dtype=np.float32) * 2 - 1
    texts = np.where(np.arange(n)[:, None] < n // 2, bits, -bits)
    ranked = {"image": BinaryCodes.from_relaxed(bits), "text": BinaryCodes.from_relaxed(texts)}
    figures = caption_figures(units, ranked)["image_to_text"]
    assert figures["r1"] == 0.5
    spread = 1.96 * (0.25 / n) ** 0.5
    assert figures["r1_interval"] == pytest.approx([0.5 - spread, 0.5 + spread], abs=0.01)


def test_median_of_a_resample_counts_each_draw() -> None:
    values, weights = np.array([5.0, 1.0, 3.0]), np.array([[0, 2, 1], [1, 1, 0], [1, 1, 1]])
    found = captions._weighted_median(values, weights)
    assert found.tolist() == [np.median([1, 1, 3]), np.median([1, 5]), np.median([1, 3, 5])]


def test_asymmetric_search_compares_outputs_with_the_bits_of_the_database() -> None:
    units = units_of([["a"], ["b"]])
    outputs = {m: np.array([[0.9, -0.1] * 4, [-0.2, 0.3] * 4]) for m in ("image", "text")}
    signs = {m: BinaryCodes.from_relaxed(x).to_signs() for m, x in outputs.items()}
    found = caption_figures(units, outputs, signs)
    assert found["image_to_text"]["r1"] == found["text_to_image"]["r1"] == 1


def test_a_unit_without_captions_is_refused() -> None:
    units = units_of([["a"], []])
    with pytest.raises(ValueError, match="'u1' has no text"):
        caption_figures(units, {"image": codes([0, 1]), "text": codes([0])})


def test_stages_of_a_search_are_those_of_an_index() -> None:
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(40, 64)), rng.normal(size=(120, 64))
    ids = [f"{row:03}" for row in range(len(text))]
    index = HammingIndex(64)
    stored = QueryCodes.of(text)
    assert stored.vectors is not None
    index.add(DocumentBatch.of(ids, text=stored.codes, text_vectors=stored.vectors))
    for vectors in (False, True):
        queries = QueryCodes.of(image)
        distances = stage_distances(queries, stored, vectors=vectors, window=30)(slice(None))
        if not vectors:
            queries = replace(queries, vectors=None)
        found = index.search(queries, 30, target="text", window=30)
        for row, hits in enumerate(found):
            order = sorted(range(len(ids)), key=lambda place: (distances[row, place], ids[place]))
            assert [hit.id for hit in hits] == [ids[place] for place in order[:30]]
