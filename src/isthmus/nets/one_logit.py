"""Binary classifiers with a single number per image, as classifiers of two classes."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def is_one(answer: object, n: int) -> bool:
    """Whether an answer about n images is one number each: of shape n or n×1."""
    return isinstance(answer, Tensor) and tuple(answer.shape) in ((n,), (n, 1))


def two(z: Float[Tensor, "n *one"]) -> Float[Tensor, "n 2"]:
    """The logits 0 and z, whose softmax is 1 − σ(z) and σ(z): class 1 where z is positive."""
    column = z.reshape(-1, 1)
    return torch.cat([torch.zeros_like(column), column], 1)


def are_probabilities(z: Tensor) -> bool:
    """Whether all numbers lie in [0, 1]; as logits of a classifier they would all mean class 1."""
    return bool(((z >= 0) & (z <= 1)).all())


class TwoColumns(nn.Module):
    """A view of a binary classifier with one logit z: the logits 0 and z.

    Args:
        model: from images to n or n×1 numbers.
        probabilities: whether these are σ(z) instead; then the answer is 1 − σ(z) and σ(z).
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
