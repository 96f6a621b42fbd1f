"""Diagnostic tests of the gradients: whether they exist, and whether they describe what the model computes."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from scipy.stats import spearmanr
from torch import Tensor

from isthmus import metrics
from isthmus.attacks.engine.batch import Batch, per_image
from isthmus.core.randomness import fold, normal
from isthmus.core.types import Interval, Metric, Status
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.diagnostic_result import BLOCKED, MIN_EXAMPLES, DiagnosticResult, percent

WARN_VANISHING, FAIL_VANISHING = 0.02, 0.2
"""Fractions of useless gradients."""

VANISHING = 1e-12
"""ℓ1 norm below which a float32 gradient is numerically no direction."""

FLAT = 0.4
"""Median confidence, rescaled to 0 for uniform and 1 for certain, below which the cross-entropy is nearly flat."""

WARN_CORRELATION, FAIL_CORRELATION = 0.8, 0.5
"""Rank correlations with finite differences below which the gradient is doubtful."""

DIFFERENCE_EXAMPLES = 96
DIFFERENCE_LENGTH = 0.02
"""Length of a finite difference in units of ε: short enough to be linear, long enough to exceed rounding."""

WARN_SURFACE, FAIL_SURFACE = 0.75, 0.5
"""Fractions of examples at which the gradient step must beat random steps."""

SURFACE_EXAMPLES, RANDOM_STEPS = 64, 8


def gradients(context: DiagnosisContext) -> DiagnosticResult:
    """Whether gradients are finite and non-zero, at clean images and at random points in the ball.

    The cross-entropy of a confident classifier is exactly zero in float32, and so is its gradient. Losses of logit
    differences do not saturate. If their gradient is zero as well, the model blocks it.
    """
    rows = context.sample(context.clean.robust, 64)
    if len(rows) == 0:
        return DiagnosticResult(test="gradients", status=Status.PASS, reason="No clean image is classified correctly")
    batch = context.examples.take(rows)
    points = [batch.images, context.threat.random_start(batch.images, batch.keys)]
    queries = {loss: [context.queries.gradients(x, batch, loss) for x in points] for loss in ("ce", "margin")}
    found = {loss: torch.cat([gradient for _, gradient in each]) for loss, each in queries.items()}
    confidence = torch.cat([logits for logits, _ in queries["ce"]]).double().softmax(1).amax(1)
    fractions = _fractions(context, found, confidence)
    status, reason, follow_ups = _assess({name: float(m.value or 0) for name, m in fractions.items()}, len(confidence))
    uniform = 1 / context.num_classes
    rescaled = float((confidence.median() - uniform) / (1 - uniform))
    if status == Status.PASS and rescaled < FLAT:
        status, follow_ups = Status.WARN, ("margin_losses",)
        reason = (
            f"The softmax is nearly uniform although predictions are correct (median confidence "
            f"{percent(float(confidence.median()))}), so the cross-entropy is a poor guide to the nearest class"
        )
    return DiagnosticResult(
        test="gradients",
        status=status,
        reason=reason,
        metrics=fractions,
        follow_ups=follow_ups,
        details={"rescaled_confidence": rescaled, **_norm_quantiles(found["margin"])},
    )


def _fractions(
    context: DiagnosisContext, found: dict[str, Tensor], confidence: Float[Tensor, " n"]
) -> dict[str, Metric]:
    vanished, blocked = _vanishing(found["ce"]), _vanishing(found["margin"])
    finite = torch.cat([found["ce"], found["margin"]]).isfinite().flatten(1).all(1)
    lost = (context.baseline.invalid & context.valid)[context.valid]
    counted = {
        "vanishing_cross_entropy": vanished,
        "vanishing_margin": blocked,
        "not_finite": ~finite,
        "lost": lost,
        "saturated": confidence.float() == 1,
    }
    return {name: metrics.proportion(int(each.sum()), len(each)) for name, each in counted.items()}


def _vanishing(gradient: Tensor) -> Bool[Tensor, " n"]:
    return gradient.abs().flatten(1).sum(1) < VANISHING


def _norm_quantiles(gradient: Tensor) -> dict[str, list[float]]:
    norms = gradient.abs().flatten(1).sum(1)
    norms = norms[norms.isfinite()].double()
    at = torch.tensor((0.0, 0.25, 0.5, 0.75, 1.0)).double()
    return {
        "quantiles": at.tolist(),
        "margin_gradient_l1": norms.quantile(at.to(norms.device)).tolist() if len(norms) else [],
    }


def _assess(fractions: dict[str, float], count: int) -> tuple[Status, str, tuple[str, ...]]:
    """Status, reason and follow-up attacks for fractions of useless gradients."""
    worst = max(value for name, value in fractions.items() if name != "saturated")
    if worst <= WARN_VANISHING:
        return Status.PASS, f"{count} gradients of the cross-entropy and of the margin are finite and non-zero", ()
    status = Status.FAIL if worst > FAIL_VANISHING else Status.WARN
    if fractions["lost"] > WARN_VANISHING:
        return status, f"PGD met NaN or infinity at {percent(fractions['lost'])} of the examples and lost them", BLOCKED
    if max(fractions["vanishing_margin"], fractions["not_finite"]) > WARN_VANISHING:
        return status, f"{percent(worst)} of the gradients are zero or not finite, for every loss", BLOCKED
    reason = (
        f"{percent(fractions['vanishing_cross_entropy'])} of the cross-entropy's gradients vanish because the logits "
        "are saturated; those of the margin do not"
    )
    return status, reason, ("margin_losses",)


def finite_differences(context: DiagnosisContext) -> DiagnosticResult:
    """Whether the gradient agrees with finite differences of the margin.

    Rank correlation of directional derivatives with central differences, at one point in the ball of each example,
    along the signs of its gradient (every third example) or random signs. A stopped gradient is zero although the
    margin changes, a flipped one has the wrong sign, a shattered one is unrelated. A quantised model does not change at
    all within a short step.
    """
    rows = context.sample(context.clean.robust, DIFFERENCE_EXAMPLES)
    if len(rows) < MIN_EXAMPLES:
        return DiagnosticResult(
            test="finite_differences", status=Status.SKIPPED, reason="Too few clean images are classified correctly"
        )
    expected, found = _derivatives(context, context.examples.take(rows))
    constant = bool((expected == expected[0]).all() or (found == found[0]).all())
    correlation = 0.0 if constant else float(spearmanr(expected.cpu(), found.cpu()).statistic)
    interval = _fisher(correlation, len(found))
    no_change = metrics.proportion(int((found == 0).sum()), len(found))
    if (expected == 0).all() and (found != 0).any():
        status, reason = Status.FAIL, "The gradient is zero although the model's outputs change"
    elif (no_change.value or 0) > 0.5:
        changed = f"{int((found == 0).sum())} of {len(found)} short steps"
        status, reason = Status.FAIL, f"{changed} change nothing: the model is piecewise constant"
    elif interval.high < -FAIL_CORRELATION:
        status, reason = Status.FAIL, "The gradient points in the wrong direction"
    elif interval.high < FAIL_CORRELATION:
        status, reason = Status.FAIL, "The gradient is nearly unrelated to the model's outputs"
    elif interval.high < WARN_CORRELATION:
        status, reason = Status.WARN, "The gradient agrees only roughly with the model's outputs"
    else:
        status, reason = Status.PASS, "The gradient agrees with the model's outputs"
    return DiagnosticResult(
        test="finite_differences",
        status=status,
        reason=f"{reason} (rank correlation {correlation:.2f} with finite differences)",
        metrics={
            "correlation": Metric(value=correlation, unit="rank correlation", n=len(found), interval=interval),
            "no_change": no_change,
        },
        follow_ups=BLOCKED if status != Status.PASS else (),
    )


def _derivatives(context: DiagnosisContext, batch: Batch) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Directional derivatives of the margin, by the gradient and by central differences."""
    h = DIFFERENCE_LENGTH * context.threat.eps
    x = context.threat.random_start(batch.images, batch.keys).clamp(h, 1 - h)  # every step stays in the box
    gradient = context.queries.gradients(x, batch, "margin")[1].nan_to_num(0.0, 0.0, 0.0)
    own = gradient.sign()
    direction = normal(fold(batch.keys, "finite_differences/direction"), tuple(x.shape[1:])).to(x).sign()
    along = own.flatten(1).any(1) & (torch.arange(len(batch), device=x.device) % 3 == 0)
    direction = torch.where(per_image(along, own), own, direction)
    direction = direction / per_image(context.threat.norm(direction), direction)
    expected = (gradient * direction).flatten(1).sum(1)
    forward, backward = (
        -batch.margin(context.queries.logits(x + sign * h * direction, batch.keys)) for sign in (1, -1)
    )
    return expected, ((forward - backward) / (2 * h)).nan_to_num()


