"""What the paper says of fault tolerance (section 4.4, figure 5), each claim judged by the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from isthmus.studies.old.evidence import (
    ClaimResult,
    Estimate,
    all_of,
    average,
    bits,
    bonferroni,
    difference,
    exceeds,
    falls_below,
    percent,
    pooled,
    share,
    undecided,
)
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion.printed import MODELS

NOISES = {"l2": "ℓ2 steps", "linf": "sign steps", "white": "white noise"}
GONE = 0.02
"""At most this accuracy counts as none."""
NEAR_CHANCE = 0.05
"""Within so much of chance an accuracy counts as chance."""
RISEN = 0.05
"""Bits by which information must rise again."""


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claims in its order."""
    if not record.cells:
        return [undecided("Fault tolerance.", "Nothing was measured.")]
    found = [
        _less_with_batch_norm(record),
        *(_to_nothing(record, noise) for noise in ("l2", "linf")),
        _to_chance(record),
        *(_returns(record, noise) for noise in ("l2", "linf")),
    ]
    weak = _too_weak(record)
    return [undecided(each.claim, f"{weak} {each.reason}") for each in found] if weak else found


def trained(record: StudyRecord, model: str) -> list[Mapping[str, Any]]:
    """Cells of a model, seed by seed."""
    return list(record.each(model=model))


def there(record: StudyRecord) -> list[str]:
    """Models that were measured, in the paper's order."""
    return [model for model in MODELS if trained(record, model)]


def kinds(record: StudyRecord) -> list[str]:
    """Kinds of noise that were measured."""
    return [noise for noise in NOISES if noise in next(iter(record.cells.values()))["noises"]]


def kept(record: StudyRecord, model: str, noise: str, level: float = 0.95) -> Estimate:
    """Mean over seeds of the share of H(Y) that is transmitted, averaged over the ratios."""
    cells = trained(record, model)
    return pooled([tuple(cell["noises"][noise]["kept"]) for cell in cells], cells[0]["n"], level)


def _too_weak(record: StudyRecord) -> str:
    """Why these models are no subjects for the claims; nothing where they are."""
    least = record.config["least_accuracy"]
    accuracies = {model: fmean(cell["test_accuracy"] for cell in trained(record, model)) for model in there(record)}
    weak = [f"{model} on {percent(value)}" for model, value in accuracies.items() if value < least]
    if not weak:
        return ""
    return (
        f"Models this weak say nothing of the claim: on test images right are {', '.join(weak)}; at least "
        f"{percent(least)} is needed."
    )


def _less_with_batch_norm(record: StudyRecord) -> ClaimResult:
    claim = "With batch normalisation (C) less is transmitted than without (B), under every noise at the same ratios."
    if not trained(record, "B") or not trained(record, "C"):
        return undecided(claim)
    level = bonferroni(len(kinds(record)))
    gaps = {noise: difference(*(kept(record, model, noise, level) for model in "BC")) for noise in kinds(record)}
    each = "; ".join(f"{NOISES[noise]}: {gap} less" for noise, gap in gaps.items())
    verdict = all_of([exceeds(gap, 0.0) for gap in gaps.values()])
    return ClaimResult(claim=claim, verdict=verdict, reason=f"Of H(Y), averaged over the ratios, C keeps by {each}.")


def _last_accuracy(record: StudyRecord, model: str, noise: str) -> Estimate:
    """With the level at which the intervals of all models hold at once."""
    cells, level = trained(record, model), bonferroni(len(there(record)))
    return share([round(cell["noises"][noise]["accuracy"][-1] * cell["n"]) for cell in cells], cells[0]["n"], level)


def _to_nothing(record: StudyRecord, noise: str) -> ClaimResult:
    claim = f"Unbounded {NOISES[noise]} leave no accuracy, so that no masked gradient explains what is transmitted."
    if noise not in kinds(record):
        return undecided(claim)
    found = {model: _last_accuracy(record, model, noise) for model in there(record)}
    each = ", ".join(f"{model} {percent(left.value)}" for model, left in found.items())
    verdict = all_of([falls_below(left, GONE) for left in found.values()])
    return ClaimResult(
        claim=claim, verdict=verdict, reason=f"At the least ratio: {each}; below {percent(GONE)} counts."
    )


def _to_chance(record: StudyRecord) -> ClaimResult:
    claim = "White noise leaves the accuracy of chance."
    if "white" not in kinds(record):
        return undecided(claim)
    chance = 2 ** -next(iter(record.cells.values()))["label_entropy_bits"]
    found = {model: _last_accuracy(record, model, "white") for model in there(record)}
    each = ", ".join(f"{model} {percent(left.value)}" for model, left in found.items())
    verdict = all_of([falls_below(left, chance + NEAR_CHANCE) for left in found.values()])
    reason = f"At the least ratio: {each}; below {percent(chance + NEAR_CHANCE)} counts."
    return ClaimResult(claim=claim, verdict=verdict, reason=reason)


def _returns(record: StudyRecord, noise: str) -> ClaimResult:
    """Information rises again at the least ratios: the wrong class depends on the right one."""
    claim = f"Under {NOISES[noise]} information rises again as the ratio falls to 0: what is left is the adversary's."
    model = "B" if trained(record, "B") else there(record)[0]
    if noise not in kinds(record):
        return undecided(claim)
    courses = [cell["noises"][noise]["information_bits"] for cell in trained(record, model)]
    risen = average([course[-1] - min(course) for course in courses], unit="bits")
    least = bits(fmean(min(course) for course in courses))
    return ClaimResult(
        claim=claim,
        verdict=exceeds(risen, RISEN),
        reason=f"Model {model} transmits {least} where it transmits least, and {risen} more at the least ratio; above "
        f"{bits(RISEN)} counts.",
    )
