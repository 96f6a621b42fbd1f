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
    return _verdict(estimate, least_seeds, estimate.low > limit, estimate.high <= limit)


def falls_below(estimate: Estimate, limit: float, least_seeds: int = LEAST_SEEDS) -> Verdict:
    """The verdict on "less than ``limit``"; see :func:`exceeds`."""
    return _verdict(estimate, least_seeds, estimate.high < limit, estimate.low >= limit)


def _verdict(estimate: Estimate, least_seeds: int, holds: bool, fails: bool) -> Verdict:
    if estimate.seeds < least_seeds or not estimate.known:
        return Verdict.UNDECIDED
    return Verdict.SUPPORTED if holds else Verdict.CONTRADICTED if fails else Verdict.UNDECIDED


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a claim of several parts: contradicted if one part is, else undecided if one is."""
    return _first((Verdict.CONTRADICTED, Verdict.UNDECIDED, Verdict.SUPPORTED), verdicts)


def any_of(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on "at least one of these". Correct the level for their number first (:func:`bonferroni`)."""
    return _first((Verdict.SUPPORTED, Verdict.UNDECIDED, Verdict.CONTRADICTED), verdicts)


def _first(order: Sequence[Verdict], verdicts: Sequence[Verdict]) -> Verdict:
    """The first of an order that occurs; undecided without any."""
    return next((each for each in order if each in verdicts), Verdict.UNDECIDED)


def bonferroni(parts: int, level: float = 0.95) -> float:
    """The level of each of several intervals that gives all of them together ``level``."""
    return 1 - (1 - level) / max(parts, 1)
