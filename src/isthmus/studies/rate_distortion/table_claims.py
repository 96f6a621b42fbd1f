"""What the paper says of its two tables, each claim judged by the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.studies.old.evidence import (
    ClaimResult,
    Estimate,
    all_of,
    bonferroni,
    exceeds,
    falls_below,
    percent,
    points,
    undecided,
)
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion.printed import MORE_ACCURATE, Model
from isthmus.studies.rate_distortion.readings import GAP, TEST, Signs, accuracy, batches, lead, trained
from isthmus.studies.rate_distortion.weight_decay import ABOVE_CHANCE, MEMORISED

FITTED = 0.99
"""A training accuracy from which on the labels are fitted; printed is 100 ± 0%."""
SMALL = 0.05
"""Below it a difference between the gaps of two batch sizes counts as none; printed are 0.6 and 3 points."""
LARGE = 0.1
"""Above it one counts as large; printed are 25 points."""


def original(record: StudyRecord) -> list[ClaimResult]:
    """Of table 1."""
    return [
        _learned(record, "A", "fits the training set", FITTED),
        *(_narrower(record, other) for other in ("A", "C")),
        _most_accurate(record),
        _no_large_batch_gap(record, "B"),
        *([_more_images(record)] if any(record.each(model="B+")) else []),
        _large_batch_gap(record, "C", 0.0, "With batch normalisation a small large-batch gap appears in C."),
    ]


def random(record: StudyRecord) -> list[ClaimResult]:
    """Of table 2."""
    return [
        _learned(record, "A", "memorises random labels", MEMORISED),
        _at_chance(record),
        _narrower(record, "C", LARGE),
        _large_batch_gap(record, "C", LARGE, "On random labels C has a large-batch gap: larger batches memorise more."),
        _no_large_batch_gap(record, "A"),
    ]


def _everywhere(record: StudyRecord, model: Model, split: str) -> dict[int, Estimate]:
    """Accuracy at each batch size; all intervals hold at once."""
    level, found = bonferroni(len(batches(record))), {}
    for batch in batches(record):
        cells = trained(record, model, batch)
        if cells:
            found[batch] = accuracy(cells, split, level)
    return found


def _listed(found: Mapping[int, Estimate]) -> str:
    return ", ".join(
        f"{percent(each.value)} ({percent(each.low, unit=False)} to {percent(each.high)}) with batches of {batch}"
        for batch, each in found.items()
    )


def _learned(record: StudyRecord, model: Model, what: str, limit: float) -> ClaimResult:
    claim = f"Model {model} {what}."
    found = _everywhere(record, model, "train")
    if not found:
        return undecided(claim)
    verdict = all_of([exceeds(each, limit) for each in found.values()])
    reason = f"Training accuracy: {_listed(found)}; above {percent(limit)} counts."
    return ClaimResult(claim=claim, verdict=verdict, reason=reason)


def _at_chance(record: StudyRecord) -> ClaimResult:
    claim = "With weight decay alone (B) random labels are not fitted better than chance."
    found = _everywhere(record, "B", "train")
    if not found:
        return undecided(claim)
    cell = next(record.each(model="B"))
    constant = cell["constant"] / cell["train"][1]
    limit = constant + ABOVE_CHANCE
    verdict = all_of([falls_below(each, limit) for each in found.values()])
    reason = (
        f"Training accuracy: {_listed(found)}; below {percent(limit)} counts. The best constant answer is right on "
    )
    reason += f"{percent(constant)}."
    return ClaimResult(claim=claim, verdict=verdict, reason=reason)


def _narrower(record: StudyRecord, other: Model, margin: float | None = None) -> ClaimResult:
    """B's gap against another model's, at each batch size."""
    limit = record.config["margin"] if margin is None else margin
    claim = f"Weight decay narrows the generalisation gap: B's is at least {points(limit)} smaller than {other}'s."
    return _each_batch(record, claim, (other, "B"), GAP, limit, "B's gap is smaller by")


def _most_accurate(record: StudyRecord) -> ClaimResult:
    claim = "B is more accurate on test images than A."
    return _each_batch(record, claim, ("B", "A"), TEST, 0.0, "It is more accurate by")


def _more_images(record: StudyRecord) -> ClaimResult:
    claim = f"More images to train on (B+) make B more accurate, by {points(MORE_ACCURATE.value)} in print."
    return _each_batch(record, claim, ("B+", "B"), TEST, 0.0, "It is more accurate by")


def _each_batch(
    record: StudyRecord, claim: str, pair: tuple[Model, Model], of: Signs, limit: float, said: str
) -> ClaimResult:
    level, found = bonferroni(len(batches(record))), {}
    for batch in batches(record):
        first, second = (trained(record, model, batch) for model in pair)
        step = lead(first, second, of, level)
        if step is not None:
            found[batch] = step
    if not found:
        return undecided(claim)
    each = "; ".join(f"{step} with batches of {batch}" for batch, step in found.items())
    verdict = all_of([exceeds(step, limit) for step in found.values()])
    return ClaimResult(claim=claim, verdict=verdict, reason=f"{said} {each}; above {points(limit)} at each counts.")


def _ends(record: StudyRecord, model: Model) -> tuple[list[int], Sequence[Any], Sequence[Any]]:
    sizes = [batch for batch in batches(record) if trained(record, model, batch)]
    if len(sizes) < 2:
        return sizes, [], []
    return sizes, trained(record, model, sizes[0]), trained(record, model, sizes[-1])


def _no_large_batch_gap(record: StudyRecord, model: Model) -> ClaimResult:
    claim = f"Model {model} has no large-batch generalisation gap."
    sizes, large, small = _ends(record, model)
    step = lead(large, small, GAP) if large else None
    if step is None:
        return undecided(claim)
    verdict = all_of([falls_below(step, SMALL), exceeds(step, -SMALL)])
    reason = f"Its gap with batches of {sizes[0]} exceeds that with {sizes[-1]} by {step}; "
    return ClaimResult(claim=claim, verdict=verdict, reason=f"{reason}within {points(SMALL)} of 0 counts.")


def _large_batch_gap(record: StudyRecord, model: Model, limit: float, claim: str) -> ClaimResult:
    sizes, large, small = _ends(record, model)
    step = lead(large, small, GAP) if large else None
    if step is None:
        return undecided(claim)
    reason = (
        f"Its gap with batches of {sizes[0]} exceeds that with {sizes[-1]} by {step}; above {points(limit)} counts."
    )
    return ClaimResult(claim=claim, verdict=exceeds(step, limit), reason=reason)
