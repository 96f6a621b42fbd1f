"""What one test found about a suspect: plain data."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from isthmus.core.types import Metric, Record, Status

RANK = {Status.FAIL: 0, Status.WARN: 1, Status.ERROR: 2, Status.SKIPPED: 3, Status.PASS: 4}
"""The order in which evidence is shown: what speaks against the robustness first."""

BLOCKED = ("bpda", "on_grid", "search", "substitute", "decisions")
"""What to try where the model's own gradients lead nowhere."""

FEWEST = 10
"""Examples left by the usual attack, below which a share of them says nothing about the accuracy."""


class Finding(Record):
    """Evidence for or against a robust accuracy.

    Attributes:
        test: its name, which is also that of its file and of its paragraph in the documentation.
        status: pass where it found nothing wrong; warn; fail where the attack that was reported, rather than the
            classifier, is what is weak; skipped where it could not be asked.
        reason: one sentence that says why, with the numbers.
        metrics: the numbers, each with n and an interval.
        remedies: follow-ups that an expert would try next, by name; empty where nothing is wrong.
        details: curves behind the numbers.
    """

    test: str
    status: Status
    reason: str
    metrics: dict[str, Metric] = Field(default_factory=dict)
    remedies: tuple[str, ...] = ()
    details: dict[str, Any] = Field(default_factory=dict)


def percent(share: float | None) -> str:
    """0.973 as "97.3%"; nothing measured as 0."""
    return f"{100 * (share or 0.0):.1f}%"


def judged(lowest: float | None, warn: float, fail: float) -> Status:
    """A status from what is surely there: the lower end of an interval."""
    if lowest is None or lowest <= warn:
        return Status.PASS
    return Status.FAIL if lowest > fail else Status.WARN
