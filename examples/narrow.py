"""A check of your own: how many decisions are narrow, that is, made with the runner-up class close behind?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from isthmus import metrics
from isthmus.core.config import Component
from isthmus.core.types import CheckResult, Section, Status, Table

if TYPE_CHECKING:
    from isthmus.checks.context import Context


class Config(Component):
    """A decision is narrow below this ``margin``; warn where surely more than ``tolerated`` of them are."""

    name: Literal["narrow"] = "narrow"
    margin: float = 0.1
    tolerated: float = 0.05


def run(context: Context, config: Config) -> CheckResult:
    """Share of images whose two largest class probabilities differ by less than the margin."""
    ordered = np.sort(metrics.probabilities(context.logits.numpy()), axis=1)
    margins = ordered[:, -1] - ordered[:, -2]
    share = metrics.proportion(int((margins < config.margin).sum()), margins.size)
    assert share.interval is not None
    warns = share.interval.low > config.tolerated
    return CheckResult(
        check="narrow",
        status=Status.WARN if warns else Status.PASS,
        reason=f"{100 * (share.value or 0):.1f}% of {share.n} decisions have a margin below {config.margin:g}.",
        metrics={"narrow": share},
        arrays={"margin": margins},
    )


def section(results: Mapping[str, CheckResult]) -> Section:
    """How the page shows it, from stored results: a table, and a column of the comparison."""
    found = {name: result.metrics["narrow"] for name, result in results.items()}
    table = Table(
        title="Narrow decisions",
        reading="A small change of the image is enough to turn a narrow decision.",
        columns=("classifier", "narrow decisions"),
        rows=tuple(found.items()),
    )
    return Section("Margins", "How many decisions are narrow?", (table,), {"narrow decisions": found})
