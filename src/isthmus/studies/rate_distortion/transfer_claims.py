"""What the paper says of transfer to other digits (appendix C, figure 7), each claim judged by the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.studies.old.evidence import (
    ClaimResult,
    Estimate,
    all_of,
    difference,
    exceeds,
    falls_below,
    percent,
    points,
    pooled,
    undecided,
)
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion.printed import MODELS

ZERO_SHOT, ONE_SHOT = 0.726, 0.776
"""Printed accuracies, SVHN to MNIST."""
FAR = 0.5
"""Above it an accuracy counts as far better than chance."""
MATCHED = 0.05
"""Within so much of each other mean margin and accuracy count as equal."""
CALIBRATED = 0.1
"""An expected calibration error of the margin below it counts as reasonably small."""


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claims in its order, about model B+ (or B, or the first there is)."""
    if not record.cells:
        return [undecided("Transfer.", "Nothing was measured.")]
    models = there(record)
    model = next((each for each in ("B+", "B") if each in models), models[0])
    return [
        _above_chance(record, model),
        _one_shot_helps(record, model),
        _matched(record, model),
        _calibrated(record, model),
        _less_confident(record, model),
    ]


def trained(record: StudyRecord, model: str) -> list[Mapping[str, Any]]:
    """Cells of a model, seed by seed."""
    return list(record.each(model=model))


def there(record: StudyRecord) -> list[str]:
    """Models that were measured, in the paper's order."""
    return [model for model in MODELS if trained(record, model)]


def measured(record: StudyRecord, model: str, name: str) -> Estimate | None:
    """Mean over seeds of one of the check's numbers; None where it was not measured for all."""
    cells = trained(record, model)
    values = [cell["metrics"].get(name) for cell in cells]
    if not values or not all(values):
        return None
    signed = name.endswith(("gain", "overconfidence"))
    return pooled([tuple(value) for value in values], cells[0]["n"], lowest=-1.0 if signed else 0.0)


def _above_chance(record: StudyRecord, model: str) -> ClaimResult:
    claim = f"Zero-shot, model {model} tells the other digits far better than chance ({percent(ZERO_SHOT)} printed)."
    found = measured(record, model, "zero_shot_accuracy")
    if found is None:
        return undecided(claim)
    reason = f"It is right on {found}; above {percent(FAR)} counts."
    return ClaimResult(claim=claim, verdict=exceeds(found, FAR), reason=reason)


def _one_shot_helps(record: StudyRecord, model: str) -> ClaimResult:
    claim = f"One example of each class makes it more accurate (by {points(ONE_SHOT - ZERO_SHOT)} in print)."
    gain, after = (measured(record, model, f"one_shot_{name}") for name in ("gain", "accuracy"))
    if gain is None or after is None:
        return undecided(claim)
    reason = f"By {points(gain.value)} ({points(gain.low, unit=False)} to {points(gain.high)}), to {after}."
    return ClaimResult(claim=claim, verdict=exceeds(gain, 0.0), reason=reason)


def _matched(record: StudyRecord, model: str) -> ClaimResult:
    claim = "Zero-shot, the mean margin is the accuracy."
    found = measured(record, model, "zero_shot_overconfidence")
    if found is None:
        return undecided(claim)
    return ClaimResult(
        claim=claim,
        verdict=all_of([exceeds(found, -MATCHED), falls_below(found, MATCHED)]),
        reason=f"It is larger by {_points(found)}; within {points(MATCHED)} counts.",
    )


def _calibrated(record: StudyRecord, model: str) -> ClaimResult:
    claim = "Margins are reasonably well calibrated, zero- and one-shot."
    errors = {shot: measured(record, model, f"{shot}_margin_error") for shot in ("zero_shot", "one_shot")}
    known = {shot: error for shot, error in errors.items() if error is not None}
    if not known:
        return undecided(claim)
    each = " and ".join(f"{error} {shot.replace('_', '-')}" for shot, error in known.items())
    return ClaimResult(
        claim=claim,
        verdict=all_of([falls_below(error, CALIBRATED) for error in known.values()]),
        reason=f"The expected calibration error is {each}; below {percent(CALIBRATED)} counts.",
    )


def _less_confident(record: StudyRecord, model: str) -> ClaimResult:
    claim = "One example of each class takes over-confidence away, down to a little under-confidence."
    before, after = (measured(record, model, f"{shot}_overconfidence") for shot in ("zero_shot", "one_shot"))
    if before is None or after is None:
        return undecided(claim)
    return ClaimResult(
        claim=claim,
        verdict=all_of([falls_below(difference(after, before), 0.0), falls_below(after, 0.0)]),
        reason=f"Mean margin less accuracy is {_points(before)} zero-shot and {_points(after)} one-shot.",
    )


def _points(found: Estimate) -> str:
    return f"{points(found.value)} ({found.reach(points(found.low, unit=False), points(found.high))})"
