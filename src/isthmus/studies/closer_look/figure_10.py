"""What does the loss look like around other images? An airplane, a frog and a deer.

The appendix's companion to figure 4, whose models it shares: CIFAR-10, CEB with ρ = 2, the best of all seeds under
AA+MT.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from isthmus.studies.closer_look import cifar, surfaces
from isthmus.studies.evidence import Finding
from isthmus.studies.study import Scale, StudyRecord
from isthmus.studies.workbench import Workbench
from isthmus.types import Section


class Config(surfaces.SurfaceConfig):
    """Figure 10's: an airplane, a frog and a deer."""

    classes: Annotated[tuple[str, ...], Field(min_length=1)] = ("airplane", "frog", "deer")


SCALES: dict[Scale, Config] = {
    "tiny": Config(**cifar.TINY, warm_up=1.0, classes=("0", "6", "4"), measured=20, grid=6),
    "small": Config(**cifar.SMALL, warm_up=2.0),
    "paper": Config(),
}


def run(config: Config, bench: Workbench) -> None:
    """Train and rank the models; compute the surfaces of the best."""
    surfaces.run(config, bench)


def findings(record: StudyRecord) -> list[Finding]:
    """The paper's claim that the landscape is flat."""
    return surfaces.findings(record)


def section(record: StudyRecord) -> Section:
    """Heat maps and flatness."""
    return surfaces.section(record, "Figure 10: loss surfaces of CEB on CIFAR-10", __doc__.partition("\n")[0])
