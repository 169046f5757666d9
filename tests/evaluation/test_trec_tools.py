"""ir-measures, pytrec_eval and ranx read the TREC files and give the figures of xmodal.

The figures of xmodal are expectations over all orders of tied documents. Without ties they are
those of the tools; with ties the tools measure one order, that of the ids.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from ir_measures import AP, RR, P, Success, nDCG
from support.evaluation_parts import codes, part, units_of

from xmodal.codes import BinaryCodes
from xmodal.evaluation.captions import caption_figures
from xmodal.evaluation.protocol import Part, compare
from xmodal.evaluation.trec import write_caption_trec, write_trec

if TYPE_CHECKING:
    from xmodal.features.units import Units

DIRECTIONS = ("image-text", "text-image")
MEASURES = {"mAP": AP, "P@1": P @ 1, "P@10": P @ 10, "NDCG@10": nDCG @ 10}
TREC_NAMES = {"mAP": "map", "P@10": "P_10", "NDCG@10": "ndcg_cut_10"}
RANX_NAMES = {"mAP": "map", "P@1": "precision@1", "P@10": "precision@10", "NDCG@10": "ndcg@10"}


def ones(counts: list[int]) -> BinaryCodes:
    """Codes of 64 bits that begin with ``counts`` ones."""
    bits = np.arange(64) < np.array(counts)[:, None]
    return BinaryCodes(np.packbits(bits, axis=1), 64)


@pytest.fixture
def without_ties() -> tuple[Part, Part]:
    """Queries and a database in which the distances of each query differ."""
    rng = np.random.default_rng(0)
    labels = rng.random((15, 4)) < 0.4
    distances = 4 * rng.permutation(15)
    database = part("abcdefghijklmno", labels.tolist(), [0] * 15, [0] * 15)
    query = part("pqr", [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], [0] * 3, [0] * 3)
    for one, counts in ((database, distances), (query, np.arange(3) % 2)):
        one.codes.update({m: ones(list(counts)) for m in ("image", "text")})  # type: ignore[attr-defined]
    return query, database


def own_figures(query: Part, database: Part) -> dict[str, dict[str, float]]:
    comparison = compare([], database, query, name="codes")
    assert comparison is not None
    rows = comparison.rows["codes"]
    return {direction.replace("->", "-"): dict(figures) for direction, figures in rows.items()}


def test_ir_measures_and_pytrec_eval_give_our_figures(
    without_ties: tuple[Part, Part], tmp_path: Path
) -> None:
    query, database = without_ties
    write_trec(tmp_path, "m", query, database)
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "m.qrels")))
    own = own_figures(query, database)
    for direction in DIRECTIONS:
        path = tmp_path / f"m.{direction}.run"
        run = list(ir_measures.read_trec_run(str(path)))
        found = ir_measures.calc_aggregate(list(MEASURES.values()), qrels, run)
        for name, measure in MEASURES.items():
            assert found[measure] == pytest.approx(own[direction][name], abs=1e-6), name
        with open(tmp_path / "m.qrels") as judged, path.open() as ranked:
            evaluator = pytrec_eval.RelevanceEvaluator(
                pytrec_eval.parse_qrel(judged), {"map", "P.10", "ndcg_cut.10"}
            )
            by_query = evaluator.evaluate(pytrec_eval.parse_run(ranked))
        for name, trec_name in TREC_NAMES.items():
            mean = np.mean([figures[trec_name] for figures in by_query.values()])
            assert mean == pytest.approx(own[direction][name], abs=1e-6), name


RANX = """
import json, sys
from ranx import Qrels, Run, evaluate
qrels, run, *measures = sys.argv[1:]
found = evaluate(Qrels.from_file(qrels, kind="trec"), Run.from_file(run, kind="trec"), measures)
print(json.dumps({name: float(value) for name, value in found.items()}))
"""


@pytest.mark.slow
def test_ranx_gives_our_figures(without_ties: tuple[Part, Part], tmp_path: Path) -> None:
    query, database = without_ties
    write_trec(tmp_path, "m", query, database)
    own = own_figures(query, database)["text-image"]
    files = [str(tmp_path / name) for name in ("m.qrels", "m.text-image.run")]
    done = subprocess.run(
        [sys.executable, "-c", RANX, *files, *RANX_NAMES.values()],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},  # compilation takes a minute
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    for name, ranx_name in RANX_NAMES.items():
        assert found[ranx_name] == pytest.approx(own[name], abs=1e-6), name


def test_captions_without_ties(tmp_path: Path) -> None:
    units = units_of([["a", "b"], ["c"], ["d", "e", "f"]])
    coded = {"image": ones([0, 21, 42]), "text": ones([7, 32, 14, 55, 37, 64])}
    figures = caption_figures(units, coded)
    write_caption_trec(tmp_path, "m", units, coded)
    for direction in DIRECTIONS:
        own = figures[direction.replace("-", "_to_")]
        found = aggregate(tmp_path, f"m.captions.{direction}", [Success @ 1, Success @ 5, RR])
        assert found[Success @ 1] == pytest.approx(own["r1"])
        assert found[Success @ 5] == pytest.approx(own["r5"])


def aggregate(folder: Path, name: str, measures: list[object]) -> dict[object, float]:
    qrels = list(ir_measures.read_trec_qrels(str(folder / f"{name}.qrels")))
    run = list(ir_measures.read_trec_run(str(folder / f"{name}.run")))
    return dict(ir_measures.calc_aggregate(measures, qrels, run))


def test_our_figures_are_the_mean_over_the_orders_of_ties(tmp_path: Path) -> None:
    """Tied documents are ordered by id, so that all orders are those of permuted ids."""
    units: Units = units_of([["a"], ["b"], ["c"], ["d"]])
    tied = {"image": codes([0, 3, 5, 7]), "text": codes([1, 2, 4, 255])}  # a, b, c at distance 1
    own = caption_figures(units, tied)["image_to_text"]
    found = []
    for number, order in enumerate(permutations("abc")):
        renamed = units_of([["a"], ["b"], ["c"], ["d"]])
        renamed.text_ids[:3] = order
        folder = tmp_path / str(number)
        folder.mkdir()
        write_caption_trec(folder, "m", renamed, tied)
        found.append(aggregate(folder, "m.captions.image-text", [Success @ 1])[Success @ 1])
    assert min(found) < own["r1"] < max(found)
    assert np.mean(found) == pytest.approx(own["r1"])
