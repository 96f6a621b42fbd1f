"""What does the loss look like around an image, for the CEB model that seems most robust? A truck.

Section 3.2: CE(x + u·d₁ + v·d₂) with d₁ the sign of PGD's worst perturbation, or random, and d₂ random
(:mod:`isthmus.attacks.loss_surface`); CIFAR-10, CEB with ρ = 2, the best of all seeds under AA+MT.
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
    """Figure 4's: a truck."""

    classes: Annotated[tuple[str, ...], Field(min_length=1)] = ("truck",)


SCALES: dict[Scale, Config] = {
    "tiny": Config(**cifar.TINY, warm_up=1.0, classes=("3",), measured=20, grid=6),
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
    return surfaces.section(record, "Figure 4: a loss surface of CEB on CIFAR-10", __doc__.partition("\n")[0])
