"""Verdicts on claims of a paper."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from isthmus.core.types import Record
from isthmus.studies.estimates import LEAST_SEEDS, Estimate


class Verdict(StrEnum):
    """Whether the numbers support a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"


class ClaimResult(Record):
    """A claim of a paper with its verdict.

    Attributes:
        claim: what the paper claims.
        reason: the numbers that led to the verdict, as one sentence or two.
        place: where the paper makes the claim, such as "Table 1, p. 7".
    """

    claim: str
    verdict: Verdict
    reason: str
    place: str = ""

    def __str__(self) -> str:
        """One line: the verdict first."""
        return f"{self.verdict}: {self.claim} {self.reason}"


def exceeds(estimate: Estimate, limit: float, least_seeds: int = LEAST_SEEDS) -> Verdict:
    """The verdict on "more than ``limit``"; ``least_seeds`` is 1 for a claim about a single model."""
    if estimate.seeds < least_seeds or not estimate.known:
        return Verdict.UNDECIDED
    if estimate.low > limit:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if estimate.high <= limit else Verdict.UNDECIDED


def falls_below(estimate: Estimate, limit: float, least_seeds: int = LEAST_SEEDS) -> Verdict:
    """The verdict on "less than ``limit``"; see :func:`exceeds`."""
    if estimate.seeds < least_seeds or not estimate.known:
        return Verdict.UNDECIDED
    if estimate.high < limit:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if estimate.low >= limit else Verdict.UNDECIDED


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a claim of several parts: contradicted if one part is, else undecided if one is."""
    for worse in (Verdict.CONTRADICTED, Verdict.UNDECIDED):
        if worse in verdicts:
            return worse
    return Verdict.SUPPORTED if verdicts else Verdict.UNDECIDED


def any_of(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on "at least one of these". Correct the level for their number first (:func:`bonferroni`)."""
    for better in (Verdict.SUPPORTED, Verdict.UNDECIDED):
        if better in verdicts:
            return better
    return Verdict.CONTRADICTED if verdicts else Verdict.UNDECIDED


def bonferroni(parts: int, level: float = 0.95) -> float:
    """The level of each of several intervals such that all of them hold at once with ``level``."""
    return 1 - (1 - level) / max(parts, 1)
