"""Diagnostic tests of the model's outputs: what they are, and what they depend on besides the image.

Robust accuracy is only defined for predictions that depend on the image alone. If they also depend on earlier queries,
on the batch or on chance, the evaluation removes that dependence or averages over it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus import metrics
from isthmus.attacks.engine import rounding
from isthmus.core.errors import ModelError
from isthmus.core.randomness import fold
from isthmus.core.types import Status
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.diagnostic_result import DiagnosticResult, percent
from isthmus.models.outputs import given_as_probabilities

SAME = 1e-3
"""Logits that differ by more than this fraction of their range differ by more than rounding."""

OTHERS = 7
"""Images that complete every batch of a model that cannot classify a single image."""

DRAWS = 8


def outputs(context: DiagnosisContext) -> DiagnosticResult:
    """Whether the outputs are logits, and whether they have a gradient at all.

    The cross-entropy of probabilities that are mistaken for logits is nearly flat, so attacks on it are weak. With two
    classes the difference-of-logits ratio lacks the third logit in its denominator; the margin replaces it.
    """
    logits = f"{context.num_classes} logits"
    if context.num_classes == 2:
        logits += "; DLR is undefined for two classes, so the margin replaces it"
    if not context.queries.differentiable:
        return DiagnosticResult(
            test="outputs",
            status=Status.WARN,
            reason=f"The model has no gradient ({logits}). Only attacks without gradients run, and the tests that need "
            "gradients are skipped",
            follow_ups=("random_search", "substitute"),
        )
    if given_as_probabilities(context.model):
        return DiagnosticResult(
            test="outputs",
            status=Status.WARN,
            reason="The model returns probabilities instead of logits; attacks and metrics use their logarithms",
            follow_ups=("margin_losses",),
        )
    return DiagnosticResult(test="outputs", status=Status.PASS, reason=f"The model returns {logits}")


def statefulness(context: DiagnosisContext) -> DiagnosticResult:
    """Whether predictions depend on earlier queries, as those of a cache do.

    Copies of the model were compared before anything else (:mod:`isthmus.attacks.engine.probes`). A stateful model is
    replaced by a fresh copy for every query, here and in all other checks.
    """
    if context.stateful is None:
        status, reason = Status.SKIPPED, "The model cannot be copied, so a dependence on earlier queries is not tested"
    elif context.stateful:
        status = Status.FAIL
        reason = (
            "Predictions depend on earlier queries (a cache, or learning at test time?); every query goes to a fresh "
            "copy of the model"
        )
    else:
        status, reason = Status.PASS, "Predictions do not depend on earlier queries"
    return DiagnosticResult(test="statefulness", status=status, reason=reason)


def batch_dependence(context: DiagnosisContext) -> DiagnosticResult:
    """Whether a prediction depends on the rest of the batch, or a part of the model is in training mode.

    If so, the accuracy depends on the batch size, and an adversarial example found in one batch fails in another.
    """
    if context.random:
        return DiagnosticResult(
            test="batch_dependence", status=Status.SKIPPED, reason="Predictions of a random model differ in any case"
        )
    rows = context.sample(most=16)
    try:
        change = logit_change(context, rows)
    except ModelError as error:
        if len(rows) <= OTHERS:
            raise
        context.evaluate_in_fixed_batch(context.examples.take(rows[:OTHERS]).images)
        return DiagnosticResult(
            test="batch_dependence",
            status=Status.FAIL,
            reason=f"The model cannot classify a single image ({str(error).rstrip('.')}); from here on, every image is "
            f"classified together with the same {OTHERS} others",
        )
    differ = metrics.proportion(int((change > SAME).sum()), len(change))
    training = [name or "the model" for name, module in context.model.named_modules() if module.training]
    if (change > SAME).any():
        context.evaluate_single_images()
        status = Status.FAIL
        reason = (
            f"{percent(differ.value)} of predictions depend on the rest of the batch; from here on, every image is "
            "classified alone"
        )
    else:
        status, reason = Status.PASS, "Predictions do not depend on the rest of the batch"
        if training:
            status = Status.WARN
            reason += f", but parts of the model are in training mode: {', '.join(training[:3])}"
    return DiagnosticResult(
        test="batch_dependence", status=status, reason=reason, metrics={"predictions_differ": differ}
    )


def logit_change(context: DiagnosisContext, rows: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Largest change of each image's logits in another batch, relative to the logits' size.

    Each image is classified with the others, alone, and in a batch that contains the negatives as well.

    Raises:
        ModelError: the model cannot classify a single image.
    """
    batch, logits = context.examples.take(rows), context.queries.logits
    together = logits(batch.images, batch.keys)
    singles = (batch.take(torch.tensor([row])) for row in range(len(rows)))
    alone = torch.cat([logits(each.images, each.keys) for each in singles])
    with_negatives = torch.cat([batch.images, 1 - batch.images.flip(0)])
    elsewhere = logits(with_negatives, torch.cat([batch.keys, batch.keys]))[: len(rows)]
    unit = rounding.slack(together, 1.0).clamp(min=1e-12)
    change = torch.stack([(together - other).abs().amax(1) / unit for other in (alone, elsewhere)]).amax(0)
    return change.nan_to_num(0.0)  # if both are infinite


def randomness(context: DiagnosisContext) -> DiagnosticResult:
    """Whether the same image gets different predictions, so that one pass is not representative.

    Random models are evaluated by their average over fresh draws. The follow-up attack averages gradients (expectation
    over transformation, Athalye et al. 2018, §4.2).
    """
    if not context.random:
        return DiagnosticResult(
            test="randomness", status=Status.PASS, reason="The model always gives an image the same prediction"
        )
    batch = context.examples.take(context.sample(most=64))
    draws = [context.queries.logits(batch.images, fold(batch.keys, "randomness/draw", draw)) for draw in range(DRAWS)]
    predictions = torch.stack([logits.argmax(1) for logits in draws])
    most_frequent = predictions.mode(0).values
    differ = metrics.proportion(int((predictions != most_frequent).sum()), predictions.numel())
    deviation = torch.stack([batch.margin(logits) for logits in draws]).std(0).median()
    return DiagnosticResult(
        test="randomness",
        status=Status.WARN,
        reason=f"The model is random: {percent(differ.value)} of draws differ from the most frequent prediction",
        metrics={"predictions_differ": differ},
        follow_ups=("eot",),
        details={"margin_deviation": float(deviation)},
    )
