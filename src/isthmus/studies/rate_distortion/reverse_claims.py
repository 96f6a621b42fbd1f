"""What the paper says of messages from label to image (figure 4), each claim judged by the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from isthmus.studies.old.evidence import (
    ClaimResult,
    Estimate,
    all_of,
    average,
    difference,
    exceeds,
    falls_below,
    pooled,
    share,
    undecided,
)
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion.printed import MODELS

STEPS = 100
"""About so many of 0.01 are printed."""
ABOUT = 2.0
"""Within this factor of it counts."""
LEGIBLE = 0.5
"""More than so many prototypes must be nearest to the mean of their own class, of one in ten by chance."""


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claims in its order."""
    if not record.cells:
        return [undecided("From label to image.", "Nothing was measured.")]
    return [_about_a_hundred(record), _prototypical(record), _less_excess(record)]


def grown(record: StudyRecord, model: str) -> list[Mapping[str, Any]]:
    """Cells of a model, of seeds of which at least one prototype got there."""
    return [cell for cell in record.each(model=model) if cell["similarity"]]


def there(record: StudyRecord) -> list[str]:
    """Models that were measured, in the paper's order."""
    return [model for model in MODELS if any(record.each(model=model))]


def reached(record: StudyRecord, model: str) -> Estimate:
    """Share of the prototypes that got to full confidence."""
    cells = list(record.each(model=model))
    return share([cell["reached"][0] for cell in cells], cells[0]["reached"][1])


def cosines(record: StudyRecord, model: str, name: str = "similarity") -> Estimate:
    """Mean over seeds of the prototypes' (or images', ``image_similarity``) cosine with the mean of their class."""
    cells = grown(record, model)
    return pooled([tuple(cell[name]) for cell in cells], cells[0]["reached"][1], lowest=-1.0)


def own_class(record: StudyRecord, model: str) -> Estimate:
    """Share of the prototypes that are nearest to their class's mean; who did not get there is not."""
    cells = list(record.each(model=model))
    return share([cell["own_class"][0] for cell in cells], cells[0]["reached"][1])


def said(cosine: Estimate) -> str:
    """A cosine with its interval, in words."""
    return f"{cosine.value:.2f} ({cosine.low:.2f} to {cosine.high:.2f})"


def _about_a_hundred(record: StudyRecord) -> ClaimResult:
    claim = f"With weight decay (B) full confidence takes about {STEPS} steps."
    cells = grown(record, "B")
    if not cells:
        return undecided(claim)
    steps = [cell["steps"][0] for cell in cells]
    if min(steps) <= 0:
        return undecided(claim, "Noise itself is at full confidence: there is nothing to measure.")
    ratio, within = average([math.log10(each / STEPS) for each in steps], unit="decades"), math.log10(ABOUT)
    low, value, high = (STEPS * 10**end for end in (ratio.low, ratio.value, ratio.high))
    return ClaimResult(
        claim=claim,
        verdict=all_of([exceeds(ratio, -within), falls_below(ratio, within)]),
        reason=f"It takes {value:.0f} ({ratio.reach(f'{low:.0f}', f'{high:.0f}')}); "
        f"{STEPS / ABOUT:.0f} to {STEPS * ABOUT:.0f} counts.",
    )


def _prototypical(record: StudyRecord) -> ClaimResult:
    claim = "With weight decay (B) prototypes are legible examples of their class."
    if not grown(record, "B"):
        return undecided(claim)
    found = own_class(record, "B")
    return ClaimResult(
        claim=claim,
        verdict=exceeds(found, LEGIBLE),
        reason=f"Nearest to the mean of their own class are {found}; above {LEGIBLE:.0%} counts. Their cosine with it "
        f"is {said(cosines(record, 'B'))}, that of images {said(cosines(record, 'B', 'image_similarity'))}.",
    )


def _less_excess(record: StudyRecord) -> ClaimResult:
    claim = (
        "They are so because there is less excess capacity: without weight decay (A) they are less like their class."
    )
    if not grown(record, "A") or not grown(record, "B"):
        return undecided(claim)
    first, second = cosines(record, "A"), cosines(record, "B")
    return ClaimResult(
        claim=claim,
        verdict=exceeds(difference(second, first), 0.0),
        reason=f"The cosine with the class's mean is {said(first)} for A and {said(second)} for B.",
    )
