"""Outputs of classifiers other than finite logits: inside a dictionary or tuple, a single number, −∞, probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

FLOOR = 1e15
"""Replacement of −∞ is −1e15, or lower if that is not far below all other logits; its square is finite in float32."""

SUM = 0.01
"""Largest deviation of a sum of probabilities from 1; those of 16-bit models deviate by a few thousandths."""


STEEPEST = 2.0**12, 1e30
"""Largest derivatives of logarithms of probabilities: of numbers that fit into 16 bits, and of others."""


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
    """Whether all numbers are in [0, 1]; as logits of one class they would all mean class 1."""
    return bool(((z >= 0) & (z <= 1)).all())


def sum_to_one(answer: object) -> bool:
    """Whether an output is rows of probabilities, which are not negative and sum to 1."""
    if not isinstance(answer, Tensor) or answer.dim() != 2 or answer.shape[1] < 2 or answer.is_complex():
        return False
    rows = answer.detach().float()
    return bool((rows >= 0).all() and ((rows.sum(1) - 1).abs() < SUM).all())


def log_probabilities(p: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    """ln p, whose softmax is p; the largest entry stays the largest, and ties remain ties.

    Zeros are raised to the smallest normal number of the dtype. Rounding can make logarithms of different probabilities
    equal; that of the largest one is then raised by one unit in the last place of float32. Rows with a negative entry
    are no probabilities, and are unchanged.

    The derivative is 1/p up to a limit, at zeros as well, so that it is finite. The limit is low for 16-bit numbers,
    since a larger derivative would overflow in the model's own backward pass.
    """
    if has_torch_function_unary(p):  # traced, or intercepted by BPDA: as one operation
        logarithms: Tensor = handle_torch_function(log_probabilities, (p,), p)
        return logarithms
    p = p if p.dtype in (torch.float32, torch.float64) else p.float()
    with torch.no_grad():
        z = p.clamp(min=torch.finfo(p.dtype).tiny).log()
        rounded, leads = z.float(), p == p.amax(1, keepdim=True)
        top = rounded.amax(1, keepdim=True)
        lost = (rounded == top).sum(1, keepdim=True) > leads.sum(1, keepdim=True)
        z = torch.where(lost & leads, torch.nextafter(top, torch.full_like(top, torch.inf)), z)
        slope = torch.minimum(1 / p, torch.where(p == p.half(), *STEEPEST))
    return torch.where((p >= 0).all(1, keepdim=True), z + slope * (p - p.detach()), p)


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


class View(nn.Module):
    """Base of views of a classifier that change its outputs.

    Args:
        model: from images of its own precision to outputs, with or without keys; they may be in a dictionary, a tuple
            or an object with ``logits``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.precision = precision_of(model)
        self.takes_keys = bool(getattr(model, "takes_keys", False))

    def outputs(self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"] | None) -> Tensor:
        """The model's own outputs."""
        if self.precision is not None:
            images = images.to(self.precision)
        found: Tensor = unwrapped(self.model(images, keys=keys) if self.takes_keys else self.model(images))
        return found


class Plain(View):
    """A view of a classifier that returns its float32 logits alone, for float32 images."""

    def forward(
        self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n classes"]:
        """Logits."""
        return self.outputs(images, keys).float()


class Floored(View):
    """A view of a classifier that replaces logits of −∞; see :func:`floored`."""

    def forward(
        self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n classes"]:
        """Logits, none of them −∞."""
        return floored(self.outputs(images, keys))


class LogProbabilities(View):
    """A view of a classifier that returns probabilities: their logarithms; see :func:`log_probabilities`."""

    def forward(
        self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n classes"]:
        """Log-probabilities, which are logits."""
        return log_probabilities(self.outputs(images, keys))


class TwoColumns(View):
    """A view of a binary classifier with one logit z: the logits 0 and z.

    Args:
        model: from images to n or n×1 numbers.
        probabilities: whether these are σ(z) instead; then the output is 1 − σ(z) and σ(z).
    """

    def __init__(self, model: nn.Module, *, probabilities: bool = False) -> None:
        super().__init__(model)
        self.probabilities = probabilities

    def forward(self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n 2"]:
        """Two logits, or two probabilities."""
        answer = self.outputs(images, keys)
        if not self.probabilities:
            return two(answer)
        column = answer.reshape(-1, 1)
        return torch.cat([1 - column, column], 1)


def given_as_probabilities(model: nn.Module) -> bool:
    """Whether a model is, or contains, a view of one that returns probabilities."""
    return any(isinstance(module, LogProbabilities) for module in model.modules())
