"""The report: figures by hand, chance, seeds, files for other tools, and what is left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.errors import DataError
from xmodal.evaluation.protocol import Part, Report, combine, compare, trec_qrels, trec_run

STRATEGIES = ("image->text", "text->image")


def codes(numbers: Sequence[int]) -> BinaryCodes:
    return BinaryCodes(np.array(numbers, np.uint8).reshape(-1, 1), 8)


def part(
    ids: str,
    labels: Sequence[Sequence[int]],
    image: Sequence[int],
    text: Sequence[int],
    labelled: Sequence[bool] | None = None,
) -> Part:
    """Pairs named by letters, with codes of 8 bits; their features are the labels, nearly."""
    n = len(ids)
    rng = np.random.default_rng(n)
    hot = np.array(labels, dtype=bool).reshape(n, -1)
    known = np.ones(n, bool) if labelled is None else np.array(labelled)
    shown = np.pad(hot.astype(float), ((0, 0), (0, 6 - hot.shape[1])))
    features = {side: 2 * shown + rng.normal(size=(n, 6)) for side in ("image", "text")}
    sides = {"image": codes(image), "text": codes(text)}
    return Part(list(ids), features, hot, known, sides)


def some(n: int, seed: int = 0, kinds: int = 3) -> Part:
    """Random pairs with codes that tell a little about their label."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, kinds, size=n)
    image, text = ((kind * 7) ^ rng.integers(0, 16, size=n) for _ in range(2))
    ids = "".join(chr(ord("a") + k) for k in range(n))
    return part(ids, np.eye(kinds)[kind].tolist(), image.tolist(), text.tolist())


TRAIN = some(20)
X, Y, Z = [1, 0, 0], [0, 1, 0], [0, 0, 1]


def tiny() -> Report:
    database = part("abcd", [X, Y, X, Y], [0, 1, 3, 7], [0, 1, 3, 7])
    query = part("pqr", [X, Y, Z], [0, 0, 0], [0, 7, 255])
    return compare(TRAIN, database, query, name="ours", seed=0, title="tiny")


# ---- by hand ---------------------------------------------------------------------------------


def test_a_tiny_report_by_hand() -> None:
    report = tiny()
    found = report.rows["ours"]
    # Pictures ask with 0: texts at 0, 1, 2, 3 bits in order a b c d. p wants a, c; q wants b, d.
    ranked = [(1 / 1 + 2 / 3) / 2, (1 / 2 + 2 / 4) / 2]
    assert found["image->text"]["mAP"] == pytest.approx(sum(ranked) / 2)
    assert found["image->text"]["P@1"] == (1 + 0) / 2
    assert found["image->text"]["P@10"] == pytest.approx(2 / 10)
    # Texts ask with 0 and 7: p finds a b c d, q finds d c b a (0, 1, 2, 3 bits) and wants b, d.
    ranked = [(1 / 1 + 2 / 3) / 2, (1 / 1 + 2 / 3) / 2]
    assert found["text->image"]["mAP"] == pytest.approx(sum(ranked) / 2)
    assert found["text->image"]["P@1"] == (1 + 1) / 2


def test_the_natural_pair_is_ranked_among_the_queries() -> None:
    found = tiny().rows["ours"]
    # Pictures 0, 0, 0 look at texts 0, 7, 255: the own text is first, second, third.
    assert found["image->text"]["pair R@1"] == pytest.approx(1 / 3)
    assert found["image->text"]["pair R@5"] == 1
    assert found["image->text"]["pair median rank"] == 2
    # Texts look at three equal pictures: any order, so the own one is second on average.
    assert found["text->image"]["pair R@1"] == pytest.approx(1 / 3)
    assert found["text->image"]["pair median rank"] == 2


def test_a_query_without_anything_relevant_is_left_out_and_counted() -> None:
    facts = tiny().facts
    assert facts["queries"] == 3
    # r has the label Z, which nothing in the database has.
    assert facts["queries without anything relevant (left out)"] == 1
    assert facts["database"] == 4 and facts["bits"] == 8
    assert facts["base rate"] == 0.5 and facts["relevant means"] == "shares a label"


