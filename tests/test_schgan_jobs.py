"""The generator's two further jobs: choosing positives, and which pseudo-labels to trust."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from clusters import CLASSES, clusters

from xmodal.codes import BinaryCodes
from xmodal.training.methods.schgan import positives, trust
from xmodal.training.methods.schgan.networks import Scene
from xmodal.training.methods.schgan.train import Config, train
from xmodal.training.objective import HashNetwork
from xmodal.training.prototypes import Codewords
from xmodal.training.run import Run, TrainingData

QUICK = Config(epochs=3, batch=40, hidden=24, warmup=0)


def codes(data: TrainingData, config: Config) -> BinaryCodes:
    towers = train(data, config, Run(data))
    return towers.codes("image", data.validation.image)


def scene(n: int = 12, bits: int = 16, seed: int = 0) -> Scene:
    """Random codes and vectors of which each is a match of itself alone."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.tanh(torch.randn(n, bits, generator=generator)) for _ in range(2)]
    vectors = torch.randn(n, 20, generator=generator), torch.randn(n, 14, generator=generator)
    return Scene.of((made[0], made[1]), vectors, torch.eye(n))


@pytest.mark.parametrize("job", [{"positives": "policy"}, {"trust": "policy"}])
def test_each_job_changes_codes_and_is_repeatable(job: dict[str, str]) -> None:
    data = clusters(labelled=0.3, bits=64)
    strong = replace(QUICK, policy_rate=0.1, positive_share=1.0, pairs=5.0, classes=10.0)
    config = replace(strong, **job)
    found = codes(data, config)
    assert found != codes(data, strong)
    assert found == codes(data, config)


@pytest.mark.parametrize("job", [{"positives": "policy"}, {"trust": "policy"}])
@pytest.mark.parametrize("labelled", [0.0, 1.0])
def test_each_job_is_idle_where_there_is_nothing_to_choose(
    job: dict[str, str], labelled: float
) -> None:
    run = Run(data := clusters(labelled=labelled))
    train(data, replace(QUICK, **job), run)
    assert ("kept" in run.history[-1]) is False


# ---- positives -------------------------------------------------------------------------------


def relevance() -> positives.Relevance:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return positives.Relevance(clusters().towers(8))


def test_nobody_is_chosen_as_a_further_match_of_itself() -> None:
    for log_p in relevance().log_policies(scene()):
        p = log_p.detach().exp()
        assert not p.diagonal().any()
        assert p.sum(1).tolist() == pytest.approx([1.0] * 12, abs=1e-5)


def test_only_doubt_gives_the_policy_a_share_of_the_target() -> None:
    doubt = torch.zeros(12)
    doubt[3], doubt[5] = 1.0, 0.5
    target = torch.eye(12)
    for found in relevance().share_of(scene(), target, doubt, 0.4):
        assert found.sum(1).tolist() == pytest.approx([1.0] * 12, abs=1e-5)
        assert torch.equal(found[[0, 1, 2, 4]], target[[0, 1, 2, 4]])
        assert float(found[3, 3]) == pytest.approx(0.6)
        assert float(found[5, 5]) == pytest.approx(0.8)


def test_the_policy_learns_what_the_discriminator_takes_for_matches() -> None:
    near = scene()
    image = torch.ones(12, 16)
    image[::2] = -1  # two kinds; candidates of the other kind are at distance 1
    seen = replace(near, image=image, text=image.clone())
    g, config = relevance(), replace(QUICK, policy_entropy=0.0)
    optimiser = torch.optim.AdamW(g.parameters(), lr=1e-2)
    rewards = [positives.step(g, optimiser, seen, config)["positive reward"] for _ in range(40)]
    assert rewards[-1] > rewards[0] + 0.2
    chosen = g.log_policies(seen)[0].detach().exp()
    same = torch.arange(12)[:, None] % 2 == torch.arange(12)[None] % 2
    assert float((chosen * same).sum(1).mean()) > 0.8


# ---- trust -----------------------------------------------------------------------------------


def test_a_fresh_policy_trusts_every_label_alike_and_known_ones_always() -> None:
    g, belief = trust.Trust(CLASSES), torch.softmax(torch.randn(6, CLASSES), 1)
    logits = torch.randn(6, CLASSES), torch.randn(6, CLASSES)
    known = torch.tensor([True, False] * 3)
    assert g.weights(belief, logits, known).tolist() == [1.0] * 6
    last = g.net[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.bias.fill_(-20.0)
    assert g.weights(belief, logits, known).tolist() == pytest.approx([1.0, 0.0] * 3, abs=1e-6)


def test_labels_that_pull_against_the_labelled_pairs_lose_trust() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        g = trust.Trust(2)
        d = HashNetwork(clusters().towers(8), Codewords(2, 16, 0.2))
    image = torch.ones(8, 16)
    seen = replace(scene(8), image=image, text=image.clone())  # all of one kind ...
    belief = torch.tensor([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 2)  # ... and two that say otherwise
    known = torch.tensor([True] * 4 + [False] * 4)
    optimiser = torch.optim.AdamW(g.parameters(), lr=1e-2)
    for _ in range(60):
        logits = d.codewords(seen.image), d.codewords(seen.text)
        assert trust.step(g, optimiser, seen, belief, logits, known, QUICK)
    weights = g.weights(belief, logits, known)
    assert float(weights[4:6].min()) > 1.2
    assert float(weights[6:].max()) < 0.8


@pytest.mark.parametrize("known", [True, False])
def test_without_labelled_or_without_other_pairs_there_is_no_step(known: bool) -> None:
    g = trust.Trust(2)
    belief, logits = torch.full((4, 2), 0.5), (torch.zeros(4, 2), torch.zeros(4, 2))
    optimiser = torch.optim.AdamW(g.parameters())
    every = torch.full((4,), known)
    assert trust.step(g, optimiser, scene(4), belief, logits, every, QUICK) == {}