def _fisher(correlation: float, n: int) -> Interval:
    """95% interval by Fisher's transformation."""
    z = torch.atanh(torch.tensor(correlation, dtype=torch.float64).clamp(-0.999999, 0.999999))
    reach = 1.96 / max(n - 3, 1) ** 0.5
    return Interval(low=float(torch.tanh(z - reach)), high=float(torch.tanh(z + reach)), method="Fisher")


def loss_surface(context: DiagnosisContext) -> DiagnosticResult:
    """Whether one step of length ε along the gradient lowers the margin more than the best of eight random steps.

    It does not on a flat or jagged loss surface, such as those in figures 4 and 10 of the paper.
    """
    rows = context.sample(context.clean.robust, SURFACE_EXAMPLES)
    if len(rows) < 8:
        return DiagnosticResult(
            test="loss_surface", status=Status.SKIPPED, reason="Too few clean images are classified correctly"
        )
    batch, threat = context.examples.take(rows), context.threat
    x = batch.images

    def after_step(direction: Tensor) -> Float[Tensor, " n"]:
        stepped = threat.project(threat.step(x, direction, threat.eps), x)
        return batch.margin(context.queries.logits(stepped, batch.keys))

    along = after_step(context.queries.gradients(x, batch, "margin")[1])
    keys = [fold(batch.keys, "loss_surface/direction", number) for number in range(RANDOM_STEPS)]
    best_random = torch.stack([after_step(normal(each, tuple(x.shape[1:])).to(x)) for each in keys]).amin(0)
    better = along < best_random
    start = batch.margin(context.queries.logits(x, batch.keys))
    scale = start.abs().clamp(min=1e-12)
    fraction = metrics.proportion(int(better.sum()), len(rows))
    high = fraction.interval.high if fraction.interval else 1.0
    status = Status.FAIL if high < FAIL_SURFACE else Status.WARN if high < WARN_SURFACE else Status.PASS
    return DiagnosticResult(
        test="loss_surface",
        status=status,
        reason=f"At {int(better.sum())} of {len(rows)} examples a gradient step lowers the margin more than the best "
        f"of {RANDOM_STEPS} random steps",
        metrics={"gradient_beats_random": fraction},
        follow_ups=("bpda", "substitute", "random_search", "decision_based") if status != Status.PASS else (),
        details={
            "fall_along_gradient": float(((start - along) / scale).median()),
            "fall_at_random": float(((start - best_random) / scale).median()),
        },
    )
