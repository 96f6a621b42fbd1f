"""How robust is CEB on CIFAR-10: under one run of PGD, with restarts, and under stronger attacks?

Section 3.2: a pre-activation ResNet-18 and two layers of 1024, CEB over ρ, ε = 8/255.
"""

from __future__ import annotations

from isthmus.core.types import Section
from isthmus.studies.closer_look import cifar, cifar_claims, cifar_page
from isthmus.studies.old.study import StudyRecord, scales


class Config(cifar.CifarConfig):
    """Figure 3's: CEB, restarts at ρ = 3, four epochs of warm-up."""

    kind: cifar.Bottleneck = "ceb"
    knobs: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    reference: float = 3.0
    warm_up: float = 4.0


SCALES = scales(
    Config,
    tiny={**cifar.TINY, "knobs": (3.0,), "warm_up": 1.0},
    small={**cifar.SMALL, "knobs": (1.0, 3.0, 5.0), "warm_up": 2.0},
)
cells, findings = cifar.cells, cifar_claims.findings


def section(record: StudyRecord) -> Section:
    """Single runs, restarts and AA+MT."""
    return cifar_page.section(record, "Figure 3: CEB on CIFAR-10")
