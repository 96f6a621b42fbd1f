"""Surrogate gradients of searches among boundaries, of counts, and of drawn indices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isthmus.diagnosis.bpda.choices import Choice
from isthmus.diagnosis.bpda.relaxed import Call, as_float, as_probability, fast_sigmoid

MAX_PAIRS = 2**24
"""Pairs of a value and a boundary that are compared individually."""


def search(place: int) -> Callable[[Call], Any]:
    """``bucketize`` (0) and ``searchsorted`` (1): the number of boundaries that a value exceeds.

    Args:
        place: position of the values among the arguments; the boundaries are the other one.
    """

    def count_exceeded(call: Call) -> Any:
        x = as_float(call.argument(place, "input"))
        boundaries = as_float(call.argument(1 - place, ("boundaries", "sorted_sequence")[place]))
        hard = call.detached()
        x = x if isinstance(x, Tensor) else torch.as_tensor(x, dtype=boundaries.dtype, device=boundaries.device)
        if hard.numel() * boundaries.shape[-1] > MAX_PAIRS:
            span = (boundaries[..., -1:] - boundaries[..., :1]).clamp(min=1e-12)
            return call.attach(hard, x * (boundaries.shape[-1] / span.squeeze(-1)))
        among = boundaries if boundaries.dim() == 1 else boundaries.unsqueeze(-2)
        return call.attach(hard, x if call.soft_values else fast_sigmoid(x.unsqueeze(-1) - among).sum(-1))

    return count_exceeded


def _kernel_counts(values: Tensor, centres: Tensor, width: float, weights: Tensor | None = None) -> Tensor:
    """The number of values near each centre, as a sum of kernels."""
    near = 1 / (1 + ((values.flatten()[:, None] - centres) / width).square())
    near = near / near.sum(1, keepdim=True)
    return (near if weights is None else near * weights.flatten()[:, None]).sum(0)


def histogram(call: Call) -> Any:
    """``histc``, ``histogram``."""
    x = as_float(call.args[0])
    hard = call.detached()
    counts = hard[0] if isinstance(hard, tuple) else hard
    if isinstance(hard, tuple):
        edges = hard[1]
    else:
        low, high = float(call.argument(2, "min") or 0), float(call.argument(3, "max") or 0)
        if low == high == 0:
            low, high = float(x.detach().min()), float(x.detach().max())
        edges = torch.linspace(low, high, len(counts) + 1, dtype=x.dtype, device=x.device)
    centres, width = (edges[1:] + edges[:-1]) / 2, float((edges[-1] - edges[0]) / len(counts)) or 1.0
    counted = call.attach(counts, _kernel_counts(x, centres, width))
    return type(hard)((counted, hard[1])) if isinstance(hard, tuple) else counted


def bincount(call: Call) -> Any:
    """``bincount``."""
    x, weights = as_float(call.args[0]), call.argument(1, "weights")
    hard = call.detached()
    centres = torch.arange(len(hard), dtype=x.dtype, device=x.device)
    return call.attach(hard, _kernel_counts(x, centres, 1.0, weights))


def count_nonzero(call: Call) -> Any:
    """``count_nonzero``: the sum of probabilities."""
    soft, dim = as_probability(call.args[0]), call.argument(1, "dim")
    return call.attach(call.detached(), soft.sum() if dim is None else soft.sum(dim))


def unique(call: Call) -> Any:
    """``unique``: each value is the mean of its copies, and the inverse is a rank."""
    x = as_float(call.args[0])
    if call.options.get("dim") is not None:
        return call.detached()
    options = dict(call.options, return_inverse=True, return_counts=True)
    values, inverse, counts = call.function(call.args[0].detach(), *call.args[1:3], **options)
    soft = torch.zeros_like(values, dtype=x.dtype).index_add(0, inverse.flatten(), x.flatten()) / counts
    values = call.attach(values, soft)
    if call.options.get("return_inverse") and inverse.numel() * len(values) <= MAX_PAIRS:
        ranks = fast_sigmoid(x.unsqueeze(-1) - soft).sum(-1) - 0.5
        inverse = call.attach(inverse, x if call.soft_values else ranks)
    optional = (("return_inverse", inverse), ("return_counts", counts))
    found = (values, *(each for name, each in optional if call.options.get(name)))
    return found if len(found) > 1 else values


def multinomial(call: Call) -> Any:
    """``multinomial``: an index drawn by weights."""
    hard = call.detached()
    hard.choice = Choice.drawn(as_float(call.args[0]), hard)
    return hard
