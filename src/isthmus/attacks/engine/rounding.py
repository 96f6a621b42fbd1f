"""Which differences of logits exceed float32's rounding, in units of logits."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from isthmus.attacks.engine.batch import Batch

ROUNDING = 2.0**-16
"""Fraction of the logits' size by which a wrong logit must win; another batch size may reverse anything less."""

LAST_BITS = 2.0**-21
"""Fraction of the leading logit: four units in its last place, since a constant may be added to all logits."""

SAME = 1e-4
"""Fraction of the logits' size far above rounding and far below any noise that matters."""

_LEADING = 64


def size(logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    """The range of logits, but at most 64 times the two leading ones, in absolute value.

    Otherwise a class that a model never predicts, with a logit of −1e9 or so, would hide all differences.
    """
    low, high = logits.aminmax(dim=1)
    return torch.minimum(high - low, _LEADING * leading(logits))


def slack(logits: Float[Tensor, "n classes"], share: float = ROUNDING) -> Float[Tensor, " n"]:
    """Largest difference that may be rounding: a fraction of the logits' size, plus the leading logit's last bits."""
    return share * size(logits) + LAST_BITS * leading(logits)


def leading(logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    """The larger absolute value of the two largest logits."""
    return logits.topk(2, dim=1).values.abs().amax(1)


def alike(logits: Float[Tensor, "n classes"]) -> Bool[Tensor, " n"]:
    """Whether logits, though not all equal, differ in their last bit alone: such a prediction has no meaning."""
    low, high = logits.aminmax(dim=1)
    return (low < high) & (high - low <= 2.0**-23 * leading(logits))


def differ(first: Float[Tensor, "n classes"], second: Float[Tensor, "n classes"]) -> bool:
    """Whether two passes over the same images differ by more than rounding: by :data:`SAME` of their size."""
    if first.shape != second.shape or not torch.equal(first.isfinite(), second.isfinite()):
        return True
    first, second = (torch.where(logits.isfinite(), logits, 0.0) for logits in (first.float(), second.float()))
    return bool(((first - second).abs().amax(1) > slack(first, SAME)).any())


def beyond_rounding(batch: Batch, logits: Float[Tensor, "n classes"]) -> Bool[Tensor, " n"]:
    """Whether success is more than a tie or a rounding, so that it need not be repeated in batches of other sizes.

    Rounding cannot make all logits equal: such an output counts as the class that argmax returns.
    """
    low, high = logits.aminmax(dim=1)
    return batch.reached(logits) & ((batch.margin(logits) < -slack(logits)) | (high == low))
