"""Does the loss rise along the gradient more than along chance? A flat or jagged surface hides what is on it.

The paper looks at the surface (figures 4 and 10); this asks of it one number: the loss at the end of one signed
gradient step of length ε, against the worst of several random steps of that length.
"""

from __future__ import annotations

import torch

from isthmus import metrics
from isthmus.core.randomness import fold, normal
from isthmus.core.types import Status
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.finding import Finding

POINTS, RANDOM = 64, 8
WARN, FAIL = 0.75, 0.5  # share of examples at which the gradient must do better than chance


def examine(suspect: DiagnosisContext) -> Finding:
    """How often a step along the gradient lowers the margin further than the best of eight random ones."""
    rows = suspect.sample(suspect.clean.robust, POINTS)
    if len(rows) < 8:
        return Finding(test="surface", status=Status.SKIPPED, reason="Too few clean images are answered right")
    batch, threat = suspect.examples.take(rows), suspect.threat
    x = batch.images
    _, gradient = suspect.gradients(x, batch, "margin")
    along = batch.margin(suspect.logits(threat.project(threat.step(x, gradient, threat.eps), x), batch.keys))
    chance = []
    for number in range(RANDOM):
        direction = normal(fold(batch.keys, "surface/direction", number), tuple(x.shape[1:])).to(x)
        moved = threat.project(threat.step(x, direction, threat.eps), x)
        chance.append(batch.margin(suspect.logits(moved, batch.keys)))
    better = along < torch.stack(chance).amin(0)
    start = batch.margin(suspect.logits(x, batch.keys))
    scale = start.abs().clamp(min=1e-12)
    share = metrics.proportion(int(better.sum()), len(rows))
    high = share.interval.high if share.interval else 1.0
    status = Status.FAIL if high < FAIL else Status.WARN if high < WARN else Status.PASS
    return Finding(
        test="surface",
        status=status,
        reason=f"At {int(better.sum())} of {len(rows)} examples a step along the gradient does more than the best of "
        f"{RANDOM} random steps",
        metrics={"gradient_beats_chance": share},
        remedies=("bpda", "substitute", "search", "decisions") if status != Status.PASS else (),
        details={
            "fall_along_gradient": float(((start - along) / scale).median()),
            "fall_at_random": float(((start - torch.stack(chance).amin(0)) / scale).median()),
        },
    )
