"""Are the model's answers logits, and can a gradient be had of them at all?

A cross-entropy of probabilities that are taken for logits is nearly flat, and an attack on it is weak. Where there are
two classes the difference-of-logits ratio has no third logit to scale by, and is the margin.
"""

from __future__ import annotations

from isthmus.core.types import Status
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.finding import Finding


def examine(suspect: DiagnosisContext) -> Finding:
    """Whether the answers are logits, how many, and with a gradient."""
    classes = f"{suspect.classes} logits"
    if suspect.classes == 2:
        classes += ", of which DLR is undefined: the margin takes its place"
    if suspect.opaque:
        return Finding(
            test="outputs",
            status=Status.WARN,
            reason=f"No gradient can be had of this model ({classes}): it is attacked without, and the tests of "
            "gradients could not be asked",
            remedies=("search", "substitute"),
        )
    if suspect.probabilities:
        return Finding(
            test="outputs",
            status=Status.FAIL,
            reason="The answers are probabilities where logits are expected; attacks go on with their logarithms",
            remedies=("rescaled",),
        )
    return Finding(test="outputs", status=Status.PASS, reason=f"The answers are {classes}")
