"""Adversarial images on the data's own grid: with as many levels as the clean images have.

A model may tell attacked images from clean ones by pixels between two levels, and refuse to answer those. On the grid
there is nothing to tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.attacks.engine.counted_model import forward_draws
from isthmus.attacks.result import RobustResult

LEVELS = (1, 3, 7, 15, 16, 31, 63, 127, 255)
"""Numbers of steps from black to white that images come in."""

_OFF = 1e-4  # of a step: what rounding to float32 leaves


def levels(images: Tensor) -> int | None:
    """Into how many steps from 0 to 1 all pixels fit; None where it is no common number."""
    for count in LEVELS:
        steps = images.double() * count
        if bool(((steps - steps.round()).abs() < _OFF).all()):
            return count
    return None


def snapped(images: Tensor, count: int) -> Tensor:
    """The nearest images of so many steps."""
    return (images * count).round() / count


class OnGrid(nn.Module):
    """A model that is shown images of so many steps alone, with the identity as rounding's gradient.

    Args:
        model: from images to logits.
        count: of steps.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        super().__init__()
        self.model, self.count = model, count

    @property
    def takes_keys(self) -> bool:
        """As the model."""
        return bool(getattr(self.model, "takes_keys", False))

    @property
    def forward_draws(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """As the model's, on the grid; None where it has none."""
        answer = forward_draws(self.model)
        return None if answer is None else lambda images, keys: answer(snapped(images, self.count), keys)

    def forward(self, images: Tensor, **options: Any) -> Tensor:
        """The model's answer to the nearest images on the grid."""
        logits: Tensor = self.model(images + (snapped(images, self.count) - images).detach(), **options)
        return logits


def within(eps: float, count: int) -> float:
    """The largest whole number of steps in ε."""
    return math.floor(eps * count * (1 + 1e-6)) / count


def on_grid(result: RobustResult, count: int) -> RobustResult:
    """The same result with its witnesses on the grid."""
    state = result.state.take(torch.arange(len(result)))
    state.adversarial = snapped(state.adversarial, count)
    return replace(result, state=state)
