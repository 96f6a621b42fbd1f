"""Optimisers, the parameters that each of them moves, and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn, optim

from isthmus.core.training_options import Optimizer
from isthmus.models.learner import Learner

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm)


def make_optimizer(
    settings: Optimizer, parameters: list[nn.Parameter], norms: Collection[nn.Parameter] = ()
) -> optim.Optimizer:
    """Adam or SGD with PyTorch's conventions, fused into one kernel per step.

    Args:
        norms: parameters of normalisation layers, which have no weight decay if ``settings.decay_norm`` is False.
    """
    groups = parameters if settings.decay_norm else _grouped(parameters, norms)
    if settings.name == "adam":
        return optim.Adam(groups, settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True)
    optimizer = optim.SGD(
        groups,
        settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    if settings.momentum:
        optimizer.register_step_pre_hook(_start_late)
    return optimizer


def _start_late(optimizer: optim.Optimizer, *_: Any) -> None:
    """Give momentum 0 to a parameter whose first gradient comes later than those of others.

    b(z|y) has none while its term has weight 0, at the start of a schedule. The fused kernel needs buffers for all
    parameters or for none; starting from 0 does not change the first step.
    """
    moved = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    missing = [p for p in moved if optimizer.state[p].get("momentum_buffer") is None]
    if 0 < len(missing) < len(moved):
        for parameter in missing:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _grouped(parameters: list[nn.Parameter], norms: Collection[nn.Parameter]) -> list[dict[str, Any]]:
    undecayed = {id(parameter) for parameter in norms}
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in parameters if id(parameter) not in undecayed]},
        {"params": [parameter for parameter in parameters if id(parameter) in undecayed], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def norm_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Scales and shifts of the model's normalisation layers."""
    layers = (layer for layer in model.modules() if isinstance(layer, NORMS))
    return [parameter for layer in layers for parameter in layer.parameters(recurse=False)]


def parameter_groups(model: Learner) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters that the objective trains, and those that are fitted separately; both without frozen ones."""
    beside = model.fitted_beside()
    apart = {id(parameter) for parameter in beside}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [each for each in trained if id(each) not in apart], [each for each in trained if id(each) in apart]


class MovingAverage:
    """Exponential moving average of the trained parameters, ``Σ (1−d)·d^(t−s)·w_s / (1 − d^t)``.

    Buffers and frozen parameters are not averaged.

    The zero-debias of Kingma & Ba makes it exact from the first step (up to rounding). Starting from the initial
    weights instead, as some implementations do, keeps them in the average for thousands of steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self.shadow = {name: torch.zeros_like(value) for name, value in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights; call once after every optimiser step."""
        self.steps += 1
        torch._foreach_lerp_(list(self.shadow.values()), list(self._parameters.values()), 1.0 - self.decay)

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """The debiased average, by parameter name.

        Raises:
            ValueError: no step was added yet.
        """
        if self.steps == 0:
            raise ValueError("the moving average is empty: call update() first")
        scale = 1.0 / (1.0 - self.decay**self.steps)
        return {name: value * scale for name, value in self.shadow.items()}
