"""A third job for a generator: which pseudo-labels to trust.

A policy keeps or drops the pseudo-label of each unlabelled pair. Its reward is whether learning
from that label helps with the labelled pairs of the batch: the cosine between the gradients that
both give to the codewords (learning to reweight, Ren et al., ICML 2018, as a policy). The
expectation over keep and drop is exact.

``benchmarks/schgan.py`` measures it as the row "trust".
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from xmodal.training.methods.schgan.config import Config
from xmodal.training.methods.schgan.networks import Scene

EVIDENCE = 3
Two = tuple[torch.Tensor, torch.Tensor]
"""Of images, of texts."""


class Trust(nn.Module):
    """p(keep) of a pseudo-label, from the belief, the codewords' own opinion, and their accord."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2 * classes + EVIDENCE, 64), nn.GELU(), nn.Linear(64, 1))
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, belief: torch.Tensor, opinion: torch.Tensor) -> torch.Tensor:
        """Two posteriors (n, c) -> logit of keeping, (n,)."""
        entropy = -(belief * belief.clamp(min=1e-9).log()).sum(1)
        evidence = [belief.amax(1), (belief * opinion).sum(1), entropy]
        out: torch.Tensor = self.net(torch.cat([belief, opinion, torch.stack(evidence, 1)], 1))
        return out.squeeze(1)

    @torch.no_grad()
    def weights(self, belief: torch.Tensor, logits: Two, known: torch.Tensor) -> torch.Tensor:
        """Weight of each pair's class term, (n,): 1 of labelled pairs, else 2 p(keep)."""
        keep = 2 * torch.sigmoid(self(belief, _opinion(logits)))
        return torch.where(known, 1.0, keep)


def step(
    g: Trust,
    optimiser: torch.optim.Optimizer,
    scene: Scene,
    belief: torch.Tensor,
    logits: Two,
    known: torch.Tensor,
    config: Config,
) -> dict[str, float]:
    """One step of the policy towards labels whose gradient agrees with the labelled pairs'."""
    if not bool(known.any()) or bool(known.all()):
        return {}
    opinion = _opinion(logits)
    reward = torch.zeros(len(belief), device=belief.device)
    for code, logit in zip((scene.image.detach(), scene.text.detach()), logits, strict=True):
        error = torch.softmax(logit.detach(), 1) - belief
        wanted = functional.normalize((error[known].T @ code[known]).flatten(), dim=0)
        wanted = wanted.view(belief.shape[1], -1)
        length = (error.norm(dim=1) * code.norm(dim=1)).clamp(min=1e-6)
        reward += ((error @ wanted) * code).sum(1) / length
    reward = reward[~known] / reward[~known].std(correction=0).clamp(min=1e-6)
    logit = g(belief[~known], opinion[~known])
    keep = logit.sigmoid()
    entropy = -(keep * functional.logsigmoid(logit) + (1 - keep) * functional.logsigmoid(-logit))
    loss = -(keep * reward + config.trust_entropy * entropy).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return {"kept": float(keep.detach().mean())}


def _opinion(logits: Two) -> torch.Tensor:
    """What the codewords say of both sides, mean posterior, (n, c)."""
    return torch.stack([torch.softmax(one.detach(), 1) for one in logits]).mean(0)
