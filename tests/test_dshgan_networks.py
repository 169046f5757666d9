"""DSH-GANs' networks: what the adversary sees, and what the generator's heads make."""

from __future__ import annotations

import pytest
import torch

from xmodal.training.methods.dshgan.networks import (
    ROW_NORM,
    FeatureHead,
    PictureHead,
    PrincipalComponents,
)


def test_features_are_made_around_the_mean_and_never_below_the_least() -> None:
    real = torch.tensor([[0.0, 5.0, 1.0], [2.0, 5.0, 0.0]])
    head = FeatureHead(4, real)
    made = head(100 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0)))
    assert bool((made >= real.amin(0)).all())
    assert made[:, 1].unique().tolist() == [5.0]  # what never varies does not
    with torch.no_grad():
        head.linear.weight.zero_(), head.linear.bias.copy_(torch.tensor([1.0, 1, -1]))
    assert head(torch.zeros(1, 4)).tolist() == [[2.0, 5.0, 0.0]]


def test_the_adversary_sees_the_directions_in_which_features_vary() -> None:
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


def test_pictures_start_from_the_mean_and_stay_in_range() -> None:
    real = torch.full((3, 64 * 64 * 3), 200.0)
    head = PictureHead(8, real)
    made = head(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))
    assert made.shape == (5, 64 * 64 * 3)
    assert 0 <= float(made.min().detach()) and float(made.max().detach()) <= 255
    with torch.no_grad():
        for parameter in head.layers[-1].parameters():
            parameter.zero_()
    torch.testing.assert_close(head(torch.zeros(2, 8)), real[:2], rtol=1e-4, atol=1e-2)
