"""Gradient checkpointing changes the memory of a step, and nothing of its result."""

import pytest
import torch
from torch import nn

import isthmus
from isthmus.core.errors import ConfigError
from isthmus.core.recipe import load_recipe
from isthmus.training import dry_run as module
from isthmus.training.dry_run import dry_run
from isthmus.training.gradient_checkpoints import checkpoint_blocks

RECIPE = {
    "name": "less",
    "data": {"name": "digits", "train_limit": 128, "test_limit": 20},
    "model": {"backbone": {"name": "wide_resnet", "depth": 16, "width": 1, "norm": True}, "dim": 4},
    "objective": {"name": "ceb", "rho": 3},
    "training": {"epochs": 1, "batch_size": 64},
}
ON = {"training.gradient_checkpointing": True}


def net() -> nn.Sequential:
    torch.manual_seed(0)

    def block() -> nn.Sequential:
        return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU())

    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), block(), block())


def test_gradients_and_running_statistics_are_the_same():
    """With batch normalisation, whose second pass must not count, and dropout, whose mask must be the same."""
    plain, less = net(), net()
    checkpoint_blocks(less)
    images = torch.rand(6, 1, 4, 4)
    for model in (plain, less):
        torch.manual_seed(1)
        model(images).square().sum().backward()
    for (name, one), (_, other) in zip(plain.named_parameters(), less.named_parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=name)
    assert plain.state_dict().keys() == less.state_dict().keys()
    assert all(torch.equal(value, less.state_dict()[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("extra", [{}, {"training.adversarial": "pgd:1 linf:0.1"}, {"training.ema": 0.9}])
def test_a_run_is_the_same_up_to_rounding(tmp_path, extra):
    plain = isthmus.train(RECIPE, extra, out=tmp_path / "plain", progress=False)
    less = isthmus.train(RECIPE, extra | ON, out=tmp_path / "less", progress=False)
    for (name, one), other in zip(plain.load().state_dict().items(), less.load().state_dict().values(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4, msg=name)


def test_less_is_kept_for_the_backward_pass(monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.0)
    plain, less = (dry_run(load_recipe(RECIPE, overrides)).memory["activations"] for overrides in ({}, ON))
    assert less < plain / 2


def test_a_network_without_blocks_is_refused(tmp_path):
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
    with pytest.raises(ConfigError, match="gradient_checkpointing: the backbone Sequential has no blocks"):
        isthmus.train(RECIPE, ON, backbone=backbone, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
