"""Claims that the papers make of CIFAR-10 networks of either size, each judged by the numbers.

"Accuracy under PGD" is what is left at the ε of comparison, ``at_linf`` or ``at_l2`` of the study's options.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.studies.ceb import printed
from isthmus.studies.ceb.cifar_choice import MADRY
from isthmus.studies.ceb.sweeps import FAMILIES, cells_at, left, places
from isthmus.studies.old.evidence import (
    LEAST_SEEDS,
    ClaimResult,
    Estimate,
    all_of,
    any_of,
    bonferroni,
    difference,
    exceeds,
    falls_below,
    gap,
    per_unit,
    percent,
    points,
    share,
    trend,
    undecided,
)
from isthmus.studies.old.image_models import healthy, standing
from isthmus.studies.old.study import StudyRecord

NORMS = {"linf": "ℓ∞", "l2": "ℓ2"}
LOST = 0.05
"""A share of all images that an ensemble breaks beyond PGD, from which on PGD misled."""
MADRY_EPS = 8 / 255
"""Of the accuracy in ℓ∞ that Madry et al. print."""
Cells = Sequence[Mapping[str, Any]]


def position(record: StudyRecord, norm: str) -> int:
    """Where on a norm's grid models are compared."""
    grid: Sequence[float] = record.config[norm]
    return list(grid).index(record.config[f"at_{norm}"])


def ball(record: StudyRecord, norm: str) -> str:
    """The ε of comparison, such as "ℓ∞ ε = 8/255"."""
    return f"{NORMS[norm]} ε = {eps_text(record.config[f'at_{norm}'])}"


def eps_text(eps: float) -> str:
    """An ε as 255ths where it is a whole number of them, below 1."""
    whole = eps < 1 and abs(255 * eps - round(255 * eps)) < 1e-6
    return f"{round(255 * eps)}/255" if whole else f"{eps:g}"


def under_pgd(record: StudyRecord, cells: Cells, norm: str, level: float = 0.95) -> Estimate:
    """Accuracy under PGD at the ε of comparison, as a mean over seeds."""
    return left(cells, f"pgd {norm}", position(record, norm), level=level)


def judged(record: StudyRecord, kind: str) -> list[float]:
    """Values of ρ whose runs can be judged: with three that trained at least, or all where there is none such."""
    grid = places(record, kind)
    return [rho for rho in grid if len(cells_at(record, kind, rho)) >= LEAST_SEEDS] or grid


def rises(record: StudyRecord, kind: str, norm: str) -> ClaimResult:
    """Robustness rises as ρ falls: a trend over the runs of each seed that trained."""
    claim = f"{FAMILIES[kind]}'s accuracy under PGD in {NORMS[norm]} rises as ρ falls."
    runs = healthy(record, objective=kind)
    x, each = [cell["knob"] for cell in runs], [under_pgd(record, [cell], norm) for cell in runs]
    measured = [(cell["seed"], cell["knob"], (y.value, y.low, y.high)) for cell, y in zip(runs, each, strict=True)]
    slope = trend(measured, each[0].n) if runs else None
    if slope is None:
        return undecided(claim, "There are too few runs that trained for a trend.")
    ends = [under_pgd(record, cells_at(record, kind, rho), norm) for rho in (min(x), max(x))]
    return ClaimResult(
        claim=claim,
        verdict=falls_below(slope, 0.0),
        reason=f"At {ball(record, norm)} it changes with ρ by {per_unit(slope)}. At ρ = {min(x):g} it is "
        f"{ends[0]}, at ρ = {max(x):g} {ends[1]}; a slope below 0 counts.",
    )


