"""What the papers say about figure 1 (figure 4 of Fischer 2020), each claim judged by the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.studies.ceb.sweeps import FAMILIES, cells_at, clean, left, places, success
from isthmus.studies.old.evidence import (
    ClaimResult,
    Estimate,
    Verdict,
    all_of,
    any_of,
    average,
    bonferroni,
    difference,
    exceeds,
    falls_below,
    nats,
    per_unit,
    percent,
    share,
    trend,
)
from isthmus.studies.old.image_models import healthy
from isthmus.studies.old.study import StudyRecord

LN_10 = math.log(10)
NEAR = 0.1
"""Nats within which a bound counts as having hit ln 10."""
EQUAL = 0.2
"""Nats within which two bounds are "nearly the same"."""
TARGETED = {"targeted linf": "ℓ∞", "targeted l2": "ℓ2"}
SMALL_GAIN, LARGE_LOSS = 0.05, 0.01
"""At ρ = −1 against ρ = 0: at most so much less success of attacks, and at least so much less accuracy."""


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The papers' claims in their order, and what the strong ensemble adds."""
    shared = [rho for rho in places(record, "ceb") if rho in places(record, "vib")]
    if not shared or not healthy(record, objective="determ"):
        reason = "There is no value of ρ at which both bottlenecks trained, or no deterministic network."
        return [ClaimResult(claim="CEB, VIB and deterministic networks.", verdict=Verdict.UNDECIDED, reason=reason)]
    return [
        *(_improved(record, kind) for kind in ("ceb", "vib")),
        _more_accurate(record, shared),
        *(_at_ln_10(record, kind) for kind in ("ceb", "vib")),
        _same_rate(record, shared),
        *(_more_robust(record, shared, curve) for curve in TARGETED),
        *(_rises(record, kind, curve) for kind in ("ceb", "vib") for curve in TARGETED),
        *(_beats_plain(record, curve) for curve in TARGETED),
        _minus_one(record),
        _real(record),
    ]


def _improved(record: StudyRecord, kind: str) -> ClaimResult:
    plain, grid = clean(cells_at(record, "determ")), places(record, kind)
    level = bonferroni(len(grid))
    gains = {rho: _accuracy_gain(record, (kind, rho), ("determ", None), level) for rho in grid}
    best = max(grid, key=lambda rho: gains[rho].value)
    return ClaimResult(
        claim=f"{FAMILIES[kind]} is more accurate than the deterministic network.",
        verdict=any_of([exceeds(gain, 0.0) for gain in gains.values()]),
        reason=f"At its best ρ, {best:g}, by {gains[best]}, from {percent(plain.value)}; above 0 counts (corrected "
        f"for {len(grid)} values of ρ).",
    )


def _more_accurate(record: StudyRecord, grid: Sequence[float]) -> ClaimResult:
    gains = {rho: _accuracy_gain(record, ("ceb", rho), ("vib", rho), bonferroni(len(grid))) for rho in grid}
    ahead = sum(gain.value > 0 for gain in gains.values())
    worst = min(grid, key=lambda rho: gains[rho].value)
    return ClaimResult(
        claim="CEB is more accurate than VIB at every ρ.",
        verdict=all_of([exceeds(gain, 0.0) for gain in gains.values()]),
        reason=f"It is ahead at {ahead} of {len(grid)} values of ρ, and least so at ρ = {worst:g}, by "
        f"{gains[worst]}; above 0 at each counts.",
    )


def _accuracy_gain(
    record: StudyRecord, first: tuple[str, float | None], second: tuple[str, float | None], level: float
) -> Estimate:
    one, other = (cells_at(record, *each) for each in (first, second))
    tested = one[0]["tested"]
    return difference(*(share(_right(cells), tested, level) for cells in (one, other)))


def _right(cells: Sequence[Mapping[str, Any]]) -> list[int]:
    return [round(cell["test_accuracy"] * cell["tested"]) for cell in cells]


def _at_ln_10(record: StudyRecord, kind: str) -> ClaimResult:
    claim = f"At ρ = 0 the largest lower bound on I(X;Z) that {FAMILIES[kind]} reached in training is ln 10."
    cells = cells_at(record, kind, 0.0)
    if not cells:
        return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason="No run at ρ = 0 that did not collapse.")
    top, late = (average([cell["trained"][name] for cell in cells]) for name in ("rate_lower_max", "epoch_rate_lower"))
    return ClaimResult(
        claim=claim,
        verdict=_within(top, LN_10, NEAR),
        reason=f"The largest over all steps is {top}; the mean over the last epoch's batches is {late}; ln 10 is "
        f"{nats(LN_10)}, and {nats(NEAR)} either way count. The largest of many noisy batches lies above their mean.",
    )


def _within(estimate: Estimate, centre: float, radius: float) -> Verdict:
    """The verdict on "no farther from the centre than this"."""
    return all_of([exceeds(estimate, centre - radius), falls_below(estimate, centre + radius)])


def _same_rate(record: StudyRecord, grid: Sequence[float]) -> ClaimResult:
    tops = {
        rho: [
            average([cell["trained"]["rate_lower_max"] for cell in cells_at(record, kind, rho)], bonferroni(len(grid)))
            for kind in ("ceb", "vib")
        ]
        for rho in grid
    }
    apart = {rho: one.value - other.value for rho, (one, other) in tops.items()}
    far = max(grid, key=lambda rho: abs(apart[rho]))
    both = [_nearly(*tops[rho]) for rho in grid]
    return ClaimResult(
        claim="CEB and VIB reach nearly the same bound on I(X;Z) at each ρ.",
        verdict=all_of(both),
        reason=f"They lie farthest apart at ρ = {far:g}: {tops[far][0]} and {tops[far][1]}; {nats(EQUAL)} count.",
    )


