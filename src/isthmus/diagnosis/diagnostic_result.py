"""The result of one diagnostic test: plain data."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from isthmus.core.types import Metric, Record, Status

SEVERITY = {Status.FAIL: 0, Status.WARN: 1, Status.ERROR: 2, Status.SKIPPED: 3, Status.PASS: 4}
"""Order in which results are listed: evidence against the robustness first."""

BLOCKED = ("bpda", "on_grid", "random_search", "substitute", "decision_based")
"""Follow-up attacks for a model whose own gradients are useless."""

MIN_EXAMPLES = 10
"""Number of robust examples from which a fraction of them is meaningful."""


class DiagnosticResult(Record):
    """Evidence for or against a robust accuracy.

    Attributes:
        test: name of the test.
        status: pass if the test found nothing wrong; fail if the attack was too weak; skipped if the test could not
            run; error if it raised an exception.
        reason: one sentence with the numbers.
        metrics: the numbers, each with n and an interval.
        follow_ups: names of the attacks to try next; empty if nothing is wrong.
        details: curves behind the numbers.
    """

    test: str
    status: Status
    reason: str
    metrics: dict[str, Metric] = Field(default_factory=dict)
    follow_ups: tuple[str, ...] = ()
    details: dict[str, Any] = Field(default_factory=dict)


def percent(fraction: float | None) -> str:
    """0.973 as "97.3%"; None as 0."""
    return f"{100 * (fraction or 0.0):.1f}%"


def status_above(metric: Metric, warn: float, fail: float) -> Status:
    """Status by the thresholds that the lower confidence limit exceeds."""
    lowest = metric.interval.low if metric.interval else None
    if lowest is None or lowest <= warn:
        return Status.PASS
    return Status.FAIL if lowest > fail else Status.WARN
