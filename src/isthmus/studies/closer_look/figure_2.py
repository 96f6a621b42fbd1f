"""Does VIB's robustness on MNIST survive PGD that starts again and again? ε = 0.2.

Section 3.1: PGD of 40 steps of 0.01 (:mod:`isthmus.attacks.pgd`) from up to 100 random starts, on VIB with β = 0.01 in
both modes and on the deterministic network. One evaluation gives the accuracy after every number of starts.
"""

from __future__ import annotations

from isthmus.core.types import Section
from isthmus.studies.closer_look import restarts
from isthmus.studies.old import image_models
from isthmus.studies.old.evidence import ClaimResult, falls_below, percent
from isthmus.studies.old.study import StudyRecord, scales

NOTHING = 0.05
"""A robust accuracy below which nothing is left to speak of."""


class Config(restarts.RestartConfig):
    """Figure 2's: ε = 0.2."""

    eps: image_models.Eps = 0.2


SCALES = scales(Config, tiny=restarts.tiny(step_size=0.05), small=restarts.SMALL)
cells = restarts.cells


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claims: restarts drive it to zero, so that a single start overstates."""
    return restarts.findings(record, _to_zero)


def _to_zero(record: StudyRecord, mode: str) -> ClaimResult:
    left = restarts.after_all(record, "vib", mode)
    return ClaimResult(
        claim=f"Restarts drive VIB's robust accuracy to zero ({image_models.NAMES[mode]}).",
        verdict=falls_below(left, NOTHING),
        reason=f"After {record.config['starts']} starts {left} is left; below {percent(NOTHING)} counts.",
    )


def section(record: StudyRecord) -> Section:
    """Accuracy against the number of starts."""
    return restarts.section(record, "Figure 2")