def _nearly(one: Estimate, other: Estimate) -> Verdict:
    return _within(difference(one, other), 0.0, EQUAL)


def _more_robust(record: StudyRecord, grid: Sequence[float], curve: str) -> ClaimResult:
    level = bonferroni(len(grid))
    gains = {
        rho: difference(*(success(cells_at(record, kind, rho), curve, level=level) for kind in ("vib", "ceb")))
        for rho in grid
    }
    ahead = sum(gain.value > 0 for gain in gains.values())
    worst = min(grid, key=lambda rho: gains[rho].value)
    return ClaimResult(
        claim=f"CEB is more robust than VIB to targeted PGD in {TARGETED[curve]} at every ρ.",
        verdict=all_of([exceeds(gain, 0.0) for gain in gains.values()]),
        reason=f"Fewer of its images become trousers at {ahead} of {len(grid)} values of ρ; least so at "
        f"ρ = {worst:g}, by {gains[worst]}; above 0 at each counts.",
    )


def _rises(record: StudyRecord, kind: str, curve: str) -> ClaimResult:
    claim = f"{FAMILIES[kind]}'s robustness to targeted PGD in {TARGETED[curve]} rises as ρ falls."
    runs = healthy(record, objective=kind)
    x, each = [cell["knob"] for cell in runs], [success([cell], curve) for cell in runs]
    measured = [(cell["seed"], cell["knob"], (y.value, y.low, y.high)) for cell, y in zip(runs, each, strict=True)]
    slope = trend(measured, each[0].n) if runs else None
    if slope is None:
        return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason="There are too few runs for a trend.")
    ends = [success(cells_at(record, kind, rho), curve) for rho in (min(x), max(x))]
    return ClaimResult(
        claim=claim,
        verdict=exceeds(slope, 0.0),
        reason=f"The attack's success rises with ρ by {per_unit(slope)}. At ρ = {min(x):g} it is {ends[0]}, at "
        f"ρ = {max(x):g} {ends[1]}; a slope above 0 counts.",
    )


def _beats_plain(record: StudyRecord, curve: str) -> ClaimResult:
    grid = places(record, "ceb")
    inner = [rho for rho in grid if rho < max(grid)] or grid
    level = bonferroni(len(inner))
    plain = success(cells_at(record, "determ"), curve, level=level)
    gains = {rho: difference(plain, success(cells_at(record, "ceb", rho), curve, level=level)) for rho in inner}
    worst = min(inner, key=lambda rho: gains[rho].value)
    return ClaimResult(
        claim=f"CEB is more robust to targeted PGD in {TARGETED[curve]} than the deterministic network, at all but the "
        "largest ρ.",
        verdict=all_of([exceeds(gain, 0.0) for gain in gains.values()]),
        reason=f"The attack takes {plain} of the deterministic network's; CEB's least lead is at ρ = {worst:g}, by "
        f"{gains[worst]}; above 0 at each counts.",
    )


def _minus_one(record: StudyRecord) -> ClaimResult:
    claim = "From ρ = 0 to −1 CEB gains little robustness and loses much accuracy."
    if not {0.0, -1.0} <= set(places(record, "ceb")):
        return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason="Not both trained without collapsing.")
    at = {rho: cells_at(record, "ceb", rho) for rho in (0.0, -1.0)}
    loss = difference(clean(at[0.0]), clean(at[-1.0]))
    gain = difference(*(success(at[rho], "targeted linf") for rho in (0.0, -1.0)))
    return ClaimResult(
        claim=claim,
        verdict=all_of([exceeds(loss, LARGE_LOSS), falls_below(gain, SMALL_GAIN)]),
        reason=f"It loses {loss} of accuracy (more than {percent(LARGE_LOSS)} counts), and targeted PGD in ℓ∞ takes "
        f"{gain} less (less than {percent(SMALL_GAIN)} counts).",
    )


def _real(record: StudyRecord) -> ClaimResult:
    """Not the papers' claim: whether more stands of CEB than of a plain network when the attacks are strong."""
    claim = "What CEB at ρ = 0 gains over the deterministic network survives a strong ensemble."
    ours, plain = cells_at(record, "ceb", 0.0), cells_at(record, "determ")
    if not ours:
        return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason="No run at ρ = 0 that did not collapse.")
    said, verdicts = [], []
    for curve, norm in (("ensemble linf", "ℓ∞"), ("ensemble l2", "ℓ2")):
        eps = ours[0]["modes"]["mean"]["curves"][curve]["eps"]
        leads = [difference(left(ours, curve, at), left(plain, curve, at)) for at in range(len(eps))]
        verdicts.append(exceeds(leads[0], 0.0))
        said.append(f"{norm} {eps[0]:g} leaves it {left(ours, curve, 0)}, {leads[0]} more than the plain network")
        said.append(f"{eps[-1]:g}, the ε of the targeted PGD, {left(ours, curve)}")
    return ClaimResult(
        claim=claim,
        verdict=all_of(verdicts),
        reason=f"The ensemble in {'; in '.join(said)}. A lead above 0 at the smallest ε of both norms counts.",
    )
