"""How far apart logits must be to be more than float32's rounding, in units of logits."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

ROUNDING = 2.0**-16
"""By how much a wrong logit must win, as a share of the logits' size; another batch size may turn anything less."""

LAST_BITS = 2.0**-21
"""And as a share of the leading logit: four units in its last place, since a constant may be added to all logits."""

SAME = 1e-4
"""A share of the logits' size far above rounding, and far below any noise that matters."""

_LEADING = 64


def size(logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    """The range of logits, but at most 64 times the two leading ones, in absolute value.

    A class that a model never gives, since its logit is −1e9 or so, would otherwise drown all differences.
    """
    low, high = logits.aminmax(dim=1)
    return torch.minimum(high - low, _LEADING * leading(logits))


def slack(logits: Float[Tensor, "n classes"], share: float = ROUNDING) -> Float[Tensor, " n"]:
    """Differences up to here may be rounding: a share of the logits' size, and of the leading logit's last bits."""
    return share * size(logits) + LAST_BITS * leading(logits)


def leading(logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    """The larger absolute value of the two largest logits."""
    return logits.topk(2, dim=1).values.abs().amax(1)


def alike(logits: Float[Tensor, "n classes"]) -> Bool[Tensor, " n"]:
    """Whether logits, though not all equal, differ in their last bit alone: such an answer says nothing."""
    low, high = logits.aminmax(dim=1)
    return (low < high) & (high - low <= 2.0**-23 * leading(logits))


def differ(first: Float[Tensor, "n classes"], second: Float[Tensor, "n classes"]) -> bool:
    """Whether two answers to the same images differ by more than rounding: by :data:`SAME` of their size."""
    if first.shape != second.shape or not torch.equal(first.isfinite(), second.isfinite()):
        return True
    first, second = (torch.where(answer.isfinite(), answer, 0.0) for answer in (first.float(), second.float()))
    return bool(((first - second).abs().amax(1) > slack(first, SAME)).any())
