"""Diagnostic tests of the attack: does a variant of the baseline attack give an implausible accuracy?

A variant with more steps or restarts should break few further examples, one with a single step fewer than the baseline,
and one with a large enough ε all of them.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch

from isthmus import metrics
from isthmus.attacks import FGSM
from isthmus.attacks.result import RobustResult
from isthmus.core.types import Status
from isthmus.diagnosis.context import BASELINE, DiagnosisContext
from isthmus.diagnosis.diagnostic_result import MIN_EXAMPLES, DiagnosticResult, percent, status_above

WARN_LONGER, FAIL_LONGER = 0.05, 0.15
"""Fractions of the examples robust to the baseline attack that a longer attack may break."""

WARN_ONE_STEP, FAIL_ONE_STEP = 0.0, 0.02
"""Fractions of all examples by which one step may break more than the baseline attack."""

MULTIPLES = (0.5, 1.0, 2.0, 4.0)
RADIUS_STEPS = 20
MAX_RISE = 0.02
"""Accuracy may rise by this much from one ε to a larger one."""


def one_step(context: DiagnosisContext) -> DiagnosticResult:
    """Whether one step breaks more examples than many, which then go astray (Athalye et al. 2018, §3.1)."""
    many = context.baseline_robust.numpy()
    fgsm_result = context.attack(
        "one_step", [FGSM()], gradient_model=context.baseline_gradient_model, known=context.clean
    )
    one = (context.valid & ~fgsm_result.broken).numpy()
    difference = metrics.paired_difference(one, many, 0.99)
    status = status_above(difference, WARN_ONE_STEP, FAIL_ONE_STEP)
    against_fgsm, against_pgd = metrics.accuracy(one), metrics.accuracy(many)
    return DiagnosticResult(
        test="one_step",
        status=status,
        reason=f"Accuracy is {percent(against_fgsm.value)} against one step (FGSM) and {percent(against_pgd.value)} "
        "against PGD",
        metrics={"accuracy_one_step": against_fgsm, "pgd_minus_fgsm": difference},
        follow_ups=("bpda", "margin_losses") if status != Status.PASS else (),
    )


def restarts(context: DiagnosisContext) -> DiagnosticResult:
    """Whether further random starts break many more examples; one start was luck then.

    On an ordinary loss surface the first run breaks nearly all that any run breaks. On VIB it does not (figures 2 and 8
    of the paper).
    """
    count = context.budget.restarts
    result, found = _longer(context, "restarts", f"{count} restarts", {"restarts": count})
    if found is None:
        return result
    accuracy = context.baseline.accuracy
    broken = found.state.run[found.broken].bincount(minlength=count)[:count].cumsum(0)
    curve = [accuracy, *(accuracy * (1 - each / len(found)) for each in broken.tolist())]
    return result.model_copy(update={"details": {"restarts": list(range(1, count + 2)), "accuracy": curve}})


def steps(context: DiagnosisContext) -> DiagnosticResult:
    """Whether several times as many steps break many more examples; the attack stopped too early then."""
    count = context.budget.steps
    result, found = _longer(context, "steps", f"{count} steps", {"steps": count})
    if found is None:
        return result
    grid = torch.linspace(0, count, 11).long().tolist()
    broken = [int((found.broken & (found.state.step <= at)).sum()) / len(found) for at in grid]
    curve = [context.baseline.accuracy * (1 - each) for each in broken]
    return result.model_copy(update={"details": {"steps": grid, "accuracy": curve}})


def _longer(
    context: DiagnosisContext, test: str, description: str, options: dict[str, Any]
) -> tuple[DiagnosticResult, RobustResult | None]:
    """The fraction of examples robust to the baseline attack that it breaks with these options."""
    rows = context.sample(context.baseline.robust & context.clean.robust)
    if len(rows) < MIN_EXAMPLES:
        reason = f"Too few examples are robust to the baseline attack: {len(rows)}"
        return DiagnosticResult(test=test, status=Status.PASS, reason=reason), None
    found = context.attack(
        test,
        [BASELINE.model_copy(update=options)],
        gradient_model=context.baseline_gradient_model,
        known=context.baseline,
        rows=rows,
    )
    broken = int(found.broken.sum())
    fraction = metrics.proportion(broken, len(rows))
    status = status_above(fraction, WARN_LONGER, FAIL_LONGER)
    result = DiagnosticResult(
        test=test,
        status=status,
        reason=f"PGD with {description} breaks {broken} of {len(rows)} examples that are robust to one run of "
        f"{BASELINE.steps} steps",
        metrics={"fraction_broken": fraction},
        follow_ups=("restarts", "bpda") if status != Status.PASS else (),
    )
    return result, found


def radius(context: DiagnosisContext) -> DiagnosticResult:
    """Whether accuracy falls as ε grows, to chance at the ε that turns every image into the same grey.

    At that ε, no classifier can be correct on examples of several classes, so an attack misses the adversarial examples
    of whatever is robust there (Carlini et al. 2019, arXiv:1902.06705, §5; accuracy above chance at ε = 0.5 is the
    warning sign in the paper).
    """
    rows = context.sample(context.clean.robust)
    if len(rows) == 0:
        return DiagnosticResult(test="radius", status=Status.PASS, reason="No clean image is classified correctly")
    threat, grey = context.threat, _grey_eps(context)
    radii = sorted({min(threat.eps * multiple, grey) for multiple in MULTIPLES} | {grey})
    suite = [BASELINE.model_copy(update={"steps": RADIUS_STEPS})]
    source = context.baseline_gradient_model
    robust = [
        context.attack("radius", suite, gradient_model=source, rows=rows, threat=threat.with_eps(eps)).robust.numpy()
        for eps in radii
    ]
    accuracies = [metrics.accuracy(each) for each in robust]
    largest = accuracies[-1]
    possible = float(context.examples.labels.cpu()[rows].bincount().max()) / len(rows)
    rises = [metrics.paired_difference(a, b, 0.99) for a, b in itertools.pairwise(robust)]
    rising = next((at for at, rise in enumerate(rises) if rise.interval and rise.interval.low > MAX_RISE), None)
    above_possible = largest.interval is not None and largest.interval.low > possible
    reason = f"Accuracy is {percent(largest.value)} on {len(rows)} examples at ε = {grey:.4g}, which can turn every "
    reason += "image into the same grey"
    if above_possible:
        reason += f", although at most {percent(possible)} is possible there"
    if rising is not None:
        reason += f"; accuracy is higher at ε = {radii[rising + 1]:.4g} than at {radii[rising]:.4g}"
    failed = above_possible or rising is not None
    impossible = f"attacks leave an accuracy of {percent(largest.value)} where at most {percent(possible)} is possible"
    return DiagnosticResult(
        test="radius",
        status=Status.FAIL if failed else Status.PASS,
        reason=reason,
        metrics={"accuracy_unbounded": largest},
        follow_ups=("bpda", "margin_losses", "random_search", "decision_based") if failed else (),
        details={
            "eps": [0.0, *radii],
            "accuracy": [1.0, *(each.value for each in accuracies)],
            "possible": possible,
            "impossible": impossible if above_possible else None,
        },
    )


def _grey_eps(context: DiagnosisContext) -> float:
    """The ε at which every image can become the same grey."""
    pixels = context.examples.images[0].numel()
    return {"linf": 0.5, "l2": 0.5 * math.sqrt(pixels), "l1": 0.5 * pixels}[context.threat.name]
