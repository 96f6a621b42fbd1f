"""What Fischer & Alemi 2020 say of 28×10 networks on CIFAR-10 (figures 2 and 3), each claim judged by the numbers."""

from __future__ import annotations

from dataclasses import replace

from isthmus.studies.ceb import cifar_claims, printed
from isthmus.studies.ceb.cifar_claims import NORMS, ball, eps_text, judged, under_pgd
from isthmus.studies.ceb.sweeps import cells_at, clean, left, places
from isthmus.studies.old.evidence import (
    ClaimResult,
    all_of,
    any_of,
    bonferroni,
    difference,
    exceeds,
    falls_below,
    percent,
    points,
    share,
    undecided,
)
from isthmus.studies.old.image_models import healthy
from isthmus.studies.old.study import StudyRecord

NEAR = 0.01
"""A difference of accuracy that counts as "about the same"; the paper's models lie within 1.2 points."""


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claims in their order, transfers, and what a strong ensemble adds."""
    found = [_low_collapses(record)]
    if not places(record, "ceb") or not healthy(record, objective="determ"):
        return [*found, undecided("CEB and deterministic networks.", "All of one or the other collapsed.")]
    return [
        *found,
        *(cifar_claims.rises(record, "ceb", norm) for norm in NORMS),
        *(_beats_plain(record, norm) for norm in NORMS),
        cifar_claims.beats_madry(record, "ceb"),
        _as_accurate(record),
        _batch_norm(record),
        *([cifar_claims.rises(record, "ceb_bn", "linf")] if record.config["normed"] else []),
        _overtaken(record),
        *cifar_claims.transfers(record),
        *(cifar_claims.survives(record, "ceb", norm) for norm in NORMS),
    ]


def _low_collapses(record: StudyRecord) -> ClaimResult:
    limit = printed.CEB_28X10_TRAINS_FROM
    claim = f"Below ρ = {limit:g} CEB does not train and stays at chance; from there on it trains."
    runs = list(record.each(objective="ceb"))
    below, above = ([cell["collapsed"] for cell in runs if (cell["knob"] < limit) == side] for side in (True, False))
    if not below or not above:
        return undecided(claim, "There are runs on one side of it only.")
    seeds = len({cell["seed"] for cell in runs})
    stayed, trained = (
        replace(share([count], of), seeds=seeds)
        for count, of in ((sum(below), len(below)), (len(above) - sum(above), len(above)))
    )
    return ClaimResult(
        claim=claim,
        verdict=all_of([exceeds(part, 0.5) for part in (stayed, trained)]),
        reason=f"{sum(below)} of {len(below)} runs below it stayed at chance, and {len(above) - sum(above)} of "
        f"{len(above)} from it on trained; more than half of either counts, with 95% confidence.",
    )


def _beats_plain(record: StudyRecord, norm: str) -> ClaimResult:
    grid = judged(record, "ceb")
    level = bonferroni(len(grid))
    plain = under_pgd(record, cells_at(record, "determ"), norm, level)
    leads = {rho: difference(under_pgd(record, cells_at(record, "ceb", rho), norm, level), plain) for rho in grid}
    worst = min(grid, key=lambda rho: leads[rho].value)
    return ClaimResult(
        claim=f"CEB stands PGD in {NORMS[norm]} better than the deterministic network, at every ρ that trained.",
        verdict=all_of([exceeds(lead, 0.0) for lead in leads.values()]),
        reason=f"At {ball(record, norm)} {plain} of the deterministic network is left; CEB's least lead over "
        f"{len(grid)} values of ρ{_which(record)} is at {worst:g}, {leads[worst]}; above 0 at each counts.",
    )


def _which(record: StudyRecord) -> str:
    """Where some values of ρ have a single run, which says nothing about other seeds."""
    return "" if len(judged(record, "ceb")) == len(places(record, "ceb")) else " with several runs"


def _as_accurate(record: StudyRecord) -> ClaimResult:
    grid = judged(record, "ceb")
    level = bonferroni(len(grid))
    plain = clean(cells_at(record, "determ"), level)
    gaps = {rho: difference(clean(cells_at(record, "ceb", rho), level), plain) for rho in grid}
    far = max(grid, key=lambda rho: abs(gaps[rho].value))
    within = [part for gap in gaps.values() for part in (exceeds(gap, -NEAR), falls_below(gap, NEAR))]
    return ClaimResult(
        claim="CEB is about as accurate as the deterministic network, at every ρ that trained.",
        verdict=all_of(within),
        reason=f"That has {plain}; of {len(grid)} values of ρ{_which(record)} CEB is farthest from it at "
        f"{far:g}, by {gaps[far]}; "
        f"{points(NEAR)} either way count.",
    )


def _batch_norm(record: StudyRecord) -> ClaimResult:
    claim = "Batch normalisation makes the deterministic network more accurate and less robust in ℓ∞."
    plain, normed = cells_at(record, "determ"), cells_at(record, "determ_bn")
    if not normed:
        return undecided(claim, "Every run with batch normalisation collapsed, or there is none.")
    gain = difference(clean(normed), clean(plain))
    loss = difference(under_pgd(record, plain, "linf"), under_pgd(record, normed, "linf"))
    return ClaimResult(
        claim=claim,
        verdict=all_of([exceeds(gain, 0.0), exceeds(loss, 0.0)]),
        reason=f"It gains {gain} of accuracy and loses {loss} under PGD at {ball(record, 'linf')}; both above 0 count.",
    )


def _overtaken(record: StudyRecord) -> ClaimResult:
    """At ε above that of comparison; which ones the paper does not say."""
    rho = judged(record, "ceb")[-1]
    claim = f"At large ℓ2 radii the deterministic network stands PGD better than CEB at ρ = {rho:g}."
    start, grid = cifar_claims.position(record, "l2") + 1, record.config["l2"]
    if start >= len(grid):
        return undecided(claim, "No ε in ℓ2 is larger than that of comparison.")
    plain, ours = cells_at(record, "determ"), cells_at(record, "ceb", rho)
    level = bonferroni(len(grid) - start)
    leads = {}
    for at in range(start, len(grid)):
        each = [left(cells, "pgd l2", at) for cells in (plain, ours)]
        counts = [
            [cell["modes"]["mean"]["curves"]["pgd l2"]["standing"][at] for cell in cells] for cells in (plain, ours)
        ]
        leads[at] = difference(*(share(some, one.n, level) for some, one in zip(counts, each, strict=True)))
    best = max(leads, key=lambda at: leads[at].value)
    return ClaimResult(
        claim=claim,
        verdict=any_of([exceeds(lead, 0.0) for lead in leads.values()]),
        reason=f"Its largest lead at the {len(leads)} ε above {eps_text(grid[start - 1])} is at "
        f"{eps_text(grid[best])}, {leads[best]}, where "
        f"{percent(left(plain, 'pgd l2', best).value)} of it are left; above 0 at one of them counts (corrected for "
        "their number).",
    )
