"""Gradients of unknown functions, estimated from their values.

Simultaneous perturbation (SPSA, Spall 1992, doi:10.1109/9.119632): central differences along random signs, as in the
gradient-free attack of Uesato et al. 2018 (arXiv:1802.05666). It applies to functions that cut the graph and change the
shape: a module that leaves torch, an ``autograd.Function`` whose forward pass leaves torch, a torch function that is
not in the registry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isthmus.core.randomness import fold, uniform
from isthmus.diagnosis.bpda.relaxed import attach_gradient, is_floating

PAIRS = 48
"""Pairs of function values per estimate."""

_LENGTH = 0.1  # of a difference, in standard deviations of the row's values


class Estimate(torch.autograd.Function):
    """The value of ``hard``, with the estimated gradient of the function that computed it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, hard: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """A copy of ``hard``."""
        ctx.x, ctx.function = x.detach(), function
        return hard.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """By :func:`estimate`."""
        return estimate(ctx.function, ctx.x, gradients[0]), None, None


def estimate(function: Callable[[Tensor], Tensor], x: Tensor, upstream: Tensor) -> Tensor:
    """Jᵀ·upstream of a function at ``x``, for each row separately if it keeps the number of rows.

    The signs are derived from the row's values, so that the estimate for one row does not depend on the others.
    """
    by_row = x.dim() > 0 and upstream.dim() > 0 and upstream.shape[0] == x.shape[0]
    rows, gradients = (x, upstream) if by_row else (x.unsqueeze(0), upstream.unsqueeze(0))
    keys = _keys(rows)
    reach = _LENGTH * rows.flatten(1).std(1, correction=0).clamp(min=1e-3).view(-1, *[1] * (rows.dim() - 1))
    low, high = (
        bound.view_as(reach) for bound in rows.flatten(1).aminmax(dim=1)
    )  # the function is known to work within these
    total = torch.zeros_like(rows)
    with torch.no_grad():
        for number in range(PAIRS):
            drawn = uniform(fold(keys, "spsa/signs", number), tuple(rows.shape[1:]))
            signs = torch.where(drawn < 0.5, -1.0, 1.0).to(rows)
            up, down = (function((rows + way * reach * signs).clamp(low, high).view_as(x)) for way in (1, -1))
            change = ((up - down).view_as(gradients) * gradients).flatten(1).sum(1)
            total += (change.view_as(reach) / (2 * reach)) * signs
    return (total / PAIRS).nan_to_num(0.0, 0.0, 0.0).view_as(x)


def _depends_on_argument(function: Callable[[Tensor], Any], x: Tensor, hard: Tensor) -> bool:
    """Whether the result depends on the argument; positional encodings, masks and other constants do not."""
    with torch._C.DisableTorchFunction(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        bare = x.detach()
        other = function((bare.amin() + bare.amax() - bare).clone())
    return not (isinstance(other, Tensor) and other.shape == hard.shape and torch.equal(other, hard))


def _keys(rows: Tensor) -> Tensor:
    """A hash of each row's values."""
    bits = rows.detach().float().contiguous().flatten(1).view(torch.int32).long()
    places = torch.arange(1, bits.shape[1] + 1, device=bits.device)
    return (bits * (2 * places + 1)).sum(1)


def with_estimated_gradient(function: Callable[[Tensor], Any], x: Tensor, hard: Any) -> Any:
    """The result with the gradient of the identity if it has the argument's shape, otherwise with an estimate."""
    if not (is_floating(hard) and is_floating(x) and x.requires_grad and not hard.requires_grad):
        return hard
    if not _depends_on_argument(function, x, hard):
        return hard
    if hard.shape == x.shape:
        return attach_gradient(x, hard)
    estimated: Any = Estimate.apply
    return estimated(x, hard, function)
