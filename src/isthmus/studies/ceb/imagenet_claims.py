"""What the paper says of its ResNets on ImageNet, each claim judged by the numbers.

The paper trained one model of each kind. So these verdicts are about single models: the chance of images alone counts
where there is one seed, and with several seeds that of seeds as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from isthmus.studies.ceb.imagenet import VARIANTS
from isthmus.studies.ceb.imagenet_results import NUMBERS, cells_at, chosen, error, gain, places, variants, why
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
    trend,
)
from isthmus.studies.old.image_models import healthy
from isthmus.studies.old.study import StudyRecord

PGD = ("pgd_linf", "pgd_l2")
NOTHING, SOMETHING = 0.01, 0.10
"""Accuracies under PGD: "less than 1%" is the paper's; 10% lies below all that its ResNet-152 CEB models keep."""
ALIKE = 0.01
"""A gain smaller than this is none; the paper prints 152 and 152x2 within 0.2 points of each other."""


def shared(record: StudyRecord) -> list[ClaimResult]:
    """What is claimed of both depths, in all ways of training that were tried."""
    if not variants(record):
        reason = "In no way of training is there both a deterministic network and a CEB model that left chance."
        return [ClaimResult(claim="CEB beats its baselines.", verdict=Verdict.UNDECIDED, reason=reason)]
    return [*(_beats(record, name) for name in NUMBERS), _steps(record), _falls(record)]


def _beats(record: StudyRecord, name: str) -> ClaimResult:
    claim = f"CEB at the ρ of the best clean accuracy has a lower {NUMBERS[name]} than its baseline, everywhere."
    level = bonferroni(len(variants(record)))
    gains = {variant: gain(record, variant, name, level) for variant in variants(record)}
    known = {variant: value for variant, value in gains.items() if value is not None}
    if len(known) < len(gains):
        return unmeasured(record, claim, name)
    mean = _together(list(known.values()))
    each = "; ".join(f"{VARIANTS[variant]}: by {value}" for variant, value in known.items())
    return ClaimResult(
        claim=claim,
        verdict=_everywhere(list(known.values()), mean),
        reason=f"{each}. On average {mean}. It counts where each gain is above 0, and the whole interval of their "
        f"average; a gain whose own interval holds 0 may still be chance of the images.",
    )


def _together(gains: Sequence[Estimate]) -> Estimate:
    """The mean of gains on the same images: as wide as their mean width, since their chances may go together."""
    value, low, high = (fmean(getattr(one, part) for one in gains) for part in ("value", "low", "high"))
    n, seeds = min(one.n for one in gains), min(one.seeds for one in gains)
    return Estimate(value, low, high, n, seeds, gains[0].level, "points", gains[0].of_images)


def _everywhere(gains: Sequence[Estimate], mean: Estimate) -> Verdict:
    if Verdict.CONTRADICTED in [exceeds(one, 0.0) for one in gains]:
        return Verdict.CONTRADICTED
    together = exceeds(mean, 0.0)
    return together if together is not Verdict.SUPPORTED or all(one.value > 0 for one in gains) else Verdict.UNDECIDED


def _steps(record: StudyRecord) -> ClaimResult:
    claim = "Under corruptions and on ImageNet-A AutoAugment helps CEB, and twice the width helps further."
    steps = [(one, other) for one, other in (("plain", "autoaugment"), ("autoaugment", "wide"))]
    steps = [pair for pair in steps if set(pair) <= set(variants(record))]
    if not steps:
        return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason="A single way of training was tried.")
    said, verdicts = [], []
    for name in ("mce", "imagenet_a"):
        for pair in steps:
            before, after = (_ours(record, variant, name, bonferroni(2 * len(steps))) for variant in pair)
            if before is None or after is None:
                return unmeasured(record, claim, name)
            verdicts.append(exceeds(difference(before, after), 0.0))
            said.append(f"{NUMBERS[name]}, {VARIANTS[pair[1]]}: {difference(before, after)} less")
    reason = f"{'; '.join(said)}. Above 0 at each counts, at the chosen ρ."
    return ClaimResult(claim=claim, verdict=all_of(verdicts), reason=reason)


def _falls(record: StudyRecord) -> ClaimResult:
    claim = "Robustness to PGD falls as ρ rises."
    said, verdicts = [], []
    for variant in variants(record):
        runs = healthy(record, variant=variant, objective="ceb")
        for name in PGD:
            if why(runs, name):
                return unmeasured(record, claim, name)
            given = [(cell["seed"], cell["knob"], cell["errors"][name]) for cell in runs]
            measured = [(seed, rho, (each["value"], each["low"], each["high"])) for seed, rho, each in given]
            level = bonferroni(len(PGD) * len(variants(record)))
            slope = trend(measured, given[0][2]["n"], level) if given else None
            if slope is None:
                return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason="There are too few runs for a trend.")
            verdicts.append(exceeds(slope, 0.0))
            said.append(f"{VARIANTS[variant]}, {NUMBERS[name]}: {slope}")
    return ClaimResult(
        claim=claim,
        verdict=all_of(verdicts),
        reason=f"For each unit of ρ the error rises by: {'; '.join(said)}. Slopes above 0 count.",
    )


def none_stands(record: StudyRecord) -> ClaimResult:
    """ResNet-50: nothing is left by PGD, of any model."""
    models = [(variant, rho) for variant in variants(record) for rho in (None, *places(record, variant))]
    claim = f"PGD leaves every model less than {percent(NOTHING)} accuracy."
    left = {}
    for name in PGD:
        for variant, rho in models:
            kept = accuracy(record, variant, rho, name, bonferroni(len(PGD) * len(models)))
            if kept is None:
                return unmeasured(record, claim, name)
            left[name, variant, rho] = kept
    if not left:
        return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason="There is no model to judge.")
    most = max(left, key=lambda key: left[key].value)
    return ClaimResult(
        claim=claim,
        verdict=all_of([falls_below(one, NOTHING, least_seeds=1) for one in left.values()]),
        reason=f"The most is left of {named(*most[1:])}: {left[most]} ({NUMBERS[most[0]]}), of {len(models)} models; "
        f"below {percent(NOTHING)} at each counts. The claim is about these models.",
    )


def accuracy(record: StudyRecord, variant: str, rho: float | None, name: str, level: float = 0.95) -> Estimate | None:
    """What is left of a model, 1 less its error; None where that is not measured."""
    found = error(cells_at(record, variant, rho), name, level)
    if found is None:
        return None
    return replace(found, value=1 - found.value, low=1 - found.high, high=1 - found.low)


def _ours(record: StudyRecord, variant: str, name: str, level: float) -> Estimate | None:
    return error(cells_at(record, variant, chosen(record, variant)), name, level)


def named(variant: str, rho: float | None) -> str:
    """A model in words."""
    return f"{'the deterministic network' if rho is None else f'CEB at ρ = {rho:g}'} ({VARIANTS[variant]})"


def unmeasured(record: StudyRecord, claim: str, name: str) -> ClaimResult:
    """No verdict, since a number is missing, and why."""
    reason = next(filter(None, (why([cell], name) for cell in record.cells.values())), "no model of that kind")
    return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason=f"The {NUMBERS[name]} is not measured: {reason}.")
