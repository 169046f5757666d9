"""Pseudo-labels: classes, embedding, match probability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.clusters import CLASSES, clusters
from torch.nn import functional

from xmodal.linear_models import logistic
from xmodal.training import pseudo_labels
from xmodal.training.pairs import Pairs
from xmodal.training.pseudo_labels import PseudoLabels, fit

DIRECTIONS = 8


def fitted(pairs: Pairs, **options: bool) -> PseudoLabels:
    """Pseudo-labels of the pairs that the labeller is fitted to."""
    return fit(pairs, directions=DIRECTIONS, **options)(pairs)


def true_classes(pairs: Pairs) -> torch.Tensor:
    """True classes of the pairs of :func:`clusters`."""
    return torch.arange(len(pairs)) % CLASSES


def unlabelled(pairs: Pairs) -> Pairs:
    return replace(pairs, labelled=torch.zeros(len(pairs), dtype=torch.bool))


# ---- classes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tell", [True, False])
def test_labelled_pairs_have_their_own_labels(tell: bool) -> None:
    pairs = clusters(40, labelled=0.5).train
    labels = pairs.labels.clone()
    labels[0] = torch.tensor([1.0, 1, 0, 0])
    labels[1] = torch.tensor([1.0, 1, 0, 1])
    found = fitted(replace(pairs, labels=labels), label_unlabelled=tell).classes
    assert found[0].tolist() == [1 / 2, 1 / 2, 0, 0]
    assert found[1].tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    assert torch.equal(found[2:20], labels[2:20])


def test_rows_of_classes_sum_to_1() -> None:
    found = fitted(clusters(40, labelled=0.5).train).classes
    assert found.sum(1).tolist() == pytest.approx([1.0] * 40, abs=1e-5)
    assert float(found.min()) >= 0


def test_unlabelled_pairs_have_no_classes_without_label_unlabelled() -> None:
    found = fitted(clusters(40, labelled=0.5).train, label_unlabelled=False)
    assert not found.classes[20:].any()
    assert found.uncertainty.tolist() == [0.0] * 20 + [1.0] * 20


@pytest.mark.parametrize("columns", [0, CLASSES])
def test_without_labels_classes_are_zero_and_uncertainty_is_1(columns: int) -> None:
    pairs = clusters(40, labelled=0).train
    found = fitted(replace(pairs, labels=pairs.labels[:, :columns]))
    assert found.classes.shape == (40, columns)
    assert not found.classes.any()
    assert found.uncertainty.tolist() == [1.0] * 40
    assert found.embedding.norm(dim=1).tolist() == pytest.approx([1.0] * 40, abs=1e-5)


def test_label_rows_of_unlabelled_pairs_have_no_effect() -> None:
    pairs = clusters(40, labelled=0.5).train
    labels = pairs.labels.clone()
    labels[20:] = 1
    found, expected = fitted(replace(pairs, labels=labels)), fitted(pairs)
    assert torch.equal(found.classes, expected.classes)
    assert torch.equal(found.uncertainty, expected.uncertainty)


def test_labelled_pair_without_class_is_uncertain() -> None:
    pairs = clusters(200, labelled=0.5).train
    labels = pairs.labels.clone()
    labels[7] = 0
    found = fitted(replace(pairs, labels=labels))
    assert not found.classes[7].any()
    assert float(found.uncertainty[7]) == 1
    right = found.classes.argmax(1)[100:] == true_classes(pairs)[100:]
    assert float(right.float().mean()) > 0.9
    assert not found.match_probability[7, :7].any()


def test_class_without_pairs_has_low_probability() -> None:
    pairs = clusters(80, labelled=0.5).train
    found = fitted(replace(pairs, labels=torch.cat([pairs.labels, torch.zeros(80, 1)], dim=1)))
    assert float(found.classes[:, -1].max()) < 0.05


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_classification_of_both_modalities_beats_one_modality(seed: int) -> None:
    data = clusters(400, 200, labelled=0.1, seed=seed)
    train, known, kind = data.train, data.train.labelled.numpy(), true_classes(data.train).numpy()

    def right(posterior: np.ndarray) -> float:
        return float((posterior.argmax(axis=1) == kind[~known]).mean())

    together = right(fitted(train).classes.numpy()[~known])
    for side in (train.image.numpy(), train.text.numpy()):
        alone = logistic(side[known], train.labels.numpy()[known] > 0)
        assert together > right(alone(side[~known])) + 0.02
    assert together > 0.95


# ---- embedding -----------------------------------------------------------------------------------


def same_class_share(rows: torch.Tensor, kind: torch.Tensor) -> float:
    """Share of the ten nearest items by cosine that have the same class."""
    alike = rows @ rows.T
    near = alike.fill_diagonal_(-9).topk(10, dim=1).indices
    return float((kind[near] == kind[:, None]).float().mean())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_neighbours_in_the_embedding_share_classes_more_often(seed: int) -> None:
    data = clusters(400, 200, labelled=0, seed=seed)
    seen = data.validation
    embedding = fit(data.train, directions=DIRECTIONS)(seen).embedding
    assert embedding.shape == (200, DIRECTIONS)
    assert embedding.dtype == torch.float32
    assert embedding.norm(dim=1).tolist() == pytest.approx([1.0] * 200, abs=1e-5)
    for side in (seen.image, seen.text):
        centred = functional.normalize(side - side.mean(0), dim=1)
        alone = same_class_share(centred, true_classes(seen))
        assert same_class_share(embedding, true_classes(seen)) > alone + 0.03


def test_raw_images_are_not_used() -> None:
    data = clusters(200, labelled=0.5)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (200, 30), generator=generator, dtype=torch.uint8)
    raw = replace(data.train, image=pixels)
    found = fitted(raw, raw_images=True)
    centred = raw.text - raw.text.mean(0)
    torch.testing.assert_close(found.embedding, functional.normalize(centred, dim=1))
    other = fitted(replace(raw, image=255 - pixels), raw_images=True)
    assert torch.equal(found.embedding, other.embedding)
    assert torch.equal(found.classes, other.classes)
    right = found.classes.argmax(1)[100:] == true_classes(raw)[100:]
    assert float(right.float().mean()) > 0.9


# ---- new pairs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
def test_pseudo_labels_of_new_pairs_do_not_depend_on_the_batch(raw: bool) -> None:
    data = clusters(200, 60, labelled=0.5)
    labeller = fit(data.train, directions=DIRECTIONS, raw_images=raw)
    every = labeller(unlabelled(data.validation))
    right = every.classes.argmax(1) == true_classes(data.validation)
    assert float(right.float().mean()) > 0.9
    assert float(every.uncertainty.max()) > 0  # their labels are not used
    rows = torch.tensor([3, 50, 7])
    few = labeller(unlabelled(data.validation).take(rows))  # independent of the batch
    torch.testing.assert_close(few.embedding, every.embedding[rows])
    torch.testing.assert_close(few.classes, every.classes[rows])
    labelled = labeller(data.validation)
    assert torch.equal(labelled.classes, data.validation.labels)
    assert torch.equal(labelled.embedding, every.embedding)


def test_take_returns_rows() -> None:
    classes = torch.tensor([[1.0, 0], [0.5, 0.5], [0, 0], [0.2, 0.8]])
    found = PseudoLabels(torch.eye(4), classes, classes)
    part = found.take(torch.tensor([3, 1]))
    assert part.embedding.tolist() == [[0, 0, 0, 1], [0, 1, 0, 0]]
    assert part.uncertainty.tolist() == pytest.approx([0.2, 0.5])
    assert found.uncertainty.tolist() == pytest.approx([0, 0.5, 1, 0.2])


def test_fit_is_repeatable_and_does_not_change_inputs() -> None:
    pairs = clusters(60, labelled=0.5).train
    before = [tensor.clone() for tensor in vars(pairs).values()]
    state = torch.get_rng_state()
    first, again = fitted(pairs), fitted(pairs)
    assert torch.equal(first.embedding, again.embedding)
    assert torch.equal(first.classes, again.classes)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, before, vars(pairs).values()))


def test_fit_uses_at_most_max_fit_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pseudo_labels, "MAX_FIT_ROWS", 100)
    data = clusters(402, 200, labelled=0.5)
    found = fit(data.train, directions=DIRECTIONS)(unlabelled(data.validation))
    right = found.classes.argmax(1) == true_classes(data.validation)
    assert float(right.float().mean()) > 0.9


# ---- few pairs, constant features ----------------------------------------------------------------


def same_noise(*shape: int) -> torch.Tensor:
    row = torch.randn(1, shape[1], generator=torch.Generator().manual_seed(0))
    return row.expand(*shape).clone()


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("made", [torch.ones, torch.zeros, same_noise])
@pytest.mark.parametrize("n", [1, 3, 40])  # fewer pairs than features, and more
def test_constant_features_give_finite_results(
    n: int, made: Callable[..., torch.Tensor], raw: bool
) -> None:
    labelled = torch.arange(n) < n / 2
    labels = functional.one_hot(torch.arange(n) % 3, 3).float() * labelled[:, None]
    pairs = Pairs(made(n, 20), made(n, 14), labels, labelled)
    found = fitted(pairs, raw_images=raw)  # warnings are errors
    assert bool(torch.isfinite(found.embedding).all())
    assert torch.equal(found.embedding, found.embedding[:1].expand_as(found.embedding))
    assert found.classes.sum(1).tolist() == pytest.approx([1.0] * n, abs=1e-5)
    assert torch.equal(found.classes[labelled], labels[labelled])


def test_constant_text_leaves_the_image_features() -> None:
    data = clusters(200, labelled=0.5)
    found = fitted(replace(data.train, text=torch.ones(200, 14)))
    assert bool(torch.isfinite(found.embedding).all())
    right = found.classes.argmax(1)[100:] == true_classes(data.train)[100:]
    assert float(right.float().mean()) > 0.8


# ---- match probability ---------------------------------------------------------------------------


def random_pseudo_labels(n: int, seed: int = 0) -> PseudoLabels:
    """Random pseudo-labels of 3 classes: one, several and no class, labelled or not."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(n, 3, generator=generator) < 0.5).float()
    known = torch.rand(n, 1, generator=generator) < 0.5
    guess = torch.softmax(2 * torch.randn(n, 3, generator=generator), dim=1)
    presence = torch.where(known, labels, guess)
    return PseudoLabels(torch.ones(n, 1), presence / presence.sum(1, keepdim=True), presence)


