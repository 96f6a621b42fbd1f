"""Progress of an audit: of the running check, and of all its checks as one bar."""

from __future__ import annotations

from collections.abc import Sequence

from isthmus.audits.options import Progress
from isthmus.core.progress import Update

_COSTS = {"diagnosis": 20.0, "robustness": 10.0, "corruptions": 5.0, "noise_robustness": 5.0, "certificate": 5.0}
"""Typical duration of a check, in multiples of the others'."""


def over_all(checks: Sequence[str], update: Update) -> Progress:
    """Progress of a check as a fraction of the whole audit, in which a check counts by its typical duration."""
    costs = [_COSTS.get(check, 1.0) for check in checks]

    def report(check: str, done: int, total: int) -> None:
        at = checks.index(check)
        finished = sum(costs[:at]) + costs[at] * done / max(total, 1)
        update(finished / sum(costs), _described(check, done, total))

    return report


def _described(check: str, done: int, total: int) -> str:
    """The current check; for the diagnosis, which may end early, also the share of its passes that it has used."""
    return f"{check}, {done / total:.0%} of its budget" if check == "diagnosis" and total > 1 else check


class CheckProgress:
    """Reports progress under the check's name; never backwards, even if parts of a check count anew."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.check, self.fraction = "", 0.0

    def start(self, check: str) -> None:
        """Begin a check."""
        self.check, self.fraction = check, 0.0
        self(0, 1)

    def __call__(self, done: int, total: int) -> None:
        """Report progress of the running check, unless it is less than before."""
        fraction = done / max(total, 1)
        if self.progress is not None and fraction >= self.fraction:
            self.fraction = fraction
            self.progress(self.check, done, total)
