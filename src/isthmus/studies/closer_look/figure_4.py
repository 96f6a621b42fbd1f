"""What does the loss look like around an image, for the CEB model that seems most robust? A truck.

Section 3.2: CE(x + u·d₁ + v·d₂) with d₁ the sign of PGD's worst perturbation, or random, and d₂ random
(:mod:`isthmus.attacks.loss_surface`); CIFAR-10, CEB with ρ = 2, the best of all seeds under AA+MT.
"""

from __future__ import annotations

from isthmus.core.types import Section
from isthmus.studies.closer_look import surfaces
from isthmus.studies.old.study import StudyRecord, scales
from isthmus.studies.store import ResultStore, Stages


class Config(surfaces.SurfaceConfig):
    """Figure 4's: a truck."""

    classes: surfaces.Classes = ("truck",)


SCALES = scales(Config, tiny=surfaces.tiny("3"), small=surfaces.SMALL)
findings = surfaces.findings


def cells(config: Config, bench: ResultStore) -> Stages:
    """The models, trained and ranked; then the surfaces of the best."""
    from isthmus.studies.closer_look import surface_cells

    return surface_cells.cells(config, bench)


def section(record: StudyRecord) -> Section:
    """Heat maps and flatness."""
    return surfaces.section(record, "Figure 4: a loss surface of CEB on CIFAR-10")