def test_chance_is_the_expectation_over_all_orders() -> None:
    chance = tiny().rows["chance"]
    # Two of four are relevant for both queries: the mean over all orders of them.
    orders = set(permutations([1, 1, 0, 0]))
    expected = np.mean([sum(sum(o[: k + 1]) / (k + 1) * o[k] for k in range(4)) for o in orders])
    for way in STRATEGIES:
        assert chance[way]["mAP"] == pytest.approx(expected / 2)
        assert chance[way]["P@1"] == pytest.approx(2 / 4)
        assert chance[way]["P@10"] == pytest.approx(2 / 10)
        assert chance[way]["pair R@1"] == pytest.approx(1 / 3)


def test_chance_on_more_data_is_the_base_rate() -> None:
    report = compare(TRAIN, some(200, 1), some(50, 2), name="ours", seed=0)
    base = report.facts["base rate"]
    for way in STRATEGIES:
        assert report.rows["chance"][way]["P@10"] == pytest.approx(base, abs=1e-4)
        assert report.rows["chance"][way]["mAP"] == pytest.approx(base, abs=0.02)


# ---- what is compared ------------------------------------------------------------------------


def test_every_baseline_is_measured_and_floats_are_told_apart() -> None:
    report = compare(TRAIN, some(40, 1), some(20, 2), name="ours", seed=0)
    names = ["chance", "sign", "cca + itq", "label codeword", "ours", "float cosine (cca)"]
    assert list(report.rows) == names
    for figures in report.rows.values():
        for way in STRATEGIES:
            assert 0 <= figures[way]["mAP"] <= 1
    # The features show their label: what learns from them does better than chance.
    for name in ("label codeword", "float cosine (cca)"):
        chance = report.rows["chance"]["image->text"]["mAP"]
        assert report.rows[name]["image->text"]["mAP"] > chance + 0.1
    shared = compare(TRAIN, some(40, 1), some(20, 2), name="ours", seed=0, shared_space=True)
    assert list(shared.rows) == [*names, "float cosine (backbone)"]


def test_the_same_seed_gives_the_same_report() -> None:
    first, second = (
        compare(TRAIN, some(40, 1), some(20, 2), name="ours", seed=3).to_json() for _ in range(2)
    )
    assert first == second


