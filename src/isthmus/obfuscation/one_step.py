"""Is one step stronger than many? Then the many go astray (Athalye et al. 2018, §3.1)."""

from __future__ import annotations

from isthmus import metrics
from isthmus.attacks import fgsm
from isthmus.obfuscation.finding import Finding, judged, percent
from isthmus.obfuscation.suspect import Suspect

WARN, FAIL = 0.0, 0.02  # of all examples


def examine(suspect: Suspect) -> Finding:
    """Accuracy against PGD minus accuracy against FGSM, on the same examples."""
    one = suspect.attack("one_step", [fgsm.Config()], scout=suspect.usual_scout, known=suspect.clean)
    many = suspect.usual
    gap = metrics.paired_difference(one.robust.numpy(), many.robust.numpy(), 0.99)
    status = judged(gap.interval.low if gap.interval else None, WARN, FAIL)
    return Finding(
        test="one_step",
        status=status,
        reason=f"{percent(one.accuracy)} stand against one step (FGSM), {percent(many.accuracy)} against PGD",
        metrics={"accuracy_one_step": metrics.accuracy(one.robust.numpy()), "pgd_minus_fgsm": gap},
        remedies=("straight_through", "rescaled") if status != "pass" else (),
    )
