"""What the paper says of sphere packing (appendix A), each claim judged by the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from isthmus.studies.old.evidence import ClaimResult, all_of, average, bits, exceeds, undecided
from isthmus.studies.old.study import StudyRecord

TINY = 1e-12
"""What stands for no power at all, of a layer that has died."""
VARIANTS = {"a": "plain", "b": "batch normalisation", "c": "batch normalisation without scale"}
Quantity = Callable[[Mapping[str, Any]], float]


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claims in its order."""
    if not trained(record, "a"):
        return [undecided("Sphere packing.", "Nothing was measured.")]
    return [
        _spreads_then_contracts(record),
        _rounder(record, "a"),
        _more(record, ("b", "a"), carried, "Batch normalisation leaves more excess capacity."),
        _rounder_than(record, ("c", "b")),
        _more(record, ("c", "a"), carried, "Without the scale the excess capacity remains."),
    ]


def trained(record: StudyRecord, variant: str) -> list[Mapping[str, Any]]:
    """Cells of one variant, seed by seed."""
    return list(record.each(variant=variant))


def carried(look: Mapping[str, Any]) -> float:
    """Bits that the two neurons carry as a Gaussian channel: its power is the codes' variance, its noise that within
    classes. What exceeds the labels' entropy, which is the same everywhere, is excess capacity.

    Raises:
        ValueError: a layer without any noise.
    """
    capacity = look["capacity_bits"]
    if capacity is None:
        raise ValueError("a layer without noise has no finite capacity")
    return 2.0 * float(capacity)


def _lead(record: StudyRecord, pair: tuple[str, str], of: Quantity) -> tuple[list[float], list[float]]:
    others = {cell["seed"]: cell for cell in trained(record, pair[1])}
    both = [(cell, others[cell["seed"]]) for cell in trained(record, pair[0]) if cell["seed"] in others]
    return [of(first["looks"][-1]) for first, _ in both], [of(second["looks"][-1]) for _, second in both]


def _spreads_then_contracts(record: StudyRecord) -> ClaimResult:
    """Power rises from the untrained network to some look, and is smaller again at the last."""
    powers = [[max(look["power"], TINY) for look in cell["looks"]] for cell in trained(record, "a")]
    ends = [[math.log10(max(power) / power[at]) for power in powers] for at in (0, -1)]
    steps = [average(values, unit="decades") for values in ends]
    return ClaimResult(
        claim="The data first spread, then power is reduced.",
        verdict=all_of([exceeds(step, 0.0) for step in steps]),
        reason=f"From the untrained network the layer's power rises by {steps[0]} to its greatest value, and falls "
        f"from there by {steps[1]} to the end; above 0 counts.",
    )


def _rounder(record: StudyRecord, variant: str) -> ClaimResult:
    """Between the first look after training began and the last."""
    steps = [cell["looks"][-1]["roundness"] - cell["looks"][1]["roundness"] for cell in trained(record, variant)]
    found = average(steps, unit="points")
    return ClaimResult(
        claim="Clusters become more circular.",
        verdict=exceeds(found, 0.0),
        reason=f"Their smaller width over their larger grows by {found} between the first look and the last; above 0 "
        "counts.",
    )


def _rounder_than(record: StudyRecord, pair: tuple[str, str]) -> ClaimResult:
    claim = "Without the scale clusters are more circular than with it."
    first, second = _lead(record, pair, lambda look: float(look["roundness"]))
    if not first:
        return undecided(claim)
    found = average([a - b for a, b in zip(first, second, strict=True)], unit="points")
    return ClaimResult(claim=claim, verdict=exceeds(found, 0.0), reason=f"More by {found} in the end; above 0 counts.")


def _more(record: StudyRecord, pair: tuple[str, str], of: Quantity, claim: str) -> ClaimResult:
    first, second = _lead(record, pair, of)
    if not first:
        return undecided(claim)
    found = average([a - b for a, b in zip(first, second, strict=True)], unit="bits")
    return ClaimResult(
        claim=claim,
        verdict=exceeds(found, 0.0),
        reason=f"In the end the two neurons carry {bits(fmean(first))} as a Gaussian channel, those of the plain "
        f"network {bits(fmean(second))}; more by {found}; above 0 counts.",
    )
