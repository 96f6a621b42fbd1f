"""Losses that attacks ascend, one value per example, from logits alone.

A loss has two forms. Against a class: away from the true label, towards any other class. Directed: away from the label
and towards one target class, for attacks that try the wrong classes one after another.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from isthmus.core.errors import ConfigError, unknown

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits n×K and classes n to n values; larger means farther from being classified as that class."""

Directed = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From logits n×K, labels n and target classes n to n values; larger is closer to the target."""

_TINY = 1e-12


def ce(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Cross-entropy −log softmax(z)_y, in nats.

    In the logits' own precision, as in the literature: on saturated logits (margins beyond about 17 in float32)
    its gradient loses parts or vanishes. The other losses do not saturate.
    """
    return functional.cross_entropy(logits, labels, reduction="none")


def margin(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """z_y − max_{j≠y} z_j, positive if the prediction is the label."""
    return own(logits, labels) - _others(logits, labels).amax(1)


def margin_loss(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Minus the :func:`margin` (Carlini & Wagner 2017 without the clamp)."""
    return -margin(logits, labels)


def log_odds(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """log (1 − p_y)/p_y = logsumexp_{j≠y} z_j − z_y, in nats.

    A monotone function of the cross-entropy (ce = softplus(log_odds)): its gradient has the very direction
    that the cross-entropy's would have in exact arithmetic, at any scale of the logits.
    """
    return _others(logits, labels).logsumexp(1) - own(logits, labels)


def dlr(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Difference of logits ratio, (max_{j≠y} z_j − z_y) / (z₍₁₎ − z₍₃₎) (Croce & Hein 2020, eq. 6).

    Unchanged by a·z + b with a > 0, so that no scaling of logits can hide its gradient. Two classes leave no
    third logit to scale by; there it is the margin.
    """
    return _scaled(margin_loss(logits, labels), logits)


def directed_dlr(
    logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"], target_class: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """(z_t − z_y) / (z₍₁₎ − ½(z₍₃₎ + z₍₄₎)) (Croce & Hein 2020, eq. 7).

    With three classes ½(z₍₂₎ + z₍₃₎) takes the place of the last two: against z₍₃₎ alone, the loss directed at the
    third class would be −1 throughout.
    """
    return _scaled(directed_margin_loss(logits, labels, target_class), logits, fourth=True)


def directed_margin_loss(
    logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"], target_class: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """z_t − z_y, what MultiTargeted ascends (Gowal et al. 2019, arXiv:1910.09338)."""
    return own(logits, target_class) - own(logits, labels)


def probability(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """max_{j≠y} p_j − p_y with p = softmax(z), in [−1, 1].

    For random models: averaged over draws (``eot``), it is what their average prediction is wrong by. Where a draw is
    decided its gradient vanishes, so that only those count that can still be won.
    """
    return margin_loss(logits.softmax(1), labels)


LOSSES: dict[str, Loss] = {
    "ce": ce,
    "margin": margin_loss,
    "log_odds": log_odds,
    "dlr": dlr,
    "probability": probability,
}
DIRECTED: dict[str, Directed] = {
    "ce": lambda logits, labels, target_class: -ce(logits, target_class),
    "margin": directed_margin_loss,
    "log_odds": lambda logits, labels, target_class: -log_odds(logits, target_class),
    "dlr": directed_dlr,
    "probability": lambda logits, labels, target_class: directed_margin_loss(logits.softmax(1), labels, target_class),
}


def check(name: str) -> str:
    """The name of a loss, or a ConfigError with a suggestion."""
    if name not in LOSSES:
        raise ConfigError(unknown("loss", name, LOSSES))
    return name


def ranked_classes(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Int[Tensor, "n others"]:
    """The wrong classes of each row by falling logit."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.argsort(1, descending=True)[:, :-1]


def own(logits: Tensor, classes: Tensor) -> Tensor:
    """The logit of one class per row."""
    return logits.gather(1, classes[:, None]).squeeze(1)


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    mask = functional.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(mask, -torch.inf)


def _scaled(margin: Tensor, logits: Tensor, fourth: bool = False) -> Tensor:
    classes = logits.shape[1]
    if classes < 3:
        return margin
    top = logits.topk(min(classes, 4 if fourth else 3), dim=1).values
    scale = top[:, 0] - (top[:, 1:] if fourth and classes == 3 else top[:, 2:]).mean(1)
    return margin / (scale + _TINY)
