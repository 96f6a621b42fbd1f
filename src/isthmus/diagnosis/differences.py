"""Does the gradient say what the model does? Against finite differences, along random directions and its own.

A stopped gradient is zero where the model moves, a flipped one has the wrong sign, a shattered one has nothing to do
with it; a quantised model does not move at all, and then jumps.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from isthmus import metrics
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.rows import per_image
from isthmus.core.randomness import fold, normal
from isthmus.core.types import Interval, Metric, Status
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.finding import BLOCKED, FEWEST, Finding

POINTS = 96
SHARE = 0.02
"""Length of a difference, in units of ε: short enough for a linear answer, long enough to be no rounding."""

WARN, FAIL = 0.8, 0.5  # rank correlation below which gradients are doubted


def examine(suspect: DiagnosisContext) -> Finding:
    """Rank correlation between the margin's directional derivatives and its central differences.

    At one point in the ball of each of some examples, along the signs of its own gradient or, at two of three, along
    random ones.
    """
    rows = suspect.sample(suspect.clean.robust, POINTS)
    if len(rows) < FEWEST:
        return Finding(test="differences", status=Status.SKIPPED, reason="Too few clean images are answered right")
    batch = suspect.examples.take(rows)
    h = SHARE * suspect.threat.eps
    x = suspect.threat.random_start(batch.images, batch.keys).clamp(h, 1 - h)  # so that every step stays in the box
    gradient = suspect.gradients(x, batch, "margin")[1].nan_to_num(0.0, 0.0, 0.0)
    own, direction = gradient.sign(), normal(fold(batch.keys, "differences/direction"), tuple(x.shape[1:])).to(x).sign()
    along = own.flatten(1).any(1) & (torch.arange(len(rows), device=x.device) % 3 == 0)
    direction = torch.where(per_image(along, own), own, direction)
    direction = direction / per_image(suspect.threat.norm(direction), direction)
    expected = (gradient * direction).flatten(1).sum(1)
    found = _central(suspect, batch, x, direction, h).nan_to_num()
    still = int((found == 0).sum())
    moves, zero = found != 0, expected == 0
    constant = bool((expected == expected[0]).all() or (found == found[0]).all())
    correlation = 0.0 if constant else float(spearmanr(expected.cpu(), found.cpu()).statistic)
    interval = _fisher(correlation, len(found))
    metric = Metric(value=correlation, unit="rank correlation", n=len(found), interval=interval)
    flat = metrics.proportion(still, len(found))
    if zero.all() and moves.any():
        status, said = Status.FAIL, "The gradient is zero where the model's answers move"
    elif (flat.value or 0) > 0.5:
        status, said = (
            Status.FAIL,
            f"{still} of {len(found)} short steps change nothing: the model moves in jumps",
        )
    elif interval.high < -FAIL:
        status, said = Status.FAIL, "The gradient points the wrong way"
    elif interval.high < FAIL:
        status, said = Status.FAIL, "The gradient has little to do with how the model's answers change"
    elif interval.high < WARN:
        status, said = Status.WARN, "The gradient follows the model's answers only roughly"
    else:
        status, said = Status.PASS, "The gradient follows the model's answers"
    return Finding(
        test="differences",
        status=status,
        reason=f"{said} (rank correlation {correlation:.2f} with finite differences)",
        metrics={"correlation": metric, "no_change": flat},
        remedies=BLOCKED if status != Status.PASS else (),
    )


def _central(suspect: DiagnosisContext, batch: Batch, x: Tensor, direction: Tensor, h: float) -> Float[Tensor, " n"]:
    """(f(x + h·d) − f(x − h·d)) / 2h of minus the gap to success."""
    there, back = (-batch.margin(suspect.logits(x + way * h * direction, batch.keys)) for way in (1, -1))
    return (there - back) / (2 * h)


def _fisher(correlation: float, n: int) -> Interval:
    """95% interval by Fisher's transformation."""
    z = torch.atanh(torch.tensor(correlation, dtype=torch.float64).clamp(-0.999999, 0.999999))
    reach = 1.96 / max(n - 3, 1) ** 0.5
    return Interval(low=float(torch.tanh(z - reach)), high=float(torch.tanh(z + reach)), method="Fisher")
