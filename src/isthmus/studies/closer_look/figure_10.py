"""What does the loss look like around other images? An airplane, a frog and a deer.

The appendix's companion to figure 4, whose models it shares: CIFAR-10, CEB with ρ = 2, the best of all seeds under
AA+MT.
"""

from __future__ import annotations

from isthmus.core.types import Section
from isthmus.studies.closer_look import surfaces
from isthmus.studies.old.study import StudyRecord, scales
from isthmus.studies.store import ResultStore, Stages


class Config(surfaces.SurfaceConfig):
    """Figure 10's: an airplane, a frog and a deer."""

    classes: surfaces.Classes = ("airplane", "frog", "deer")


SCALES = scales(Config, tiny=surfaces.tiny("0", "6", "4"), small=surfaces.SMALL)
findings = surfaces.findings


def cells(config: Config, bench: ResultStore) -> Stages:
    """The models, trained and ranked; then the surfaces of the best."""
    from isthmus.studies.closer_look import surface_cells

    return surface_cells.cells(config, bench)


def section(record: StudyRecord) -> Section:
    """Heat maps and flatness."""
    return surfaces.section(record, "Figure 10: loss surfaces of CEB on CIFAR-10")
