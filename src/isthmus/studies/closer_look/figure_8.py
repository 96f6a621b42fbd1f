"""Is VIB on MNIST even less robust than a plain network, once PGD starts often enough? ε = 0.1.

The appendix's companion to figure 2, whose models it shares: the same attack in a ball half as wide.
"""

from __future__ import annotations

from isthmus.studies.closer_look import image_models, restarts
from isthmus.studies.evidence import Finding, difference, falls_below
from isthmus.studies.study import Scale, StudyRecord
from isthmus.studies.workbench import Workbench
from isthmus.types import Section


class Config(restarts.RestartConfig):
    """Figure 8's: ε = 0.1."""

    eps: image_models.Eps = 0.1


SCALES: dict[Scale, Config] = {
    "tiny": Config(**image_models.DIGITS_TINY, pgd=image_models.Pgd(steps=10, step_size=0.025), starts=4),
    "small": Config(**image_models.MNIST_SMALL, starts=20),
    "paper": Config(),
}


def run(config: Config, bench: Workbench) -> None:
    """Train and attack every model."""
    restarts.run(config, bench)


def findings(record: StudyRecord) -> list[Finding]:
    """The paper's claims: VIB can be made less robust than the deterministic network; a single start overstates."""
    if missing := restarts.missing(record):
        return [missing]
    return [
        *(_worse(record, mode) for mode in record.config["modes"]),
        *(restarts.overstated(record, mode) for mode in record.config["modes"]),
    ]


def _worse(record: StudyRecord, mode: str) -> Finding:
    lead = difference(restarts.after(record, "vib", mode, -1), restarts.after(record, "determ", "mean", -1))
    return Finding(
        claim=f"VIB can be made less robust than the deterministic network ({image_models.NAMES[mode]}).",
        verdict=falls_below(lead, 0.0),
        because=f"After {record.config['starts']} starts on both it differs by {lead}; below 0 counts.",
    )


def section(record: StudyRecord) -> Section:
    """Accuracy against the number of starts."""
    title = "Figure 8: VIB on MNIST under PGD with restarts, ε = 0.1"
    return restarts.section(record, title, __doc__.partition("\n")[0])
