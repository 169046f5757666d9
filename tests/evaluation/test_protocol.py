"""Evaluation protocol: figures by hand, chance, baselines, relevance, unlabelled items."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from support.evaluation_parts import part, random_part

from xmodal.evaluation.baselines import Baseline, fit_baselines
from xmodal.evaluation.protocol import Comparison, Part, compare

DIRECTION_NAMES = ("image->text", "text->image")
TRAIN = random_part(20)
X, Y, Z = [1, 0, 0], [0, 1, 0], [0, 0, 1]


def fitted(seed: int = 0, shared_space: bool = False) -> list[Baseline]:
    return list(
        fit_baselines(
            TRAIN.features, TRAIN.labels, TRAIN.labelled, 8, seed=seed, shared_space=shared_space
        )
    )


def compared(database: Part, query: Part, baselines: Sequence[Baseline] = ()) -> Comparison:
    found = compare(baselines, database, query, name="codes")
    assert found is not None
    return found


def tiny_report() -> Comparison:
    database = part("abcd", [X, Y, X, Y], [0, 1, 3, 7], [0, 1, 3, 7])
    query = part("pqr", [X, Y, Z], [0, 0, 0], [0, 7, 255])
    return compared(database, query)


# ---- by hand ---------------------------------------------------------------------------------


def test_compare_by_hand() -> None:
    report = tiny_report()
    found = report.rows["codes"]
    # Picture queries have code 0; texts a b c d are at 0, 1, 2, 3 bits.
    # Relevant to p: a, c; to q: b, d.
    ranked = [(1 / 1 + 2 / 3) / 2, (1 / 2 + 2 / 4) / 2]
    assert found["image->text"]["mAP"] == pytest.approx(sum(ranked) / 2)
    assert found["image->text"]["P@1"] == (1 + 0) / 2
    assert found["image->text"]["P@10"] == pytest.approx(2 / 10)
    # Text queries have codes 0 and 7: the order for p is a b c d, for q d c b a.
    ranked = [(1 / 1 + 2 / 3) / 2, (1 / 1 + 2 / 3) / 2]
    assert found["text->image"]["mAP"] == pytest.approx(sum(ranked) / 2)
    assert found["text->image"]["P@1"] == (1 + 1) / 2


def test_pair_metrics_rank_the_natural_pair_among_the_queries() -> None:
    found = tiny_report().rows["codes"]
    # Pictures 0, 0, 0 among texts 0, 7, 255: the natural pair is first, second, third.
    assert found["image->text"]["pair R@1"] == pytest.approx(1 / 3)
    assert found["image->text"]["pair R@5"] == 1
    assert found["image->text"]["pair median rank"] == 2
    # Three equal pictures: all orders are equally likely, the expected rank is 2.
    assert found["text->image"]["pair R@1"] == pytest.approx(1 / 3)
    assert found["text->image"]["pair median rank"] == 2


def test_queries_without_relevant_items_are_left_out_and_counted() -> None:
    facts = tiny_report().facts
    assert facts["queries"] == 3
    # r has label Z; no database item has it.
    assert facts["queries without anything relevant (left out)"] == 1
    assert facts["database"] == 4
    assert facts["base rate"] == 0.5 and facts["relevant means"] == "shares a label"


def test_chance_is_the_mean_over_all_orders() -> None:
    chance = tiny_report().rows["chance"]
    # Two of four are relevant for both queries: the mean over all orders of them.
    orders = set(permutations([1, 1, 0, 0]))
    expected = np.mean([sum(sum(o[: k + 1]) / (k + 1) * o[k] for k in range(4)) for o in orders])
    for direction in DIRECTION_NAMES:
        assert chance[direction]["mAP"] == pytest.approx(expected / 2)
        assert chance[direction]["P@1"] == pytest.approx(2 / 4)
        assert chance[direction]["P@10"] == pytest.approx(2 / 10)
        assert chance[direction]["pair R@1"] == pytest.approx(1 / 3)


def test_chance_on_more_data_is_the_base_rate() -> None:
    report = compared(random_part(200, 1), random_part(50, 2))
    base = report.facts["base rate"]
    for direction in DIRECTION_NAMES:
        assert report.rows["chance"][direction]["P@10"] == pytest.approx(base, abs=1e-4)
        assert report.rows["chance"][direction]["mAP"] == pytest.approx(base, abs=0.02)


# ---- rows and relevance -----------------------------------------------------------------------


def test_compare_reports_every_baseline() -> None:
    parts = random_part(40, 1), random_part(20, 2)
    report = compared(*parts, fitted())
    names = ["chance", "sign", "cca + itq", "label codeword", "codes", "float cosine (cca)"]
    assert list(report.rows) == names
    for figures in report.rows.values():
        for direction in DIRECTION_NAMES:
            assert 0 <= figures[direction]["mAP"] <= 1
    # Features are correlated with labels.
    for name in ("label codeword", "float cosine (cca)"):
        chance = report.rows["chance"]["image->text"]["mAP"]
        assert report.rows[name]["image->text"]["mAP"] > chance + 0.1
    shared = compared(*parts, fitted(shared_space=True))
    expected = [*names[:4], "pca + itq (backbone)", *names[4:], "float cosine (backbone)"]
    assert list(shared.rows) == expected


def test_figures_of_equal_seeds_are_equal() -> None:
    first, second = (
        compared(random_part(40, 1), random_part(20, 2), fitted(seed=3)) for _ in range(2)
    )
    assert first == second


def test_unlabelled_items_are_neither_queries_nor_results() -> None:
    database = part("abcd", [X, Y, X, Y], [0] * 4, [0, 0, 0, 0], [True, True, True, False])
    query = part("pq", [X, Y], [0, 0], [0, 0], [True, False])
    facts = compared(database, query).facts
    assert (facts["queries"], facts["database"]) == (1, 3)
    assert facts["base rate"] == pytest.approx(2 / 3, abs=1e-4)


def test_ndcg_of_items_with_several_labels_is_graded() -> None:
    x_and_y = [1, 1, 0]
    database = part("abc", [x_and_y, X, Z], [0, 0, 0], [1, 0, 3])
    query = part("p", [x_and_y], [0], [0])
    figures = compared(database, query).rows["codes"]["image->text"]
    # Order of the texts: b (gain 1), a (gain 2), c (gain 0).
    dcg = 1 / np.log2(2) + 2 / np.log2(3)
    ideal = 2 / np.log2(2) + 1 / np.log2(3)
    assert figures["NDCG@10"] == pytest.approx(dcg / ideal)
    assert figures["mAP"] == 1.0


def test_compare_without_relevant_items_is_none() -> None:
    database, query = part("ab", [X, X], [0, 0], [0, 0]), part("p", [Y], [0], [0])
    assert compare([], database, query, name="codes") is None
    unlabelled = part("ab", [[], []], [0, 0], [0, 0], [False, False])
    assert compare([], unlabelled, unlabelled, name="codes") is None


def test_part_take_selects_the_same_rows_everywhere() -> None:
    taken = TRAIN.take(np.arange(20) % 7 == 3)
    assert taken.ids == ["d", "k", "r"] and len(taken) == 3
    assert taken.codes["text"] == TRAIN.codes["text"][[3, 10, 17]]
    assert (taken.features["image"] == TRAIN.features["image"][[3, 10, 17]]).all()
    assert (taken.labels == TRAIN.labels[[3, 10, 17]]).all()
