"""Pooling: one vector of the states of tokens (torch)."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def pool(
    states: torch.Tensor, mask: torch.Tensor, modes: Sequence[str], prompt_tokens: int = 0
) -> torch.Tensor:
    """Return vectors of the states of tokens: (b, tokens, d), mask (b, tokens) -> (b, d * modes).

    ``modes``: values of :data:`~xmodal.features.backbones.sentence_layout.POOLINGS`; their vectors
    are concatenated. ``prompt_tokens``: tokens at the start of each text that are left out. The
    vector of a text without a token is zero.
    """
    states, mask = states.float(), mask.float()
    places = mask.cumsum(1) * mask  # 1, 2, ... for the tokens of a text, 0 for padding
    if prompt_tokens:
        mask = (places > prompt_tokens).float()
    vectors = [_pool(states, mask, places, mode) for mode in modes]
    return torch.cat(vectors, 1)


def _pool(
    states: torch.Tensor, mask: torch.Tensor, places: torch.Tensor, mode: str
) -> torch.Tensor:
    """Return the vectors (b, d) of one mode; ``places`` (b, tokens): numbers of the tokens."""
    if mode == "mean":
        weights = mask.unsqueeze(-1)
        mean: torch.Tensor = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
        return mean
    if mode == "mean_sqrt_len_tokens":
        weights = mask.unsqueeze(-1)
        scaled: torch.Tensor = (states * weights).sum(1) / weights.sum(1).clamp(min=1).sqrt()
        return scaled
    if mode == "weightedmean":
        weights = (mask * places).unsqueeze(-1)
        weighted: torch.Tensor = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
        return weighted
    has_tokens = mask.amax(1, keepdim=True)
    if mode == "max":
        largest = states.masked_fill(mask.unsqueeze(-1) == 0, torch.finfo(states.dtype).min).amax(1)
        return largest * has_tokens
    # The first and the last token of a text, whichever side the padding is on.
    place = (places * mask).argmax(1) if mode == "lasttoken" else mask.argmax(1)
    one: torch.Tensor = states[torch.arange(len(states), device=states.device), place]
    return one * has_tokens
