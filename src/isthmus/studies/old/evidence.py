"""From estimates to a verdict on a paper's claim: supported, contradicted or undecided.

A claim is supported if the whole interval lies on its side of the limit, contradicted if it lies on the other, and
otherwise undecided. How intervals are made is one rule for all claims (:mod:`isthmus.studies.estimates`). A claim
about training is undecided with fewer than three seeds, and an interval without width decides nothing.
"""

from __future__ import annotations

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
from isthmus.studies.verdicts import ClaimResult, Verdict, all_of, any_of, bonferroni, exceeds, falls_below

__all__ = [
    "LEAST_SEEDS",
    "ClaimResult",
    "Estimate",
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


def undecided(claim: str, reason: str = "Not measured.") -> ClaimResult:
    """A claim about which nothing was measured, or not enough."""
    return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason=reason)
