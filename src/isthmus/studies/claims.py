"""Claims of a paper as data, and the function that judges them.

A claim compares a quantity with a number or with another quantity::

    Claim(
        "CEB is more accurate than VIB at every ρ.",
        left=select("accuracy", objective="ceb"),
        right=select("accuracy", objective="vib"),
        over=("rho",),
        place="Fischer & Alemi 2020, Figure 3",
    )

:func:`judge` estimates left less right wherever both were measured, with intervals for the choice of images and of
seeds at a common level (Bonferroni). It supports the claim if each interval lies on the claim's side of the limit,
contradicts it if one lies on the other side, and is undecided otherwise. Relations other than more and less are
reductions of a quantity (:meth:`isthmus.studies.quantities.Select.slope`, ``max``, ``last``, …).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from isthmus.core.types import Coordinate
from isthmus.studies.estimates import LEAST_SEEDS, Estimate, in_unit
from isthmus.studies.quantities import Quantity, estimate
from isthmus.studies.rows import Rows, coordinate_text
from isthmus.studies.verdicts import ClaimResult, Verdict, all_of, any_of, bonferroni, exceeds, falls_below

Place = dict[str, Coordinate]
_LISTED = 6
"""More comparisons than this are not listed one by one."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A quantity compared with a number or with another quantity.

    Attributes:
        left, right: what is compared. Quantities are paired by seed.
        op: ">" for left > right + margin, "<" for left < right − margin, "within" for |left − right| < margin.
        over: coordinates; the comparison is made at each of their values at which both sides were measured.
        every: whether "all" of these must hold, or "any" one.
        seeded: leave out values with fewer than three seeds, which decide nothing, if others have more.
        about: the difference in words; by default the names of the quantities.
        where: make the comparison only at values of ``over`` at which this other one is supported for the measured
            models.
    """

    left: Quantity
    op: Literal[">", "<", "within"] = ">"
    right: Quantity | float = 0.0
    margin: float = 0.0
    over: tuple[str, ...] = ()
    every: Literal["all", "any"] = "all"
    seeded: bool = False
    about: str = ""
    where: Comparison | None = None

    @property
    def difference(self) -> Quantity:
        """The estimated quantity: left, less right if that is a quantity."""
        return self.left - self.right if isinstance(self.right, Quantity) else self.left

    @property
    def limit(self) -> float:
        """The limit of the difference; for "within" the centre."""
        centre = 0.0 if isinstance(self.right, Quantity) else self.right
        return centre + {">": self.margin, "<": -self.margin, "within": 0.0}[self.op]

    def places(self, rows: Rows) -> list[Place]:
        """Where the comparison is made; one empty place without ``over``."""
        found: list[Place] = []
        with_seeds: list[Place] = []
        for values in product(*(self.difference.values(rows, name) for name in self.over)):
            place = dict(zip(self.over, values, strict=True))
            samples = self.difference.at(**place).samples(rows, 0.95)
            found += [place] if samples else []
            with_seeds += [place] if len(samples) >= LEAST_SEEDS else []
        found = with_seeds if self.seeded and with_seeds else found
        if self.where is None:
            return found
        level = bonferroni(len(found))
        return [place for place in found if self.where.holds(place, rows, level)]

    def holds(self, place: Place, rows: Rows, level: float = 0.95) -> bool:
        """Whether it is supported at a place, for the measured models."""
        if self.where is not None and not self.where.holds(place, rows, level):
            return False
        found = estimate(self.difference.at(**place), rows, level)
        return found is not None and self.verdict(found, least_seeds=1) is Verdict.SUPPORTED

    def verdict(self, found: Estimate, least_seeds: int) -> Verdict:
        """The verdict on one estimate."""
        if self.op == "within":
            low, high = self.limit - self.margin, self.limit + self.margin
            return all_of([exceeds(found, low, least_seeds), falls_below(found, high, least_seeds)])
        return (exceeds if self.op == ">" else falls_below)(found, self.limit, least_seeds)


@dataclass(frozen=True, kw_only=True)
class Claim(Comparison):
    """A claim of a paper.

    Attributes:
        text: what the paper claims.
        place: where, such as "Table 1, p. 7".
        level: of all intervals together.
        least_seeds: seeds needed for a verdict; 1 for a claim about single models.
        also: further comparisons that must hold, too.
        refuted_by: a comparison that contradicts the claim if it holds; without it the claim is not contradicted.
        requires: comparisons without which the claim is undecided, such as a sufficient accuracy.
        optional: leave the claim out if nothing was measured for it.
        of_models: if too few seeds leave it undecided, judge it again for the measured models.
    """

    text: str = field(kw_only=False)
    place: str = ""
    level: float = 0.95
    least_seeds: int = LEAST_SEEDS
    also: tuple[Comparison, ...] = ()
    refuted_by: Comparison | None = None
    requires: tuple[Comparison, ...] = ()
    optional: bool = False
    of_models: bool = False

    @classmethod
    def joint(cls, text: str, first: Comparison, *others: Comparison, **options: Any) -> Claim:
        """A claim of several comparisons, all of which must hold."""
        return cls(text, also=others, **{**vars(first), **options})


@dataclass(frozen=True)
class OtherClaim:
    """A claim that a function judges, such as one about the paper's numbers alone."""

    text: str
    function: Callable[[Rows], tuple[Verdict, str]]
    place: str = ""


