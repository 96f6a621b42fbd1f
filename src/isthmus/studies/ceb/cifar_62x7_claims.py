"""What the papers say of 62×7 networks on CIFAR-10 (figure 3, and figure 6 of Fischer 2020), judged by the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.studies.ceb import cifar_claims
from isthmus.studies.ceb.cifar_claims import NORMS
from isthmus.studies.ceb.cifar_shown import shifted, why_absent
from isthmus.studies.ceb.sweeps import cells_at, clean, places
from isthmus.studies.old.evidence import (
    LEAST_SEEDS,
    ClaimResult,
    Estimate,
    Verdict,
    difference,
    exceeds,
    falls_below,
    percent,
    points,
    pooled,
    share,
    undecided,
)
from isthmus.studies.old.study import StudyRecord


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The papers' claims in their order, and what a strong ensemble adds."""
    family = record.config["families"][0]
    low, high = (choose(record.config["rhos"]) for choose in (min, max))
    both = {low, high} <= set(places(record, family)) and low < high
    return [
        _trains(record, family, low),
        *([_more_accurate(record, family, low, high)] if both else []),
        *(_on_new_images(record, family, low, high, name) for name in _new_sets(record) if both),
        *([_corrupted(record, family, low, high)] if both and "cifar10_c" in _names(record) else []),
        *(cifar_claims.rises(record, family, norm) for norm in NORMS),
        cifar_claims.beats_madry(record, family),
        *cifar_claims.transfers(record),
        *(cifar_claims.survives(record, family, norm) for norm in NORMS),
    ]


def _names(record: StudyRecord) -> list[str]:
    return list(dict.fromkeys(cell["shift"] for cell in record.cells.values() if "shift" in cell))


def _new_sets(record: StudyRecord) -> list[str]:
    return [name for name in _names(record) if name.startswith("cifar10_1")]


def _trains(record: StudyRecord, family: str, low: float) -> ClaimResult:
    """One run that trains shows that it can be done; three that do not say that it cannot like this."""
    runs = list(record.each(objective=family, knob=low))
    trained = cells_at(record, family, low)
    none = Verdict.CONTRADICTED if len(runs) >= LEAST_SEEDS else Verdict.UNDECIDED
    accuracy = f", to {clean(trained)}" if trained else ""
    return ClaimResult(
        claim=f"A network of this size trains at ρ = {low:g}.",
        verdict=Verdict.SUPPORTED if trained else none,
        reason=f"{len(trained)} of {len(runs)} runs left chance{accuracy}; one counts.",
    )


def _more_accurate(record: StudyRecord, family: str, low: float, high: float) -> ClaimResult:
    one, other = (clean(cells_at(record, family, rho)) for rho in (low, high))
    lead = difference(one, other)
    return ClaimResult(
        claim=f"ρ = {low:g} is more accurate than ρ = {high:g}.",
        verdict=exceeds(lead, 0.0),
        reason=f"By {lead}, from {percent(other.value)} to {percent(one.value)}; above 0 counts.",
    )


def _on_new_images(record: StudyRecord, family: str, low: float, high: float, name: str) -> ClaimResult:
    claim = f"ρ = {low:g} generalises to {name} better than ρ = {high:g}: the accuracy falls by less."
    cells = [shifted(record, name, family, rho) for rho in (low, high)]
    if not all(cells):
        return undecided(claim, f"Not measured: {why_absent(record, name)}")
    new = [share([cell["right"] for cell in some], some[0]["n"]) for some in cells]
    old = [_before(record, family, rho, some) for rho, some in zip((low, high), cells, strict=True)]
    falls = [difference(before, after) for before, after in zip(old, new, strict=True)]
    gain = difference(falls[1], falls[0])
    return ClaimResult(
        claim=claim,
        verdict=exceeds(gain, 0.0),
        reason=f"It falls to {new[0]} and {new[1]}, by {points(falls[0].value)} and {points(falls[1].value)}: by "
        f"{gain} less; above 0 counts.",
    )


def _before(record: StudyRecord, family: str, rho: float, shifted_cells: Sequence[Mapping[str, Any]]) -> Estimate:
    """Accuracy on the usual test set of the very runs that were tested on another."""
    seeds = {cell["seed"] for cell in shifted_cells}
    return clean([cell for cell in cells_at(record, family, rho) if cell["seed"] in seeds])


def _corrupted(record: StudyRecord, family: str, low: float, high: float) -> ClaimResult:
    claim = f"ρ = {low:g} errs less under common corruptions (CIFAR-10-C) than ρ = {high:g}."
    cells = [shifted(record, "cifar10_c", family, rho) for rho in (low, high)]
    if not all(cells):
        return undecided(claim, f"Not measured: {why_absent(record, 'cifar10_c')}")
    one, other = (mean_error(some) for some in cells)
    less = difference(one, other)
    return ClaimResult(
        claim=claim,
        verdict=falls_below(less, 0.0),
        reason=f"Mean errors over corruptions and severities are {one} and {other}, which differ by {less}; below 0 "
        "counts. The papers' mCE divide by a baseline that is not printed.",
    )


def mean_error(cells: Sequence[Mapping[str, Any]]) -> Estimate:
    """Mean over seeds of the error under corruption; the images' bootstrap and the seeds' t, squared and added."""
    return pooled([(cell["average"], *cell["interval"]) for cell in cells], cells[0]["n"])
