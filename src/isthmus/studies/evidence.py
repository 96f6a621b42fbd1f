"""From estimates to a verdict on a paper's claim: seen, not seen, or not decidable with as much as was measured.

A claim is seen if the whole interval lies on its side of the limit, not seen if the whole interval lies on the other,
and otherwise undecided. How intervals are made is one rule for all claims (:mod:`isthmus.studies.estimates`). A claim
about training is undecided with fewer than three seeds, and an interval without width decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from isthmus.core.types import Record
from isthmus.studies.estimates import (
    LEAST_SEEDS,
    Estimate,
    average,
    bits,
    decades,
    difference,
    ends,
    gap,
    half_width,
    nats,
    over_seeds,
    per_unit,
    percent,
    points,
    pooled,
    share,
    signed_sum,
    trend,
)

__all__ = [
    "LEAST_SEEDS",
    "Estimate",
    "Finding",
    "Verdict",
    "all_of",
    "any_of",
    "average",
    "bits",
    "bonferroni",
    "decades",
    "difference",
    "ends",
    "exceeds",
    "falls_below",
    "gap",
    "half_width",
    "nats",
    "over_seeds",
    "per_unit",
    "percent",
    "points",
    "pooled",
    "share",
    "signed_sum",
    "trend",
    "undecided",
]


class Verdict(StrEnum):
    """What the numbers say about a claim."""

    SEEN = "seen"
    NOT_SEEN = "not seen"
    UNDECIDED = "not decidable at this scale"


class Finding(Record):
    """A claim of the paper, the verdict on it, and the numbers that led there, as one sentence."""

    claim: str
    verdict: Verdict
    because: str

    def __str__(self) -> str:
        """One line: the verdict first."""
        return f"{self.verdict}: {self.claim} {self.because}"


def undecided(claim: str, because: str = "Not measured.") -> Finding:
    """A claim about which nothing was measured, or not enough."""
    return Finding(claim=claim, verdict=Verdict.UNDECIDED, because=because)


def exceeds(estimate: Estimate, limit: float, least_seeds: int = LEAST_SEEDS) -> Verdict:
    """The verdict on "more than ``limit``"; ``least_seeds`` is 1 if the claim is about a single model."""
    if estimate.seeds < least_seeds or not estimate.known:
        return Verdict.UNDECIDED
    return Verdict.SEEN if estimate.low > limit else Verdict.NOT_SEEN if estimate.high <= limit else Verdict.UNDECIDED


def falls_below(estimate: Estimate, limit: float, least_seeds: int = LEAST_SEEDS) -> Verdict:
    """The verdict on "less than ``limit``"; see :func:`exceeds`."""
    if estimate.seeds < least_seeds or not estimate.known:
        return Verdict.UNDECIDED
    return Verdict.SEEN if estimate.high < limit else Verdict.NOT_SEEN if estimate.low >= limit else Verdict.UNDECIDED


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a claim that has several parts: one that is not seen refutes it, one undecided leaves it open."""
    for worse in (Verdict.NOT_SEEN, Verdict.UNDECIDED):
        if worse in verdicts:
            return worse
    return Verdict.SEEN if verdicts else Verdict.UNDECIDED


def any_of(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on "at least one of these"; correct the level for their number before (:func:`bonferroni`)."""
    for better in (Verdict.SEEN, Verdict.UNDECIDED):
        if better in verdicts:
            return better
    return Verdict.NOT_SEEN if verdicts else Verdict.UNDECIDED


def bonferroni(parts: int, level: float = 0.95) -> float:
    """The level of each of several intervals such that all of them hold at once with ``level``."""
    return 1 - (1 - level) / max(parts, 1)