@pytest.mark.parametrize("seed", range(5))
def test_match_probability_equals_a_loop(seed: int) -> None:
    some = random_pseudo_labels(9, seed)
    expected = torch.eye(9)
    for i in range(9):
        for j in range(9):
            if i != j:
                a, b = some.presence[i].tolist(), some.presence[j].tolist()
                expected[i, j] = min(1.0, sum(x * y for x, y in zip(a, b, strict=True)))
    torch.testing.assert_close(some.match_probability, expected)


def test_match_probability_equals_values_by_hand() -> None:
    presence = torch.tensor([[1.0, 1, 0], [1, 0, 0], [0, 0, 1], [0.6, 0.1, 0.3], [1, 1, 1]])
    found = PseudoLabels(presence, presence, presence).match_probability
    assert found[0].tolist() == pytest.approx([1, 1, 0, 0.7, 1])
    assert found[1].tolist() == pytest.approx([1, 1, 0, 0.6, 1])
    assert found[3].tolist() == pytest.approx([0.7, 0.6, 0.3, 1, 1])


def test_match_probability_is_1_for_one_shared_label() -> None:
    pairs = clusters(40, labelled=0.5).train
    labels = pairs.labels.clone()
    labels[:20] = torch.tensor([1.0, 1, 0, 0])
    labels[0] = torch.tensor([1.0, 0, 1, 0])
    labels[1] = torch.tensor([0.0, 0, 1, 1])
    found = fitted(replace(pairs, labels=labels)).match_probability
    assert found[0, :3].tolist() == [1, 1, 1]
    assert found[1, :3].tolist() == [1, 1, 0]


def test_match_probability_is_high_for_certain_pairs_of_labels() -> None:
    pairs = clusters(400, labelled=0.5).train
    kind = true_classes(pairs)
    labels = functional.one_hot(kind, CLASSES).float()
    labels = torch.cat([labels, labels], dim=1) * pairs.labelled[:, None]
    found = fitted(replace(pairs, labels=labels))
    assert float(found.presence[200:].sum(1).mean()) == pytest.approx(2, abs=0.3)
    same = kind[:200, None] == kind[None, 200:]
    assert float(found.match_probability[:200, 200:][same].median()) > 0.9


def test_match_probability_is_symmetric_and_1_on_the_diagonal() -> None:
    found = random_pseudo_labels(40).match_probability
    torch.testing.assert_close(found, found.T)
    assert found.diagonal().tolist() == [1.0] * 40
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


@pytest.mark.parametrize("columns", [0, 3])
def test_match_probability_without_classes_is_the_identity(columns: int) -> None:
    nothing = torch.zeros(5, columns)
    assert torch.equal(PseudoLabels(nothing, nothing, nothing).match_probability, torch.eye(5))
