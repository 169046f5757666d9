"""The networks of SSAH: hidden cells, angles and hard samples, by hand and by loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from xmodal.training.methods.ssah.networks import (
    FeatureANet,
    PixelANet,
    assign_angles,
    blocks_per_size,
    run_covers,
    sample_hidden,
    square_covers,
)

MAX_ANGLE = math.radians(30)


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)


# ---- hidden cells and angles ---------------------------------------------------------------------


def test_run_and_square_covers_equal_values_by_hand() -> None:
    assert run_covers(4, 3).tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]
    assert run_covers(3, 2, wrap=True).tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 1]]
    whole = square_covers(3, 2).view(4, 3, 3)
    assert whole[1].tolist() == [[0, 1, 1], [0, 1, 1], [0, 0, 0]]
    assert whole[2].tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 0]]


@pytest.mark.parametrize("sizes", [[8, 4, 1], [9, 4, 1], [4, 1], [1]])
@pytest.mark.parametrize("hidden", range(22))
def test_blocks_per_size_hides_the_given_number_of_cells(hidden: int, sizes: list[int]) -> None:
    counts = blocks_per_size(hidden, sizes)
    assert sum(count * size for count, size in zip(counts, sizes, strict=True)) == hidden
    assert min(counts) >= 0


def test_blocks_per_size_uses_every_size() -> None:
    assert blocks_per_size(21, [8, 4, 1]) == [1, 2, 5]
    assert blocks_per_size(21, [9, 4, 1]) == [1, 2, 4]


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 14, 20, 33, 64, 67, 100, 129, 150, 255, 300])
def test_feature_a_net_hides_the_same_number_of_components(dim: int) -> None:
    features = torch.randn(300, dim)
    net = FeatureANet(features, 1 / 3, MAX_ANGLE, rotate=True)
    size = min(dim, 256)
    lost = []
    for learned in (True, False):
        with torch.no_grad():
            for weight in net.last.parameters():
                weight.normal_(std=3.0)
            hard, hidden, angles = net(features, learned)
        assert bool(((hidden == 0) | (hidden == 1)).all())
        lost.append(hidden.sum(1) * net.length)
        assert bool((angles.abs() <= MAX_ANGLE).all())
        assert bool(torch.isfinite(hard).all())
    assert torch.equal(*lost)
    assert len(set(lost[0].tolist())) == 1
    assert lost[0][0] <= size / 3
    assert lost[0][0] >= size / 3 - size / 33 - 1  # at most a little less


@pytest.mark.parametrize("area", [0.0, 0.1, 0.25, 1 / 3])
def test_pixel_a_net_learned_and_random_have_the_same_area_and_angles(area: float) -> None:
    pictures = torch.randint(0, 256, (6, 64 * 64 * 3), dtype=torch.uint8)
    net = PixelANet(area, MAX_ANGLE)
    with torch.no_grad():
        for weight in (*net.places.parameters(), *net.rotation.parameters()):
            weight.normal_(std=3.0)
        _, learned, angles = net(pictures, True)
        _, random, random_angles = net(pictures, False)
    assert learned.sum(1).tolist() == random.sum(1).tolist() == [int(area * 64)] * 6
    assert learned.mean() <= 1 / 3
    assert area == 0 or not torch.equal(learned, random)
    assert angles.sort(0).values.flatten().tolist() == pytest.approx(
        [math.radians(angle) for angle in (-25, -15, -5, 5, 15, 25)]
    )
    assert torch.allclose(angles.sort(0).values, random_angles.sort(0).values)
    assert float(angles.abs().mean()) == pytest.approx(float(random_angles.abs().mean()))


def test_sample_hidden_selects_disjoint_blocks_with_high_scores() -> None:
    covers = [run_covers(20, 4, wrap=True), run_covers(20, 1)]
    scores = torch.zeros(50, 20)
    scores[:, 7] = 50
    hidden = sample_hidden([scores, torch.zeros(50, 20)], covers, [1, 2])
    assert bool((hidden[:, 7:11] == 1).all())
    assert hidden.sum(1).tolist() == [6] * 50
    spread = sample_hidden([torch.zeros(4000, 20), torch.zeros(4000, 20)], covers, [1, 2])
    assert spread.mean(0).tolist() == pytest.approx([0.3] * 20, abs=0.04)  # uniform over cells


def test_sample_hidden_has_the_gradient_of_the_softmax() -> None:
    cover, score = run_covers(6, 2), torch.randn(3, 5, requires_grad=True)
    value = torch.randn(3, 6)
    torch.manual_seed(7)
    noise = -torch.empty(3, 5).exponential_().log()
    torch.manual_seed(7)
    (sample_hidden([score], [cover], [1]) * value).sum().backward()
    soft = torch.softmax(score.detach() + noise, dim=1)
    gain = value @ cover.T  # gain of each place; d/ds_p = soft_p (gain_p - sum_q soft_q gain_q)
    expected = soft * (gain - (soft * gain).sum(1, keepdim=True))
    torch.testing.assert_close(score.grad, expected)


def test_assign_angles_orders_by_score_with_straight_through_gradient() -> None:
    scores = torch.tensor([[40.0], [-20.0], [0.0], [20.0]], requires_grad=True)
    angles = assign_angles(scores, 0.4)
    assert angles.flatten().tolist() == pytest.approx([0.3, -0.3, -0.1, 0.1])
    (angles.flatten() * torch.tensor([1.0, 2, 3, 4])).sum().backward()
    assert scores.grad is not None
    assert scores.grad.flatten().tolist() == pytest.approx([0.4 * w for w in (1, 2, 3, 4)])
    assert assign_angles(torch.zeros(1, 1), 0.4).tolist() == [[0.0]]


# ---- hard samples --------------------------------------------------------------------------------


def test_feature_distort_equals_a_loop_over_components() -> None:
    features = torch.randn(40, 5)
    net = FeatureANet(features, 1 / 3, MAX_ANGLE, rotate=False)
    hidden = (torch.rand(40, 5) > 0.6).float()
    found = net.distort(features, hidden, torch.zeros(40, 0))
    mean = features.double().mean(0).numpy()
    _, _, rows = np.linalg.svd(features.double().numpy() - mean)  # rows: components
    for item, mask, made in zip(features.double().numpy(), hidden.numpy(), found, strict=True):
        expected = mean.copy()
        for component, gone in zip(rows, mask, strict=True):
            expected += (1 - gone) * (component @ (item - mean)) * component
        assert made.tolist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_feature_distort_keeps_the_residual() -> None:
    few = torch.randn(4, 50)
    net = FeatureANet(few, 1 / 3, MAX_ANGLE, rotate=False)
    new = torch.randn(3, 50)
    hard = net.distort(new, torch.ones(3, 4), torch.zeros(3, 0))
    away = (new - few.mean(0)) - (hard - few.mean(0))
    directions = torch.linalg.qr((few - few.mean(0)).T).Q[:, :3]  # four items: three directions
    assert float(hard.sub(few.mean(0)).matmul(directions).abs().max()) < 1e-4
    assert float(away.norm()) < float(new.norm())


def test_feature_distort_rotates_by_the_angle() -> None:
    features = torch.randn(60, 6)
    net = FeatureANet(features, 0.0, MAX_ANGLE, rotate=True)
    assert net.rotations == 3
    angles = torch.full((60, 3), 0.4)
    hard = net.distort(features, torch.zeros(60, 6), angles)
    before, after = features - features.mean(0), hard - features.mean(0)
    assert torch.allclose(before.norm(dim=1), after.norm(dim=1), atol=1e-4)
    cosine = torch.nn.functional.cosine_similarity(before, after, dim=1)
    assert cosine.tolist() == pytest.approx([math.cos(0.4)] * 60, abs=1e-3)


def test_pixel_distort_rotates_and_covers_with_the_mean_colour() -> None:
    picture = torch.zeros(1, 64, 64, 3)
    picture[0, 30:34, 50:54] = 255  # a dot on the right
    net = PixelANet(1 / 3, MAX_ANGLE)
    hidden = torch.zeros(1, 64)
    hidden[0, 0] = 1  # the cell at the top left
    hard = net.distort(picture.flatten(1), hidden, torch.tensor([[MAX_ANGLE]])).view(64, 64, 3)
    mean = 255 * 16 / 64**2
    assert torch.allclose(hard[:8, :8], torch.full((8, 8, 3), mean), atol=1e-4)
    assert float(hard[:8, 8:16].max()) == 0
    y, x = divmod(int(hard[:, :, 0].argmax()), 64)
    radius = 52 - 32  # from the middle of the picture
    assert abs(x - (32 + radius * math.cos(MAX_ANGLE))) < 3
    assert abs(abs(y - 32) - radius * math.sin(MAX_ANGLE)) < 3
    still = net.distort(picture.flatten(1), torch.zeros(1, 64), torch.zeros(1, 1))
    assert torch.allclose(still, picture.flatten(1), atol=1e-2)
