"""Does VIB's robustness on MNIST survive PGD that starts again and again? ε = 0.2.

Section 3.1: PGD of 40 steps of 0.01 (:mod:`isthmus.attacks.pgd`) from up to 100 random starts, on VIB with β = 0.01 in
both modes and on the deterministic network. One evaluation gives the accuracy after every number of starts.
"""

from __future__ import annotations

from isthmus.studies.closer_look import image_models, restarts
from isthmus.studies.evidence import Finding, falls_below, percent
from isthmus.studies.study import Scale, StudyRecord
from isthmus.studies.workbench import Workbench
from isthmus.types import Section

NOTHING = 0.05
"""A robust accuracy below which nothing is left to speak of."""


class Config(restarts.RestartConfig):
    """Figure 2's: ε = 0.2."""

    eps: image_models.Eps = 0.2


SCALES: dict[Scale, Config] = {
    "tiny": Config(**image_models.DIGITS_TINY, pgd=image_models.Pgd(steps=10, step_size=0.05), starts=4),
    "small": Config(**image_models.MNIST_SMALL, starts=20),
    "paper": Config(),
}


def run(config: Config, bench: Workbench) -> None:
    """Train and attack every model."""
    restarts.run(config, bench)


def findings(record: StudyRecord) -> list[Finding]:
    """The paper's claims: restarts drive it to zero, so that a single start overstates."""
    if missing := restarts.missing(record):
        return [missing]
    return [
        *(_to_zero(record, mode) for mode in record.config["modes"]),
        *(restarts.overstated(record, mode) for mode in record.config["modes"]),
    ]


def _to_zero(record: StudyRecord, mode: str) -> Finding:
    left = restarts.after(record, "vib", mode, -1)
    return Finding(
        claim=f"Restarts drive VIB's robust accuracy to zero ({image_models.NAMES[mode]}).",
        verdict=falls_below(left, NOTHING),
        because=f"After {record.config['starts']} starts {left} is left; below {percent(NOTHING)} counts.",
    )


def section(record: StudyRecord) -> Section:
    """Accuracy against the number of starts."""
    title = "Figure 2: VIB on MNIST under PGD with restarts, ε = 0.2"
    return restarts.section(record, title, __doc__.partition("\n")[0])
