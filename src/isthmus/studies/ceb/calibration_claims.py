"""What Fischer 2020 says of calibration (section 3.1.4, figure 5), each claim judged by the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.studies.ceb.printed_detection import CEB_0, DETERM, VIB_0, Model
from isthmus.studies.ceb.sweeps import cells_at, named
from isthmus.studies.old.evidence import (
    ClaimResult,
    Estimate,
    Verdict,
    all_of,
    bonferroni,
    difference,
    exceeds,
    falls_below,
    percent,
    points,
    pooled,
    undecided,
)
from isthmus.studies.old.image_models import healthy
from isthmus.studies.old.study import StudyRecord

VIB_2: Model = ("vib", 2.0)
NEARLY_PERFECT = 0.03
"""At most this expected calibration error counts as nearly perfect."""


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claims in its order."""
    steps = kept_steps(record)
    if len(steps) < 2:
        reason = "Models were not judged after two steps at least."
        return [ClaimResult(claim="Calibration while training.", verdict=Verdict.UNDECIDED, reason=reason)]
    return [
        *(_from_under_to_over(record, model) for model in models(record)),
        *(_slightly(record, model) for model in (CEB_0, VIB_0)),
        _rho_2(record),
        *(_still_calibrated(record, model) for model in (CEB_0, VIB_0)),
    ]


def models(record: StudyRecord) -> list[Model]:
    """Those that are measured, bottlenecks first, as the figure has them."""
    found = list(dict.fromkeys((cell["objective"], cell["knob"]) for cell in healthy(record)))
    return [model for model in found if model != DETERM] + [model for model in found if model == DETERM]


def kept_steps(record: StudyRecord) -> list[int]:
    """The steps that models were judged after, ascending."""
    return sorted({each["step"] for cell in healthy(record) for each in cell["steps"]})


def judged(record: StudyRecord, model: Model, step: int) -> list[Mapping[str, Any]]:
    """What was measured of a model after a step, seed by seed."""
    return [each for cell in cells_at(record, *model) for each in cell["steps"] if each["step"] == step]


def measured(record: StudyRecord, model: Model, step: int, name: str, level: float = 0.95) -> Estimate | None:
    """Mean over seeds of "ece" or "overconfidence" after a step; None where there is no such model."""
    found = [tuple(each[name]) for each in judged(record, model, step)]
    if not found:
        return None
    return pooled(found, cells_at(record, *model)[0]["n"], level, lowest=-1.0 if name == "overconfidence" else 0.0)


def _from_under_to_over(record: StudyRecord, model: Model) -> ClaimResult:
    claim = f"{at_the_beginning(model)} moves from under- to overconfidence while it trains."
    steps, level = kept_steps(record), bonferroni(2)
    first, last = (measured(record, model, step, "overconfidence", level) for step in (steps[0], steps[-1]))
    if first is None or last is None:
        return undecided(claim, "Not measured, or every run collapsed.")
    return ClaimResult(
        claim=claim,
        verdict=all_of([falls_below(first, 0.0), exceeds(last, 0.0)]),
        reason=f"Mean confidence less accuracy is {_signed(first)} after {steps[0]:,} steps and {_signed(last)} after "
        f"{steps[-1]:,}; below and above 0 counts.",
    )


def _slightly(record: StudyRecord, model: Model) -> ClaimResult:
    claim = f"{at_the_beginning(model)} ends up less overconfident than the deterministic network."
    last = kept_steps(record)[-1]
    ours, plain = (measured(record, each, last, "overconfidence") for each in (model, DETERM))
    if ours is None or plain is None:
        return undecided(claim, "Not measured, or every run collapsed.")
    gap = difference(plain, ours)
    return ClaimResult(
        claim=claim,
        verdict=exceeds(gap, 0.0),
        reason=f"By {gap}: {points(ours.value)} against {points(plain.value)} after {last:,} steps; above 0 counts.",
    )


def _rho_2(record: StudyRecord) -> ClaimResult:
    claim = "At ρ = 2 VIB is nearly as overconfident as the deterministic network: nearer to it than to VIB, ρ = 0."
    last = kept_steps(record)[-1]
    found = [measured(record, each, last, "overconfidence") for each in (VIB_2, VIB_0, DETERM)]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return undecided(claim, "Not measured, or every run collapsed.")
    ours, tight, plain = known
    lead = difference(difference(ours, tight), difference(plain, ours))
    return ClaimResult(
        claim=claim,
        verdict=exceeds(lead, 0.0),
        reason=f"Overconfidence after {last:,} steps: {points(ours.value)}, against {points(tight.value)} at ρ = 0 "
        f"and {points(plain.value)} of the deterministic network. The first gap exceeds the second by {lead}; above 0 "
        "counts.",
    )


def _still_calibrated(record: StudyRecord, model: Model) -> ClaimResult:
    steps = kept_steps(record)
    middle = steps[len(steps) // 2]
    claim = f"{at_the_beginning(model)} is still nearly perfectly calibrated midway."
    error = measured(record, model, middle, "ece")
    if error is None:
        return undecided(claim, "Not measured, or every run collapsed.")
    return ClaimResult(
        claim=claim,
        verdict=falls_below(error, NEARLY_PERFECT),
        reason=f"After {middle:,} steps its expected calibration error is {error}; below {percent(NEARLY_PERFECT)} "
        "counts.",
    )


def _signed(estimate: Estimate) -> str:
    ends = ", ".join(points(each, unit=False) for each in (estimate.low, estimate.high))
    return f"{points(estimate.value)} ({ends})"


def at_the_beginning(model: Model) -> str:
    """A model at the beginning of a sentence."""
    return "The deterministic network" if model == DETERM else named(*model)
