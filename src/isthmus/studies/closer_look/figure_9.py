"""How robust is VIB on CIFAR-10: under one run of PGD, with restarts, and under stronger attacks?

The appendix's companion to figure 3, whose deterministic networks it shares: VIB over β, ε = 8/255.
"""

from __future__ import annotations

from isthmus.core.types import Section
from isthmus.studies.closer_look import cifar, cifar_claims, cifar_page
from isthmus.studies.old.study import StudyRecord, scales


class Config(cifar.CifarConfig):
    """Figure 9's: VIB, restarts at β = 0.01, a hundred epochs of warm-up."""

    kind: cifar.Bottleneck = "vib"
    knobs: tuple[float, ...] = (0.0001, 0.001, 0.01, 0.1)
    reference: float = 0.01
    warm_up: float = 100.0


SCALES = scales(
    Config,
    tiny={**cifar.TINY, "knobs": (0.01,), "warm_up": 1.0},
    small={**cifar.SMALL, "knobs": (0.001, 0.01, 0.1), "warm_up": 2.0},
)
cells, findings = cifar.cells, cifar_claims.findings


def section(record: StudyRecord) -> Section:
    """Single runs, restarts and AA+MT."""
    return cifar_page.section(record, "Figure 9: VIB on CIFAR-10")