def test_without_labels_the_natural_pair_is_relevant() -> None:
    none: list[list[int]] = [[], [], []]
    query = part("abc", none, [0, 1, 7], [0, 1, 0], [False] * 3)
    database = part("defg", [[], [], [], []], [0] * 4, [0] * 4, [False] * 4)
    report = compare(TRAIN, database, query, name="ours", seed=0)
    assert report.facts["relevant means"] == "is the natural pair"
    assert report.facts["database"] == 3 and report.facts["base rate"] == pytest.approx(
        1 / 3, abs=1e-4
    )
    # Pictures 0, 1, 7 look at texts 0, 1, 0. a: its own shares rank 1 with c's, 1/1 or 1/2;
    # b: alone in front; c (3, 2, 3 bits): its own shares rank 2 with a's, 1/2 or 1/3.
    ranked = [(1 / 1 + 1 / 2) / 2, 1 / 1, (1 / 2 + 1 / 3) / 2]
    assert report.rows["ours"]["image->text"]["mAP"] == pytest.approx(sum(ranked) / 3)
    assert report.rows["ours"]["image->text"]["pair R@1"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert "label codeword" in report.rows  # the training pairs have labels


def test_unlabelled_items_are_neither_asked_nor_found() -> None:
    database = part("abcd", [X, Y, X, Y], [0] * 4, [0, 0, 0, 0], [True, True, True, False])
    query = part("pq", [X, Y], [0, 0], [0, 0], [True, False])
    facts = compare(TRAIN, database, query, name="ours", seed=0).facts
    assert (facts["queries"], facts["database"]) == (1, 3)
    assert facts["base rate"] == pytest.approx(2 / 3, abs=1e-4)


def test_items_with_several_labels_are_graded() -> None:
    both = [1, 1, 0]
    database = part("abc", [both, X, Z], [0, 0, 0], [1, 0, 3])
    query = part("p", [both], [0], [0])
    figures = compare(TRAIN, database, query, name="ours", seed=0).rows["ours"]["image->text"]
    # Texts in order b (1 label shared), a (2 shared), c: the gain of each.
    got = 1 / np.log2(2) + 2 / np.log2(3)
    ideal = 2 / np.log2(2) + 1 / np.log2(3)
    assert figures["NDCG@10"] == pytest.approx(got / ideal)
    assert figures["mAP"] == 1.0


def test_nothing_to_find_is_an_error() -> None:
    database, query = part("ab", [X, X], [0, 0], [0, 0]), part("p", [Y], [0], [0])
    with pytest.raises(DataError, match=r"none of 1 queries .* any of 2 items"):
        compare(TRAIN, database, query, name="ours", seed=0)


# ---- seeds -----------------------------------------------------------------------------------


def report_of(value: float) -> Report:
    figures = {"mAP": value, "P@10": value / 2, "pair R@10": 1.0}
    return Report(
        "t",
        {"ours": {way: dict(figures) for way in STRATEGIES}},
        {"bits": 8},
        {"image": {"e": value}},
    )


def test_seeds_give_mean_and_standard_deviation() -> None:
    combined = combine([report_of(value) for value in (0.2, 0.3, 0.7)])
    figures, spread = (x["ours"]["text->image"] for x in (combined.rows, combined.spread))
    assert figures["mAP"] == pytest.approx((0.2 + 0.3 + 0.7) / 3)
    # Deviations from 0.4: -0.2, -0.1, 0.3; divided by n - 1 = 2
    assert spread["mAP"] == pytest.approx(((0.04 + 0.01 + 0.09) / 2) ** 0.5)
    assert spread["pair R@10"] == 0 and combined.seeds == 3
    assert combined.health["image"]["e"] == pytest.approx(0.4)
    assert "0.400±0.265" in combined.text() and "over 3 seeds" in combined.text()


def test_one_report_stays_as_it_is() -> None:
    report = report_of(0.5)
    assert combine([report]) is report and "±" not in report.text()


# ---- output ----------------------------------------------------------------------------------


def strictly(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_report_as_json_has_no_nan() -> None:
    figures = {"mAP": float("nan"), "P@10": 0.5}
    report = Report("t", {"ours": dict.fromkeys(STRATEGIES, figures)}, {"bits": 8}, {"image": {}})
    told = strictly(report.to_json())
    assert told["rows"]["ours"]["image->text"] == {"mAP": None, "P@10": 0.5}
    real = strictly(tiny().to_json())
    assert real["title"] == "tiny" and set(real["rows"]["ours"]) == set(STRATEGIES)


def test_the_table_has_a_row_a_method_and_a_column_a_direction() -> None:
    header, *rows = tiny().table(["mAP", "nothing"])
    assert header == ["method", "mAP i>t", "mAP t>i", "nothing i>t", "nothing t>i"]
    assert [row[0] for row in rows] == list(tiny().rows)
    ours = next(row for row in rows if row[0] == "ours")
    assert ours == ["ours", "0.667", "0.833", "-", "-"]
    lines = tiny().text().splitlines()
    assert lines[0] == "tiny" and "base rate: 0.5" in lines
    assert any(line.startswith("code health, image: ") for line in lines)


def test_trec_lines() -> None:
    database = part("bac", [X, Y, X], [0, 0, 0], [3, 3, 0])
    query = part("p", [X], [0], [0])
    database.ids[0] = "b with space"
    assert list(trec_run(query, database, "image", "text")) == [
        "p Q0 c 1 0 xmodal",
        "p Q0 a 2 -2 xmodal",  # a tie with b: in order of id
        "p Q0 b_with_space 3 -2 xmodal",
    ]
    assert len(list(trec_run(query, database, "image", "text", depth=2))) == 2
    assert list(trec_qrels(query, database)) == ["p 0 b_with_space 1", "p 0 c 1"]


def test_a_part_of_a_part_keeps_its_rows_together() -> None:
    taken = TRAIN.take(np.arange(20) % 7 == 3)
    assert taken.ids == ["d", "k", "r"] and len(taken) == 3
    assert taken.codes["text"] == TRAIN.codes["text"][[3, 10, 17]]
    assert (taken.features["image"] == TRAIN.features["image"][[3, 10, 17]]).all()
    assert (taken.labels == TRAIN.labels[[3, 10, 17]]).all()
