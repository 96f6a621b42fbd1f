"""Does robust accuracy fall with ε, down to chance where every image can be made the same grey?

At that radius no classifier can be right about examples of more than one class, so whatever stands there was missed
(Carlini et al. 2019, arXiv:1902.06705, §5: attack with an unbounded ε; the paper's alarm: above chance at ε = 0.5).
"""

from __future__ import annotations

import itertools
import math

from isthmus import metrics
from isthmus.core.types import Status
from isthmus.diagnosis.context import USUAL, DiagnosisContext
from isthmus.diagnosis.finding import Finding, percent

MULTIPLES = (0.5, 1.0, 2.0, 4.0)
STEPS = 20


def examine(suspect: DiagnosisContext) -> Finding:
    """Accuracy on some correct examples at multiples of ε, and where all images can be grey."""
    rows = suspect.sample(suspect.clean.robust)
    if len(rows) == 0:
        return Finding(test="radius", status=Status.PASS, reason="No clean image is classified as its label")
    threat, pixels = suspect.threat, suspect.examples.images[0].numel()
    grey = {"linf": 0.5, "l2": 0.5 * math.sqrt(pixels), "l1": 0.5 * pixels}[threat.name]
    radii = sorted({min(threat.eps * by, grey) for by in MULTIPLES} | {grey})
    attack = USUAL.model_copy(update={"steps": STEPS})
    standing = [
        suspect.attack("radius", [attack], scout=suspect.usual_scout, rows=rows, threat=threat.with_eps(eps)).robust
        for eps in radii
    ]
    left = [metrics.accuracy(each.numpy()) for each in standing]
    labels = suspect.examples.labels.cpu()[rows]
    most = float(labels.bincount().max()) / len(rows)
    rises = [metrics.paired_difference(a.numpy(), b.numpy(), 0.99) for a, b in itertools.pairwise(standing)]
    rising = next((at for at, rise in enumerate(rises) if rise.interval and rise.interval.low > 0.02), None)
    missed = left[-1].interval is not None and left[-1].interval.low > most
    reason = f"Where every image can be the same grey (ε = {grey:.4g}), {percent(left[-1].value)} of {len(rows)} stand"
    if missed:
        reason += f", though at most {percent(most)} can be right there"
    impossible = f"{percent(left[-1].value)} stand where at most {percent(most)} can be right" if missed else None
    if rising is not None:
        reason += f"; and more stand at ε = {radii[rising + 1]:.4g} than at {radii[rising]:.4g}"
    status = Status.FAIL if missed or rising is not None else Status.PASS
    return Finding(
        test="radius",
        status=status,
        reason=reason,
        metrics={"accuracy_unbounded": left[-1]},
        remedies=("bpda", "rescaled", "search", "decisions") if status == Status.FAIL else (),
        details={
            "eps": [0.0, *radii],
            "accuracy": [1.0, *(each.value for each in left)],
            "possible": most,
            "impossible": impossible,
        },
    )