def beats_madry(record: StudyRecord, kind: str) -> ClaimResult:
    """Some models stand ℓ∞ better than an adversarially trained network, whose accuracy is printed."""
    claim = f"Some {FAMILIES[kind]} models stand PGD in ℓ∞ better than Madry, which was trained on that attack."
    runs = healthy(record, objective=kind)
    if not comparable_to_madry(record) or not runs:
        of = f"What is printed of Madry is of CIFAR-10 at ℓ∞ {MADRY_EPS * 255:g}/255."
        return undecided(claim, of if runs else "Every run collapsed.")
    assert printed.MADRY.linf is not None
    at, level = position(record, "linf"), bonferroni(len(runs))
    each = [left([cell], "pgd linf", at) for cell in runs]
    sure = [share([round(one.value * one.n)], one.n, level) for one in each]
    best = max(range(len(runs)), key=lambda number: each[number].value)
    return ClaimResult(
        claim=claim,
        verdict=any_of([exceeds(one, printed.MADRY.linf, least_seeds=1) for one in sure]),
        reason=f"The best of {len(runs)} (ρ = {runs[best]['knob']:g}, seed {runs[best]['seed']}) keeps {sure[best]} "
        f"at {ball(record, 'linf')} under {record.config['steps']} steps; above {percent(printed.MADRY.linf)}, which "
        "Madry et al. print for 20 steps, counts.",
    )


def comparable_to_madry(record: StudyRecord) -> bool:
    """Whether PGD was asked where Madry's number is of: CIFAR-10, ε = 8/255 in ℓ∞."""
    at: float = record.config["at_linf"]
    return bool(record.config["data"] == "cifar10") and math.isclose(at, MADRY_EPS)


def survives(record: StudyRecord, kind: str, norm: str) -> ClaimResult:
    """Not the papers' claim: whether PGD's number is about what a strong ensemble leaves."""
    claim = f"At its smallest ρ, {FAMILIES[kind]}'s robustness in {NORMS[norm]} survives a strong ensemble."
    grid = judged(record, kind)
    if not grid:
        return undecided(claim, "Every run collapsed.")
    ours = cells_at(record, kind, grid[0])
    curves = [f"{name} {norm}" for name in ("same images", "ensemble")]
    weak, strong = (left(ours, curve) for curve in curves)
    weak_counts, strong_counts = (standing(ours, "mean", "curves", curve, "standing", -1) for curve in curves)
    lost = gap(weak_counts, strong_counts, weak.n)
    verdicts = [falls_below(lost, LOST)]
    reason = (
        f"At ρ = {grid[0]:g} and {ball(record, norm)} PGD leaves {weak}, the ensemble {strong} of the same images, "
        f"{lost} less; less than {points(LOST)} counts"
    )
    plain = cells_at(record, "determ")
    if plain:
        lead = difference(strong, left(plain, f"ensemble {norm}"))
        verdicts.append(exceeds(lead, 0.0))
        reason += f", if it also leaves more than of the deterministic network: it leaves {lead} more"
    return ClaimResult(claim=claim, verdict=all_of(verdicts), reason=f"{reason}.")


def transfers(record: StudyRecord) -> list[ClaimResult]:
    """The best model at the smallest ρ stands each transfer better than the attack on itself."""
    found = [_transfer(record, cell) for cell in record.cells.values() if "transfer" in cell]
    if record.config["madry"] is None:
        claim = f"It stands transfers from {MADRY} better than the attack on itself."
        found.append(undecided(claim, "Not measured: the option madry names no run folder."))
    return found


def direct(record: StudyRecord, transfer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The cell of the model that a transfer was tried on."""
    return healthy(record, **transfer["target"])[0]


def _transfer(record: StudyRecord, cell: Mapping[str, Any]) -> ClaimResult:
    said, verdicts = [], []
    for norm in NORMS:
        moved = share([cell["curves"][norm]["standing"][position(record, norm)]], cell["n"])
        lead = difference(moved, under_pgd(record, [direct(record, cell)], norm))
        verdicts.append(exceeds(lead, 0.0, least_seeds=1))
        said.append(f"At {ball(record, norm)} transfers leave {percent(moved.value)}, {lead} more than PGD on itself")
    return ClaimResult(
        claim=f"{cell['transfer']}: the model stands the transfer better than the attack on itself, in both norms.",
        verdict=all_of(verdicts),
        reason=f"{'. '.join(said)}. Above 0 counts.",
    )
