"""How robust is CEB on CIFAR-10: under one run of PGD, with restarts, and under stronger attacks?

Section 3.2: a pre-activation ResNet-18 and two layers of 1024, CEB over ρ, ε = 8/255.
"""

from __future__ import annotations

from isthmus.studies.closer_look import cifar, cifar_claims, cifar_page
from isthmus.studies.evidence import Finding
from isthmus.studies.study import Scale, StudyRecord
from isthmus.studies.workbench import Workbench
from isthmus.types import Section


class Config(cifar.CifarConfig):
    """Figure 3's: CEB, restarts at ρ = 3, four epochs of warm-up."""

    kind: cifar.Bottleneck = "ceb"
    knobs: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    reference: float = 3.0
    warm_up: float = 4.0


SCALES: dict[Scale, Config] = {
    "tiny": Config(**cifar.TINY, knobs=(3.0,), warm_up=1.0),
    "small": Config(**cifar.SMALL, knobs=(1.0, 3.0, 5.0), warm_up=2.0),
    "paper": Config(),
}


def run(config: Config, bench: Workbench) -> None:
    """Train and attack every model."""
    cifar.run(config, bench)


def findings(record: StudyRecord) -> list[Finding]:
    """The paper's claims about CEB and the deterministic networks."""
    return cifar_claims.findings(record, "CEB")


def section(record: StudyRecord) -> Section:
    """Single runs, restarts and AA+MT."""
    return cifar_page.section(record, "Figure 3: CEB on CIFAR-10", __doc__.partition("\n")[0])
