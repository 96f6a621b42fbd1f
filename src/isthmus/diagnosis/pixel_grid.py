"""The pixel levels that clean images come in, such as multiples of 1/255.

A model may recognise adversarial examples by pixels between two levels and refuse to classify them. It cannot recognise
adversarial examples on the grid that way.
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
"""Common numbers of steps from black to white."""

_OFF_GRID = 1e-4  # of a step; float32 rounding is smaller


def levels(images: Tensor) -> int | None:
    """Number of steps from 0 to 1 on whose grid all pixels lie; None if it is not a common number."""
    for count in LEVELS:
        steps = images.double() * count
        if bool(((steps - steps.round()).abs() < _OFF_GRID).all()):
            return count
    return None


def round_to_grid(images: Tensor, count: int) -> Tensor:
    """The nearest images on the grid of ``count`` steps."""
    return (images * count).round() / count


def floor_to_grid(eps: float, count: int) -> float:
    """The largest whole number of steps in ε."""
    return math.floor(eps * count * (1 + 1e-6)) / count


class GridModel(nn.Module):
    """A model that only sees images on the grid; rounding has the gradient of the identity.

    Args:
        model: from images to logits.
        count: steps from 0 to 1.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        super().__init__()
        self.model, self.count = model, count

    @property
    def takes_keys(self) -> bool:
        """As for the model."""
        return bool(getattr(self.model, "takes_keys", False))

    @property
    def forward_draws(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The model's ``forward_draws`` on the grid; None if it has none."""
        draws = forward_draws(self.model)
        return None if draws is None else lambda images, keys: draws(round_to_grid(images, self.count), keys)

    def forward(self, images: Tensor, **options: Any) -> Tensor:
        """Logits of the nearest images on the grid."""
        logits: Tensor = self.model(images + (round_to_grid(images, self.count) - images).detach(), **options)
        return logits


def adversarial_on_grid(result: RobustResult, count: int) -> RobustResult:
    """The result with its adversarial images rounded to the grid."""
    state = result.state.take(torch.arange(len(result)))
    state.adversarial = round_to_grid(state.adversarial, count)
    return replace(result, state=state)
