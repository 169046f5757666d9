"""Baselines: which are fitted, and their quality against chance."""

from __future__ import annotations

import numpy as np
import pytest

from xmodal.codes import BinaryCodes
from xmodal.evaluation.baselines import fit_baselines, identity, label_codeword
from xmodal.evaluation.metrics import average_precision, groups_by_codes, mean


@pytest.mark.parametrize(("labelled", "shared_space"), [(True, False), (False, True)])
def test_fit_baselines_depend_on_labels_and_the_shared_space(
    labelled: bool, shared_space: bool
) -> None:
    rng = np.random.default_rng(0)
    features = {modality: rng.normal(size=(30, 5)) for modality in ("image", "text")}
    labels, mask = np.eye(3, dtype=bool)[np.arange(30) % 3], np.full(30, labelled)
    fitted = list(fit_baselines(features, labels, mask, 8, seed=0, shared_space=shared_space))
    expected = [("sign", False), ("cca + itq", False)]
    expected += [("label codeword", False)] if labelled else []
    expected += [("float cosine (cca)", True)]
    if shared_space:
        expected += [("float cosine (backbone)", True), ("pca + itq (backbone)", False)]
    assert [(one.name, one.by_cosine) for one in fitted] == expected
    for one in fitted:
        width = 5 if one.name == "float cosine (backbone)" else 8
        assert one.projections.image(features["image"]).shape == (30, width)


def test_label_codeword_beats_chance() -> None:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 4, size=160)
    hot = np.eye(4, dtype=bool)[kind]
    image = np.eye(4)[kind] @ rng.normal(size=(4, 10)) + 0.3 * rng.normal(size=(160, 10))
    text = np.eye(4)[kind] @ rng.normal(size=(4, 7)) + 0.3 * rng.normal(size=(160, 7))
    projections = label_codeword(image[:100], text[:100], hot[:100], 16, rng=rng)
    queries = BinaryCodes.from_relaxed(projections.image(image[100:]))
    database = BinaryCodes.from_relaxed(projections.text(text[:100]))
    relevant = hot[100:] @ hot[:100].T
    reached = mean(average_precision(groups_by_codes(queries, database, relevant)))
    assert relevant.mean() < 0.3 and reached > 0.8


def test_identity_leaves_features_unchanged() -> None:
    values = np.arange(6, dtype=np.float16).reshape(2, 3)
    projections = identity()
    assert (projections.image(values) == values).all()
    assert (projections.text(values) == values).all()


def test_codes_of_a_shared_space_ignore_the_difference_of_the_means() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(60, 12))
    text = image + 0.1 * rng.normal(size=(60, 12)) + 7  # both modalities agree up to their means
    features = {"image": image, "text": text}
    none = np.zeros((60, 0), bool), np.zeros(60, bool)
    *_, codes = fit_baselines(features, *none, 16, seed=0, shared_space=True)
    ranked = codes.ranked(features)
    assert (ranked["image"].to_bits() == ranked["text"].to_bits()).mean() > 0.9
