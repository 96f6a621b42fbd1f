"""Optimisers, and which parameters each of them moves."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn, optim

from isthmus.core.recipe import Optimizer
from isthmus.models.learner import Learner

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm)


def make_optimizer(
    settings: Optimizer, parameters: list[nn.Parameter], norms: Collection[nn.Parameter] = ()
) -> optim.Optimizer:
    """Adam or SGD with PyTorch's conventions, fused into one kernel a step.

    Args:
        norms: those of the parameters that belong to normalisation layers; without decay where the settings say so.
    """
    groups = parameters if settings.decay_norm else _apart(parameters, norms)
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

    b(z|y) has none while its term has weight 0, at the start of a schedule. The fused kernel takes buffers of all
    parameters or of none; from 0, the first step is what it would have been.
    """
    moved = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    missing = [p for p in moved if optimizer.state[p].get("momentum_buffer") is None]
    if 0 < len(missing) < len(moved):
        for parameter in missing:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _apart(parameters: list[nn.Parameter], norms: Collection[nn.Parameter]) -> list[dict[str, Any]]:
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
    """Parameters the objective moves, and those that are fitted beside it."""
    beside = model.fitted_beside()
    apart = {id(parameter) for parameter in beside}
    return [parameter for parameter in model.parameters() if id(parameter) not in apart], beside
