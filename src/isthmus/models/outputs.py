"""Outputs of classifiers other than finite logits of all classes: a single number, and −∞ for some classes."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

FLOOR = 1e15
"""Replacement of −∞ is −1e15, or lower if that is not far below all other logits; its square is finite in float32."""


def is_one(answer: object, n: int) -> bool:
    """Whether the output for n images is one number each, of shape n or n×1."""
    return isinstance(answer, Tensor) and tuple(answer.shape) in ((n,), (n, 1))


def two(z: Float[Tensor, "n *one"]) -> Float[Tensor, "n 2"]:
    """The logits 0 and z, whose softmax is 1 − σ(z) and σ(z): class 1 if z is positive."""
    column = z.reshape(-1, 1)
    return torch.cat([torch.zeros_like(column), column], 1)


def are_probabilities(z: Tensor) -> bool:
    """Whether all numbers are in [0, 1]; as logits they would all mean class 1."""
    return bool(((z >= 0) & (z <= 1)).all())


def floored(logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    """Replace −∞ by a number far below all other logits, so that losses of differences are finite.

    Classes are often masked by −∞, and the logarithm of a probability of zero is −∞, too. A row with only −∞ has no
    prediction and is unchanged.
    """
    never = torch.isneginf(logits)
    if not never.any():
        return logits
    never = never & ~never.all(1, keepdim=True)
    lowest = -FLOOR - 4 * logits.detach().masked_fill(never, 0.0).abs().amax(1, keepdim=True)
    return torch.where(never, lowest, logits)


class Floored(nn.Module):
    """A view of a classifier that replaces logits of −∞; see :func:`floored`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "n c h w"], **options: Any) -> Float[Tensor, "n classes"]:
        """Logits, none of them −∞."""
        return floored(self.model(images, **options))


class TwoColumns(nn.Module):
    """A view of a binary classifier with one logit z: the logits 0 and z.

    Args:
        model: from images to n or n×1 numbers.
        probabilities: whether these are σ(z) instead; then the output is 1 − σ(z) and σ(z).
    """

    def __init__(self, model: nn.Module, *, probabilities: bool = False) -> None:
        super().__init__()
        self.model, self.probabilities = model, probabilities

    def forward(self, images: Float[Tensor, "n c h w"], **options: Any) -> Float[Tensor, "n 2"]:
        """Two logits, or two probabilities."""
        answer: Tensor = self.model(images, **options)
        if not self.probabilities:
            return two(answer)
        column = answer.reshape(-1, 1)
        return torch.cat([1 - column, column], 1)