@dataclass(frozen=True)
class _Part:
    """A comparison at one place, with its estimate and verdict."""

    comparison: Comparison
    place: Place
    found: Estimate
    verdict: Verdict


def judge_all(claims: Iterable[Claim | OtherClaim], rows: Rows) -> list[ClaimResult]:
    """The verdicts on the claims of a study, in their order."""
    found: list[ClaimResult] = []
    for claim in claims:
        if isinstance(claim, OtherClaim):
            verdict, reason = claim.function(rows)
            found.append(ClaimResult(claim=claim.text, verdict=verdict, reason=reason, place=claim.place))
            continue
        if claim.optional and not claim.places(rows):
            continue
        found.append(judge(claim, rows))
        if claim.of_models and found[-1].verdict is Verdict.UNDECIDED:
            again = judge(claim, rows, least_seeds=1)
            if again.verdict is not Verdict.UNDECIDED:
                found.append(again.model_copy(update={"claim": f"Of the models measured: {claim.text}"}))
    return found


def judge(claim: Claim, rows: Rows, least_seeds: int | None = None) -> ClaimResult:
    """The verdict on a claim, with its numbers in a sentence.

    Args:
        least_seeds: in place of the claim's own.
    """
    least = claim.least_seeds if least_seeds is None else least_seeds
    comparisons = (claim, *claim.also)
    level = bonferroni(sum(len(each.places(rows)) for each in comparisons), claim.level)
    groups = [_compare(each, rows, level, least) for each in comparisons]
    reasons = [_sentence(group) for group in groups if group]
    if not all(groups):
        verdict = Verdict.UNDECIDED
        reasons.append("Not measured, or no seed has all models that are compared.")
    else:
        verdict = all_of([_together(group) for group in groups])
        if claim.refuted_by is not None and verdict is not Verdict.SUPPORTED:
            against = _compare(claim.refuted_by, rows, claim.level, least)
            verdict = Verdict.CONTRADICTED if _together(against) is Verdict.SUPPORTED else Verdict.UNDECIDED
            reasons += [f"Against the claim: {_sentence(against)}"] if against else []
    for unmet in filter(None, (_unmet(each, rows) for each in claim.requires)):
        verdict = Verdict.UNDECIDED
        reasons.append(unmet)
    return ClaimResult(claim=claim.text, verdict=verdict, reason=" ".join(reasons), place=claim.place)


def _compare(comparison: Comparison, rows: Rows, level: float, least_seeds: int) -> list[_Part]:
    found = []
    for place in comparison.places(rows):
        value = estimate(comparison.difference.at(**place), rows, level)
        if value is not None:
            found.append(_Part(comparison, place, value, comparison.verdict(value, least_seeds)))
    return found


def _together(parts: list[_Part]) -> Verdict:
    every = parts[0].comparison.every if parts else "all"
    return (all_of if every == "all" else any_of)([part.verdict for part in parts])


def _unmet(comparison: Comparison, rows: Rows) -> str:
    """Why the means, without their uncertainty, do not meet a requirement; "" if they do."""
    parts = _compare(comparison, rows, 0.95, 1)
    sign = -1 if comparison.op == "<" else 1
    unmet = [part for part in parts if sign * part.found.value <= sign * comparison.limit]
    return f"The claim needs more. {_sentence(unmet)}" if unmet else ""


def _sentence(parts: list[_Part]) -> str:
    """The quantity, each estimate, and the limit."""
    first = parts[0].comparison
    about = first.about or str(first.difference)
    if len(parts) <= _LISTED:
        each = "; ".join(f"{_at(part)}{part.found}" for part in parts)
    else:
        holds = sum(part.verdict is Verdict.SUPPORTED for part in parts)
        ordered = sorted(parts, key=lambda part: part.found.value, reverse=first.op == "<")
        ends = " to ".join(f"{_at(part)}{part.found}" for part in (ordered[0], ordered[-1]))
        each = f"supported at {holds} of {len(parts)} places; from {ends}"
    where = "" if not first.over else " at each place" if first.every == "all" else " at one place"
    return f"{about[0].upper()}{about[1:]}: {each}; {_limit(first, parts[0].found.unit)}{where} counts."


def _at(part: _Part) -> str:
    inside = ", ".join(coordinate_text(name, value) for name, value in part.place.items())
    return f"{inside}: " if inside else ""


def _limit(comparison: Comparison, unit: str) -> str:
    limit = in_unit(comparison.limit, unit) if comparison.limit else "0"
    if comparison.op == "within":
        return f"within {in_unit(comparison.margin, 'points' if unit == 'fraction' else unit)} of {limit}"
    return f"{'above' if comparison.op == '>' else 'below'} {limit}"
