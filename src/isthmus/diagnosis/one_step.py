"""Is one step stronger than many? Then the many go astray (Athalye et al. 2018, §3.1)."""

from __future__ import annotations

from isthmus import metrics
from isthmus.attacks import fgsm
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.finding import Finding, judged, percent

WARN, FAIL = 0.0, 0.02  # of all examples


def examine(suspect: DiagnosisContext) -> Finding:
    """Accuracy against PGD minus accuracy against FGSM, on the same examples."""
    many = suspect.reported.numpy()
    fell = suspect.attack("one_step", [fgsm.Config()], scout=suspect.usual_scout, known=suspect.clean).broken
    one = (suspect.answered & ~fell).numpy()
    margin = metrics.paired_difference(one, many, 0.99)
    left, at_last = metrics.accuracy(one), metrics.accuracy(many)
    status = judged(margin.interval.low if margin.interval else None, WARN, FAIL)
    return Finding(
        test="one_step",
        status=status,
        reason=f"{percent(left.value)} stand against one step (FGSM), {percent(at_last.value)} against PGD",
        metrics={"accuracy_one_step": left, "pgd_minus_fgsm": margin},
        remedies=("bpda", "rescaled") if status != "pass" else (),
    )
