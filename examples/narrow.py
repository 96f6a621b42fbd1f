"""A custom check: the fraction of narrow decisions, in which the runner-up class is close behind."""

from __future__ import annotations

from typing import Literal

import numpy as np

from isthmus import metrics
from isthmus.checks import Check, Context
from isthmus.core.types import CheckResult, Metrics, Status


class Narrow(Check):
    """A decision is narrow below this ``margin``; warn if surely more than ``tolerated`` of them are."""

    name: Literal["narrow"] = "narrow"
    margin: float = 0.1
    tolerated: float = 0.05

    def run(self, context: Context) -> CheckResult:
        """Fraction of images whose two largest class probabilities differ by less than the margin."""
        ordered = np.sort(metrics.probabilities(context.logits.numpy()), axis=1)
        margins = ordered[:, -1] - ordered[:, -2]
        narrow = metrics.proportion(int((margins < self.margin).sum()), margins.size)
        assert narrow.interval is not None
        return CheckResult(
            check="narrow",
            status=Status.WARN if narrow.interval.low > self.tolerated else Status.PASS,
            reason=f"{100 * (narrow.value or 0):.1f}% of {narrow.n} decisions have a margin below {self.margin:g}.",
            metrics=Metrics([narrow.named("narrow decisions", mode="mean")]),
            thresholds={"narrow decisions": self.tolerated},
            arrays={"margin": margins},
        )
