"""What the paper says of the gradients' signal-to-noise ratio (section 4.1), each claim judged by the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from isthmus.studies.old.evidence import (
    ClaimResult,
    all_of,
    average,
    bonferroni,
    decades,
    exceeds,
    falls_below,
    undecided,
)
from isthmus.studies.old.study import StudyRecord

SETTLED = 0.05
"""Decades by which a ratio may still move from the next to last tenth of training to the last, to be constant."""
NETWORKS = (("relu", False), ("tanh", False), ("relu", True), ("tanh", True))

Network = tuple[str, bool]


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claims in its order."""
    if not record.cells:
        return [undecided("Gradients settle.", "Nothing was measured.")]
    return [
        *(_settles(record, network) for network in NETWORKS if networks(record, network)),
        *(_sooner(record, activation) for activation in ("relu", "tanh")),
        *(_collapse(record, activation) for activation in ("relu", "tanh")),
        *(_least_moved(record, activation) for activation in ("relu", "tanh")),
    ]


def networks(record: StudyRecord, network: Network) -> list[Mapping[str, Any]]:
    """Cells of one kind of network, seed by seed."""
    return list(record.each(activation=network[0], batch_norm=network[1]))


def named(network: Network) -> str:
    """Such as "tanh, batch norm"."""
    return f"{'ReLU' if network[0] == 'relu' else 'tanh'}{', batch norm' * network[1]}"


def courses(cell: Mapping[str, Any]) -> dict[str, list[float]]:
    """log10 of each layer's ratio over epochs, from the input on; what is not measured or zero is left out."""
    return {
        layer: [math.log10(value) for value in parts["snr"] if value is not None and value > 0]
        for layer, parts in cell["layers"].items()
    }


def level(course: Sequence[float], start: float, stop: float) -> float:
    """Mean over a part of training, such as from 0.9 to 1.0."""
    part = course[int(start * len(course)) : max(int(stop * len(course)), int(start * len(course)) + 1)]
    return fmean(part)


def settled_at(cell: Mapping[str, Any]) -> float:
    """From which share of training on every layer stays within a quarter decade of its last level, smoothed."""
    latest = 0
    for course in courses(cell).values():
        smooth = [fmean(course[max(0, at - 2) : at + 3]) for at in range(len(course))]
        end = level(course, 0.9, 1.0)
        away = [at for at, value in enumerate(smooth) if abs(value - end) > 0.25]
        latest = max(latest, away[-1] + 1 if away else 0)
    return latest / max(len(next(iter(courses(cell).values()))), 1)


def spread(cell: Mapping[str, Any]) -> float:
    """Decades between the largest and the smallest last level of the hidden layers."""
    ends = [level(course, 0.9, 1.0) for course in list(courses(cell).values())[:-1]]
    return max(ends) - min(ends)


def moved(cell: Mapping[str, Any]) -> list[float]:
    """Decades between each layer's first and last level."""
    return [abs(level(course, 0.0, 0.05) - level(course, 0.9, 1.0)) for course in courses(cell).values()]


def _settles(record: StudyRecord, network: Network) -> ClaimResult:
    claim = f"{named(network)}: the ratio of every layer approaches a constant."
    steps: dict[str, list[float]] = {}
    for cell in networks(record, network):
        for layer, course in courses(cell).items():
            steps.setdefault(layer, []).append(abs(level(course, 0.9, 1.0) - level(course, 0.8, 0.9)))
    found = {layer: average(values, bonferroni(len(steps)), "decades") for layer, values in steps.items()}
    worst = max(found, key=lambda layer: found[layer].value)
    return ClaimResult(
        claim=claim,
        verdict=all_of([falls_below(each, SETTLED) for each in found.values()]),
        reason=f"Between the last two tenths of training layer {worst} moves most, by {found[worst]}; below "
        f"{decades(SETTLED)} in each layer counts.",
    )


def _pairs(record: StudyRecord, activation: str) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Networks of equal seeds, without and with batch normalisation."""
    normed = {cell["seed"]: cell for cell in networks(record, (activation, True))}
    plain = networks(record, (activation, False))
    return [(cell, normed[cell["seed"]]) for cell in plain if cell["seed"] in normed]


def _sooner(record: StudyRecord, activation: str) -> ClaimResult:
    claim = f"{named((activation, False))}: with batch normalisation the ratios settle sooner."
    pairs = _pairs(record, activation)
    if not pairs:
        return undecided(claim)
    shares = [tuple(map(settled_at, pair)) for pair in pairs]
    step = average([plain - normed for plain, normed in shares], unit="points")
    epochs = pairs[0][0]["epochs"][-1]
    first, second = (fmean(each) * epochs for each in zip(*shares, strict=True))
    return ClaimResult(
        claim=claim,
        verdict=exceeds(step, 0.0),
        reason=f"All layers stay within a quarter decade of their last level from epoch {first:.0f} of {epochs:,} on, "
        f"with batch normalisation from {second:.0f}; {step} of training earlier; above 0 counts.",
    )


def _collapse(record: StudyRecord, activation: str) -> ClaimResult:
    claim = f"{named((activation, False))}: layers end at different levels, which collapse with batch normalisation."
    pairs = _pairs(record, activation)
    if not pairs:
        return undecided(claim)
    spreads = [tuple(map(spread, pair)) for pair in pairs]
    step = average([plain - normed for plain, normed in spreads], unit="decades")
    first, second = (fmean(each) for each in zip(*spreads, strict=True))
    return ClaimResult(
        claim=claim,
        verdict=exceeds(step, 0.0),
        reason=f"Hidden layers end within {decades(first)}, with batch normalisation within {decades(second)}; less "
        f"by {step}; above 0 counts.",
    )


def _least_moved(record: StudyRecord, activation: str) -> ClaimResult:
    claim = f"{named((activation, False))}, without batch normalisation: the last layer's ratio falls least."
    cells = networks(record, (activation, False))
    if not cells:
        return undecided(claim)
    steps = [moved(cell) for cell in cells]
    least = average([min(each[:-1]) - each[-1] for each in steps], unit="decades")
    last = decades(fmean(each[-1] for each in steps))
    return ClaimResult(
        claim=claim,
        verdict=exceeds(least, 0.0),
        reason=f"From the first twentieth of training to the last tenth it moves by {last}, the least moved of the "
        f"others by {least} more; above 0 counts.",
    )
