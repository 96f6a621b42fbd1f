"""Does the model answer at random? Then one pass says little, neither for nor against it.

Everything here judges a random model by its average over fresh draws; attacks that averaged nothing are repeated with
averaged gradients (expectation over transformation, Athalye et al. 2018, §4.2).
"""

from __future__ import annotations

import torch

from isthmus import metrics
from isthmus.core.randomness import fold
from isthmus.core.types import Status
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.finding import Finding, percent

DRAWS = 8


def examine(suspect: DiagnosisContext) -> Finding:
    """How often a single draw's answer is another than the most frequent one, on some clean images."""
    rows = suspect.sample(most=64)
    batch = suspect.examples.take(rows)
    if not suspect.random:
        return Finding(test="randomness", status=Status.PASS, reason="The model answers the same image the same way")
    draws = [suspect.logits(batch.images, fold(batch.keys, "randomness/draw", draw)) for draw in range(DRAWS)]
    answers = torch.stack([logits.argmax(1) for logits in draws])
    usual = answers.mode(0).values
    other = metrics.proportion(int((answers != usual).sum()), answers.numel())
    spread = torch.stack([batch.margin(logits) for logits in draws]).std(0).median()
    return Finding(
        test="randomness",
        status=Status.WARN,
        reason=f"The model answers at random: {percent(other.value)} of draws differ from the usual answer",
        metrics={"answers_differ": other},
        remedies=("averaged",),
        details={"margin_deviation": float(spread)},
    )
