"""Outputs of classifiers other than finite logits of all classes: inside a dictionary or tuple, a single number, −∞."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

FLOOR = 1e15
"""Replacement of −∞ is −1e15, or lower if that is not far below all other logits; its square is finite in float32."""


def unwrapped(answer: Any) -> Any:
    """The logits of an output that holds more: its "logits", or the only tensor of N×K numbers in it.

    For the outputs of transformers and timm, dictionaries, tuples and lists. Anything else is returned unchanged, also
    where several tensors would fit.
    """
    if isinstance(answer, Tensor):
        return answer
    named = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", None)
    if isinstance(named, Tensor):
        return named
    scores = [part for part in _parts(answer) if part.is_floating_point() and part.dim() == 2]
    return scores[0] if len(scores) == 1 else answer


def _parts(answer: Any) -> Iterator[Tensor]:
    """The tensors of an output."""
    values = answer.values() if isinstance(answer, Mapping) else answer if isinstance(answer, tuple | list) else ()
    return (value for value in values if isinstance(value, Tensor))


def precision_of(model: nn.Module) -> torch.dtype | None:
    """The 16-bit type of all of a model's floating-point parameters; None if it is, or may be, in another."""
    kinds = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return kinds.pop() if len(kinds) == 1 and kinds <= {torch.float16, torch.bfloat16} else None


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


class Plain(nn.Module):
    """A view of a classifier of float32 images that returns its float32 logits alone.

    Args:
        model: takes images of its own precision, and may return a dictionary, a tuple or an object with ``logits``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.precision = model, precision_of(model)

    def forward(self, images: Float[Tensor, "n c h w"], **options: Any) -> Float[Tensor, "n classes"]:
        """Logits."""
        logits: Tensor = unwrapped(self.model(images.to(self.precision or images.dtype), **options))
        return logits.float()


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
