"""The networks of DSH-GANs: inputs of the adversary and heads of the generator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from xmodal.training.methods.dshgan.config import Config
from xmodal.training.methods.dshgan.networks import (
    ROW_NORM,
    FeatureHead,
    LabelSampler,
    PictureHead,
    PrincipalComponents,
    make_conditions,
)
from xmodal.training.pairs import Pairs
from xmodal.training.pseudo_labels import PseudoLabels


def test_feature_head_output_is_at_least_the_minimum() -> None:
    real = torch.tensor([[0.0, 5.0, 1.0], [2.0, 5.0, 0.0]])
    head = FeatureHead(4, real)
    made = head(100 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0)))
    assert bool((made >= real.amin(0)).all())
    assert made[:, 1].unique().tolist() == [5.0]  # a constant feature stays constant
    with torch.no_grad():
        head.linear.weight.zero_(), head.linear.bias.copy_(torch.tensor([1.0, 1, -1]))
    assert head(torch.zeros(1, 4)).tolist() == [[2.0, 5.0, 0.0]]


def test_principal_components_keep_distances_and_have_a_fixed_norm() -> None:
    generator = torch.Generator().manual_seed(0)
    along = torch.linalg.qr(torch.randn(90, 3, generator=generator)).Q
    real = torch.randn(50, 3, generator=generator) * torch.tensor([5.0, 2.0, 1.0]) @ along.T + 7
    seen = PrincipalComponents(real)
    for lengthened in (1.0, 1000.0):
        rows = PrincipalComponents(real * lengthened)(real * lengthened)
        assert float(rows.square().sum(1).mean()) == pytest.approx(ROW_NORM**2, rel=1e-3)
        torch.testing.assert_close(rows.mean(0), torch.zeros(rows.shape[1]), atol=1e-3, rtol=0)
    apart, kept = torch.cdist(real, real), torch.cdist(seen(real), seen(real))
    torch.testing.assert_close(kept / kept.max(), apart / apart.max(), rtol=1e-2, atol=5e-3)
    alike = torch.full((5, 4), 2.0)
    assert not PrincipalComponents(alike)(alike).any()


def test_picture_head_starts_from_the_mean_and_stays_in_range() -> None:
    real = torch.full((3, 64 * 64 * 3), 200.0)
    head = PictureHead(8, real)
    made = head(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))
    assert made.shape == (5, 64 * 64 * 3)
    assert 0 <= float(made.min().detach()) and float(made.max().detach()) <= 255
    with torch.no_grad():
        for parameter in head.layers[-1].parameters():
            parameter.zero_()
    torch.testing.assert_close(head(torch.zeros(2, 8)), real[:2], rtol=1e-4, atol=1e-2)


# ---- conditions ----------------------------------------------------------------------------------


def test_sample_labels_follows_the_class_distribution() -> None:
    labels = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]])
    known = torch.tensor([True, True, True, False])  # no labelled pair has the third class
    sampler = LabelSampler(Pairs(torch.zeros(4, 1), torch.zeros(4, 1), labels, known))
    rng = np.random.default_rng(0)
    distributions = torch.tensor(
        [[0.75, 0.25, 0.0], [0, 1, 0], [0.1, 0, 0.9], [0, 0, 1], [0, 0, 0]]
    )
    sampled = torch.stack([sampler.sample_labels(distributions, rng) for _ in range(2000)])
    assert sampled[:, 1].unique(dim=0).tolist() == [[1, 1, 0]]
    assert not sampled[:, 3:].any()
    # The first class has (1, 0, 0) or (1, 1, 0), each with probability 1/2; the second the latter.
    assert float(sampled[:, 0, 1].mean()) == pytest.approx(0.75 / 2 + 0.25, abs=0.04)
    assert float(sampled[:, 2, 1].mean()) == pytest.approx(0.5, abs=0.04)


def test_make_conditions_equals_a_loop() -> None:
    labels = torch.tensor([[1.0, 0, 0], [1, 1, 0], [7, 7, 7], [0, 0, 0]])
    known = torch.tensor([True, True, False, True])
    presence = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0.6, 0.1], [0, 0, 0]])
    part = Pairs(torch.zeros(4, 1), torch.arange(4.0)[:, None], labels, known)
    belief = PseudoLabels(torch.zeros(4, 1), presence / presence.sum(1, keepdim=True), presence)
    belief = replace(belief, classes=belief.classes.nan_to_num())
    rng = np.random.default_rng(0)
    conditions = make_conditions(part, belief, LabelSampler(part), Config(), rng)
    assert conditions.values.tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert conditions.classes[1].tolist() == [0.5, 0.5, 0]
    for i in range(4):
        for j in range(4):
            shared = sum(float(presence[i, c] * conditions.values[j, c]) for c in range(3))
            assert float(conditions.match_probability[i, j]) == pytest.approx(min(1.0, shared))
    by_text = make_conditions(part, belief, LabelSampler(part), Config(condition="text"), rng)
    assert by_text.values.tolist() == [[0.0], [1.0], [2.0], [3.0]]
    assert torch.equal(by_text.match_probability, belief.match_probability)
