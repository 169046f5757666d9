"""The code critic in SCH-GAN: no effect when off, more entropy when on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.clusters import clusters
from torch.optim.optimizer import register_optimizer_step_post_hook

from xmodal.codes import BinaryCodes
from xmodal.encoders.folder import CHECKPOINT
from xmodal.errors import ConfigError
from xmodal.evaluation.code_health import code_health
from xmodal.training.critics import CodeCritic
from xmodal.training.methods.schgan.train import Config, train
from xmodal.training.run import Run, TrainingData

QUICK = Config(epochs=3, batch=40, hidden=24, warmup=0)


def codes(data: TrainingData, config: Config, run: Run | None = None) -> BinaryCodes:
    """Train, and return the codes of both modalities of the validation pairs."""
    towers = train(data, config, run or Run(data))
    sides = [towers.codes("image", data.validation.image)]
    return BinaryCodes.concatenate([*sides, towers.codes("text", data.validation.text)])


def test_code_critic_of_weight_0_does_not_exist(tmp_path: Path) -> None:
    data, steps = clusters(labelled=0.5), set()
    hook = register_optimizer_step_post_hook(lambda one, *_: steps.add(type(one).__name__))
    try:
        run = Run(data, folder=tmp_path)
        codes(data, replace(QUICK, code_critic=0.0), run)
    finally:
        hook.remove()
    assert steps == {"AdamW"}  # a critic would use Adam
    assert "code critic" not in run.history[0]
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)["state"]
    assert set(state) == {"d", "g", "d_optimiser", "g_optimiser"}


def test_code_critic_changes_codes_and_is_logged() -> None:
    data = clusters(labelled=0.5)
    run = Run(data)
    assert codes(data, replace(QUICK, code_critic=1.0), run) != codes(data, QUICK)
    assert all("code critic" in row for row in run.history)


def test_stopped_run_continues_with_the_critic_state(tmp_path: Path) -> None:
    data, config = clusters(labelled=0.5), replace(QUICK, code_critic=1.0)
    whole = codes(data, config)

    def stop(epoch: int, _count: int, _figures: Mapping[str, float]) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        codes(data, config, Run(data, folder=tmp_path, show=stop))
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)["state"]
    assert set(state["critic"]) == set(CodeCritic(data.bits).layers.state_dict())
    assert codes(data, config, Run(data, folder=tmp_path)) == whole


def test_code_critic_increases_entropy_without_loss_of_map() -> None:
    data = clusters(240, 80, labelled=0.5, bits=32)
    config = Config(epochs=8, batch=60, hidden=32)
    health, quality = [], []
    for weight in (0.0, 2.0):
        run = Run(data)
        health.append(code_health(codes(data, replace(config, code_critic=weight), run)))
        quality.append(run.best)
    off, on = health
    assert on["entropy"] > off["entropy"]
    assert on["distinct"] > 1.1 * off["distinct"]
    assert quality[1] > quality[0] - 0.03


def test_negative_code_critic_weight_raises_config_error() -> None:
    with pytest.raises(ConfigError, match=r"code_critic is -1.*, expected at least 0"):
        Config(code_critic=-1.0)
