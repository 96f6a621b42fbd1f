"""What the paper says of the information plane (section 4.2), each claim judged by the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from isthmus.studies.old.evidence import ClaimResult, Verdict, average, bits, exceeds, falls_below, undecided
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion.compression import largest_falls, net_falls

COMPRESSED = 0.1
"""Bits by which I(X;T) must fall after its greatest value, beyond noise, to count as compression."""
LABELS = ("original", "random")


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claims in its order."""
    if any(not trained(record, labels) for labels in LABELS):
        reason = "Networks on original and on random labels are both needed."
        return [ClaimResult(claim="The information plane.", verdict=Verdict.UNDECIDED, reason=reason)]
    return [_compresses(record), _does_not(record), _rises(record), _memorises(record), _far_from_optimal(record)]


def trained(record: StudyRecord, labels: str) -> list[Mapping[str, Any]]:
    """Cells of networks on "original" or "random" labels, seed by seed."""
    return list(record.each(labels=labels))


def hidden(cell: Mapping[str, Any]) -> list[str]:
    """The hidden layers, from the input on; the last of all layers is the logits."""
    return list(cell["layers"])[:-1]


def fallen(course: Sequence[float]) -> float:
    """Bits from the greatest value to the mean of the last tenth."""
    return max(course) - fmean(course[-max(1, len(course) // 10) :])


def _courses(record: StudyRecord, labels: str) -> list[list[Sequence[float]]]:
    """I(X;T) of the hidden layers over the looks, seed by seed."""
    return [[cell["layers"][layer]["i_xt"] for layer in hidden(cell)] for cell in trained(record, labels)]


def _compresses(record: StudyRecord) -> ClaimResult:
    claim = "On the original labels there is a phase of compression: I(X;T) of a hidden layer falls again."
    courses = _courses(record, "original")
    if len(courses) < 2:
        return undecided(claim, "How far noise alone falls is told from other seeds, and there is one.")
    found = average(net_falls(courses), unit="bits")
    return ClaimResult(
        claim=claim,
        verdict=exceeds(found, COMPRESSED),
        reason=f"In the layer where it falls most it falls by {bits(fmean(largest_falls(courses)))} from its greatest "
        f"value, means over a tenth of training; by {found} more than noise alone; above {bits(COMPRESSED)} counts.",
    )


def _does_not(record: StudyRecord) -> ClaimResult:
    """Small even with its noise, or else larger than noise explains."""
    claim = "On random labels there is almost none."
    courses = _courses(record, "random")
    if len(courses) < 2:
        return undecided(claim, "How far noise alone falls is told from other seeds, and there is one.")
    whole, net = (average(of(courses), unit="bits") for of in (largest_falls, net_falls))
    verdict = falls_below(whole, COMPRESSED)
    if verdict != Verdict.SUPPORTED:
        verdict = Verdict.CONTRADICTED if exceeds(net, COMPRESSED) == Verdict.SUPPORTED else Verdict.UNDECIDED
    return ClaimResult(
        claim=claim,
        verdict=verdict,
        reason=f"In the layer where it falls most it falls by {whole}, noise included, and by {net} more than noise "
        f"alone; the first below {bits(COMPRESSED)} counts for the claim, the second above it against.",
    )


def _rises(record: StudyRecord) -> ClaimResult:
    """I(T;Y) of the last hidden layer rises, and does not fall again."""
    risen, lost = [], []
    for cell in trained(record, "random"):
        course = cell["layers"][hidden(cell)[-1]]["i_ty"]
        risen.append(course[-1] - course[0])
        lost.append(fallen(course))
    step = average([rise - fall for rise, fall in zip(risen, lost, strict=True)], unit="bits")
    return ClaimResult(
        claim="Random labels are memorised slowly: I(T;Y) rises monotonically.",
        verdict=exceeds(step, 0.0),
        reason=f"In the last hidden layer it rises by {bits(fmean(risen))} and falls from its greatest value by "
        f"{bits(fmean(lost))}; the first exceeds the second by {step}; above 0 counts.",
    )


def _memorises(record: StudyRecord) -> ClaimResult:
    """The degree of memorisation: I(X;T) with random labels less that with the original ones."""
    others = {cell["seed"]: cell for cell in trained(record, "original")}
    steps = [
        ends(cell)[-1] - ends(others[cell["seed"]])[-1] for cell in trained(record, "random") if cell["seed"] in others
    ]
    if not steps:
        claim = "Random labels leave more of the image in the last hidden layer."
        return ClaimResult(claim=claim, verdict=Verdict.UNDECIDED, reason="No two networks have one seed.")
    found = average(steps, unit="bits")
    return ClaimResult(
        claim="Random labels leave more of the image in the last hidden layer: the degree of memorisation is positive.",
        verdict=exceeds(found, 0.0),
        reason=f"I(X;T) is larger by {found} in the end; above 0 counts.",
    )


def ends(cell: Mapping[str, Any]) -> list[float]:
    """I(X;T) of each hidden layer, mean over the last tenth of the looks."""
    return [
        fmean(course[-max(1, len(course) // 10) :])
        for course in (cell["layers"][layer]["i_xt"] for layer in hidden(cell))
    ]


def memorised(cell: Mapping[str, Any]) -> list[float]:
    """I(X;T) − I(T;Y) of each hidden layer, the distance from the IB-optimal value, mean over the last tenth."""
    told = [fmean(course[-max(1, len(course) // 10) :]) for course in _told(cell)]
    return [held - known for held, known in zip(ends(cell), told, strict=True)]


def _told(cell: Mapping[str, Any]) -> list[Sequence[float]]:
    return [cell["layers"][layer]["i_ty"] for layer in hidden(cell)]


def _far_from_optimal(record: StudyRecord) -> ClaimResult:
    """The paper's definition, of which the difference in I(X;T) is its estimate."""
    claim = "Random labels are memorised more also as measured from the optimal value of the information bottleneck."
    others = {cell["seed"]: cell for cell in trained(record, "original")}
    pairs = [(cell, others[cell["seed"]]) for cell in trained(record, "random") if cell["seed"] in others]
    if not pairs:
        return undecided(claim, "No two networks have one seed.")
    distances = [tuple(memorised(cell)[-1] for cell in pair) for pair in pairs]
    found = average([random - original for random, original in distances], unit="bits")
    first, second = (fmean(each) for each in zip(*distances, strict=True))
    return ClaimResult(
        claim=claim,
        verdict=exceeds(found, 0.0),
        reason=f"In the last hidden layer I(X;T) exceeds I(T;Y), the least that says as much of the label, by "
        f"{bits(first)} with random labels and {bits(second)} with the original ones; larger by {found}; above 0 "
        "counts.",
    )
