"""Are there gradients to follow: not zero, not infinite, not vanishing because the loss is saturated?

A confident classifier's cross-entropy is exactly zero in float32, and so is its gradient, without any trick; losses of
logit differences have one. Where theirs is zero as well, something blocks it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus import metrics
from isthmus.core.types import Status
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.finding import BLOCKED, Finding, percent

WARN, FAIL = 0.02, 0.2  # share of gradients
FLAT = 0.4
"""Median certainty, from 0 (every class as likely) to 1, below which the cross-entropy is a poor guide."""

VANISHING = 1e-12
"""Length (ℓ1) below which a float32 gradient of the cross-entropy is numerically no direction any more."""


def examine(suspect: DiagnosisContext) -> Finding:
    """The gradients of the cross-entropy and of the margin at some clean images, and at random points around them."""
    rows = suspect.sample(suspect.clean.robust, 64)
    if len(rows) == 0:
        return Finding(test="gradients", status=Status.PASS, reason="No clean image is classified as its label")
    batch = suspect.examples.take(rows)
    points = [batch.images, suspect.threat.random_start(batch.images, batch.keys)]
    seen = {loss: [suspect.gradients(x, batch, loss) for x in points] for loss in ("ce", "margin")}
    gradients = {loss: torch.cat([gradient for _, gradient in found]) for loss, found in seen.items()}
    logits = torch.cat([z for z, _ in seen["ce"]])
    vanished, blocked = _gone(gradients["ce"]), _gone(gradients["margin"])
    finite = torch.cat([gradients["ce"], gradients["margin"]]).isfinite().flatten(1).all(1)
    sure = logits.double().softmax(1).amax(1)
    certain, guess = sure.float() == 1, 1 / suspect.classes
    sureness = float((sure.median() - guess) / (1 - guess))
    lost = (suspect.usual.invalid & suspect.answered)[suspect.answered]
    share = {
        "vanishing_cross_entropy": metrics.proportion(int(vanished.sum()), len(vanished)),
        "vanishing_margin": metrics.proportion(int(blocked.sum()), len(blocked)),
        "not_finite": metrics.proportion(int((~finite).sum()), len(finite)),
        "lost": metrics.proportion(int(lost.sum()), len(lost)),
        "saturated": metrics.proportion(int(certain.sum()), len(certain)),
    }
    status, reason, remedies = _judged({name: float(m.value or 0) for name, m in share.items()}, len(vanished))
    if status == Status.PASS and sureness < FLAT:
        status, remedies = Status.WARN, ("rescaled",)
        reason = (
            f"The softmax is nearly flat, though labels are right (half of them get {percent(float(sure.median()))} or "
            "less): the cross-entropy hardly tells which class is near"
        )
    lengths = gradients["margin"].abs().flatten(1).sum(1)
    at = (0.0, 0.25, 0.5, 0.75, 1.0)
    sane = lengths[lengths.isfinite()]
    return Finding(
        test="gradients",
        status=status,
        reason=reason,
        metrics=share,
        remedies=remedies,
        details={
            "sureness": sureness,
            "quantiles": list(at),
            "margin_gradient_l1": sane.double().quantile(torch.tensor(at).double().to(sane.device)).tolist()
            if len(sane)
            else [],
        },
    )


def _judged(share: dict[str, float], count: int) -> tuple[Status, str, tuple[str, ...]]:
    """What the shares of bad gradients mean, and what to try."""
    worst = max(value for name, value in share.items() if name != "saturated")
    if worst <= WARN:
        return Status.PASS, f"{count} gradients of the cross-entropy and of the margin are there and finite", ()
    status = Status.FAIL if worst > FAIL else Status.WARN
    if share["lost"] > WARN:
        return status, f"PGD met NaN or infinity at {percent(share['lost'])} of the examples, and lost them", BLOCKED
    if max(share["vanishing_margin"], share["not_finite"]) > WARN:
        return status, f"{percent(worst)} of the gradients are zero or not finite, whatever the loss", BLOCKED
    reason = (
        f"{percent(share['vanishing_cross_entropy'])} of the cross-entropy's gradients vanish, since the logits are "
        "saturated; the margin's do not"
    )
    return status, reason, ("rescaled",)


def _gone(gradient: Tensor) -> Tensor:
    return gradient.abs().flatten(1).sum(1) < VANISHING
