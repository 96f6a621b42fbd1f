"""What the paper says of the information plane (section 4.2), each claim judged by the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from isthmus.studies.evidence import Finding, Verdict, average, bits, exceeds, falls_below
from isthmus.studies.study import StudyRecord

COMPRESSED = 0.1
"""Bits by which I(X;T) must fall after its greatest value, to count as compression."""
LABELS = ("original", "random")


def findings(record: StudyRecord) -> list[Finding]:
    """The paper's claims in its order."""
    if any(not trained(record, labels) for labels in LABELS):
        because = "Networks on original and on random labels are both needed."
        return [Finding(claim="The information plane.", verdict=Verdict.UNDECIDED, because=because)]
    return [_compresses(record), _does_not(record), _rises(record), _memorises(record)]


def trained(record: StudyRecord, labels: str) -> list[Mapping[str, Any]]:
    """Cells of networks on "original" or "random" labels, seed by seed."""
    return list(record.each(labels=labels))


def hidden(cell: Mapping[str, Any]) -> list[str]:
    """The hidden layers, from the input on; the last of all layers is the logits."""
    return list(cell["layers"])[:-1]


def fallen(course: Sequence[float]) -> float:
    """Bits from the greatest value to the mean of the last tenth."""
    return max(course) - fmean(course[-max(1, len(course) // 10) :])


def compression(cell: Mapping[str, Any]) -> float:
    """Of the hidden layer that compresses most."""
    return max(fallen(cell["layers"][layer]["i_xt"]) for layer in hidden(cell))


def _compresses(record: StudyRecord) -> Finding:
    found = average([compression(cell) for cell in trained(record, "original")], unit="bits")
    return Finding(
        claim="On the original labels there is a phase of compression: I(X;T) of a hidden layer falls again.",
        verdict=exceeds(found, COMPRESSED),
        because=f"After its greatest value it falls by {found} in the layer where it falls most; above "
        f"{bits(COMPRESSED)} counts.",
    )


def _does_not(record: StudyRecord) -> Finding:
    found = average([compression(cell) for cell in trained(record, "random")], unit="bits")
    return Finding(
        claim="On random labels there is almost none.",
        verdict=falls_below(found, COMPRESSED),
        because=f"It falls by {found} in the layer where it falls most; below {bits(COMPRESSED)} counts.",
    )


def _rises(record: StudyRecord) -> Finding:
    """I(T;Y) of the last hidden layer rises, and does not fall again."""
    risen, lost = [], []
    for cell in trained(record, "random"):
        course = cell["layers"][hidden(cell)[-1]]["i_ty"]
        risen.append(course[-1] - course[0])
        lost.append(fallen(course))
    step = average([rise - fall for rise, fall in zip(risen, lost, strict=True)], unit="bits")
    return Finding(
        claim="Random labels are memorised slowly: I(T;Y) rises monotonically.",
        verdict=exceeds(step, 0.0),
        because=f"In the last hidden layer it rises by {bits(fmean(risen))} and falls from its greatest value by "
        f"{bits(fmean(lost))}; the first exceeds the second by {step}; above 0 counts.",
    )


def _memorises(record: StudyRecord) -> Finding:
    """The degree of memorisation: I(X;T) with random labels less that with the original ones."""
    others = {cell["seed"]: cell for cell in trained(record, "original")}
    steps = [
        ends(cell)[-1] - ends(others[cell["seed"]])[-1] for cell in trained(record, "random") if cell["seed"] in others
    ]
    if not steps:
        claim = "Random labels leave more of the image in the last hidden layer."
        return Finding(claim=claim, verdict=Verdict.UNDECIDED, because="No two networks have one seed.")
    found = average(steps, unit="bits")
    return Finding(
        claim="Random labels leave more of the image in the last hidden layer: the degree of memorisation is positive.",
        verdict=exceeds(found, 0.0),
        because=f"I(X;T) is larger by {found} in the end; above 0 counts.",
    )


def ends(cell: Mapping[str, Any]) -> list[float]:
    """I(X;T) of each hidden layer, mean over the last tenth of the looks."""
    return [
        fmean(course[-max(1, len(course) // 10) :])
        for course in (cell["layers"][layer]["i_xt"] for layer in hidden(cell))
    ]
