"""Optimisers, and which parameters each of them moves."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn, optim

from isthmus.nets.bottleneck import Bottleneck
from isthmus.recipe import Optimizer

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
    return optim.SGD(
        groups,
        settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        fused=True,
    )


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


def parameter_groups(model: Bottleneck) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters the objective moves, and those of a marginal that is fitted on detached codes beside it."""
    beside = list(model.marginal.parameters()) if model.marginal is not None and model.backward_encoder else []
    apart = {id(parameter) for parameter in beside}
    return [parameter for parameter in model.parameters() if id(parameter) not in apart], beside
