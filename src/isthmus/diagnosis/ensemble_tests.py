"""Diagnostic tests with other attacks: do a strong ensemble or gradient-free attacks break much more?"""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from isthmus import metrics
from isthmus.attacks import Square, Uniform
from isthmus.core.types import Status
from isthmus.diagnosis import black_box_attacks
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.diagnostic_result import MIN_EXAMPLES, DiagnosticResult, percent, status_above

WARN_ENSEMBLE, FAIL_ENSEMBLE = 0.02, 0.05
"""Fractions of all examples that the ensemble may break beyond the baseline attack."""

WARN_BLACK_BOX, FAIL_BLACK_BOX = 0.02, 0.1
"""Fractions of the examples robust to gradient-based attacks that gradient-free attacks may break."""

QUERIES, POINTS = 500, 50


def ensemble(context: DiagnosisContext) -> DiagnosticResult:
    """Whether different losses, targets and step rules, and a gradient-free search, break more than the baseline.

    On a model without masked gradients they break a few points more. If they break many more, the baseline was weak.
    """
    baseline, strong = context.baseline_robust, context.valid & ~context.strong.broken
    against_baseline, against_ensemble = metrics.accuracy(baseline.numpy()), metrics.accuracy(strong.numpy())
    difference = metrics.paired_difference((baseline & strong).numpy(), baseline.numpy())
    status = status_above(difference, WARN_ENSEMBLE, FAIL_ENSEMBLE)
    follow_ups = {Status.FAIL: ("bpda", "restarts", "random_search"), Status.WARN: ("restarts", "random_search")}
    return DiagnosticResult(
        test="ensemble",
        status=status,
        reason=f"Accuracy is {percent(against_baseline.value)} against the baseline attack and "
        f"{percent(against_ensemble.value)} against the suite {context.budget.ensemble} as well",
        metrics={"accuracy_ensemble": against_ensemble, "baseline_minus_ensemble": difference},
        follow_ups=follow_ups.get(status, ()),
    )


def black_box(context: DiagnosisContext) -> DiagnosticResult:
    """Whether gradient-free attacks break what gradient-based ones did not; gradients are misleading then.

    Random search (Square), uniform points in the ball, other images as far as the ball reaches, and transfer from a
    substitute trained on the model's outputs (Papernot et al. 2017, arXiv:1602.02697).
    """
    rows = _robust_to_gradients(context)
    if len(rows) < MIN_EXAMPLES:
        reason = f"Too few examples are robust to gradient-based attacks: {len(rows)}"
        return DiagnosticResult(test="black_box", status=Status.PASS, reason=reason)
    by_ensemble = context.strong.broken[rows]
    remaining = rows[~by_ensemble]
    counts = {"search": int(by_ensemble.sum())}
    for name, suite in (
        ("random search", [Square(queries=QUERIES)]),
        ("uniform points", [Uniform(samples=POINTS)]),
        ("other images", [black_box_attacks.neighbours(context.examples)]),
        ("substitute", [black_box_attacks.substitute_transfer(context, rows)]),
    ):
        robust = remaining[context.best.robust[remaining]]
        if len(robust):
            counts[name] = int(context.attack(f"black_box/{name}", suite, rows=robust).broken.sum())
    total = sum(counts.values())
    fraction = metrics.proportion(total, len(rows))
    status = status_above(fraction, WARN_BLACK_BOX, FAIL_BLACK_BOX)
    listed = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    return DiagnosticResult(
        test="black_box",
        status=status,
        reason=f"Gradient-free attacks break {total} of {len(rows)} examples that are robust to gradient-based attacks"
        + (f" ({listed})" if listed else ""),
        metrics={"fraction_broken": fraction},
        follow_ups=("random_search", "substitute", "bpda", "decision_based") if status != Status.PASS else (),
        details={"by": counts},
    )


def _robust_to_gradients(context: DiagnosisContext) -> Int[Tensor, " some"]:
    """A sample of examples that no gradient-based attack broke; the ensemble's random search may have."""
    strong = context.strong
    robust = strong.robust.clone()
    for stage, label in enumerate(strong.attacks):
        if stage and "square" in label:
            robust |= strong.broken & (strong.stage == stage)
    return context.sample(robust)
