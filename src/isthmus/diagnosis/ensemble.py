"""Does a strong ensemble break more than the attack that is usually reported?

Different losses, targets and directions, and a search without gradients. On an honest model they find a few points more
than 40 steps on the cross-entropy do; where they find much more, that attack was what was weak.
"""

from __future__ import annotations

from isthmus import metrics
from isthmus.core.types import Status
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.finding import Finding, judged, percent

WARN, FAIL = 0.02, 0.05  # of all examples


def examine(suspect: DiagnosisContext) -> Finding:
    """Accuracy against the usual attack minus accuracy against the ensemble and all that was found before it."""
    usual, strong = suspect.reported, suspect.answered & ~suspect.strong.broken
    left, at_first = metrics.accuracy(strong.numpy()), metrics.accuracy(usual.numpy())
    margin = metrics.paired_difference((usual & strong).numpy(), usual.numpy())
    status = judged(margin.interval.low if margin.interval else None, WARN, FAIL)
    return Finding(
        test="ensemble",
        status=status,
        reason=f"{percent(at_first.value)} stand against PGD, {percent(left.value)} against "
        f"the suite {suspect.budget.ensemble} as well",
        metrics={"accuracy_ensemble": left, "usual_minus_ensemble": margin},
        remedies={Status.FAIL: ("bpda", "restarts", "search"), Status.WARN: ("restarts", "search")}.get(status, ()),
    )
