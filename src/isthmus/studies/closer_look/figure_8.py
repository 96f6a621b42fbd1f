"""Is VIB on MNIST even less robust than a plain network, once PGD starts often enough? ε = 0.1.

The appendix's companion to figure 2, whose models it shares: the same attack in a ball half as wide.
"""

from __future__ import annotations

from isthmus.core.types import Section
from isthmus.studies.closer_look import restarts
from isthmus.studies.old import image_models
from isthmus.studies.old.evidence import ClaimResult, difference, falls_below
from isthmus.studies.old.study import StudyRecord, scales


class Config(restarts.RestartConfig):
    """Figure 8's: ε = 0.1."""

    eps: image_models.Eps = 0.1


SCALES = scales(Config, tiny=restarts.tiny(step_size=0.025), small=restarts.SMALL)
cells = restarts.cells


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claims: VIB can be made less robust than the deterministic network; a single start overstates."""
    return restarts.findings(record, _worse)


def _worse(record: StudyRecord, mode: str) -> ClaimResult:
    lead = difference(restarts.after_all(record, "vib", mode), restarts.after_all(record, "determ", "mean"))
    return ClaimResult(
        claim=f"VIB can be made less robust than the deterministic network ({image_models.NAMES[mode]}).",
        verdict=falls_below(lead, 0.0),
        reason=f"After {record.config['starts']} starts on both it differs by {lead}; below 0 counts.",
    )


def section(record: StudyRecord) -> Section:
    """Accuracy against the number of starts."""
    return restarts.section(record, "Figure 8")
