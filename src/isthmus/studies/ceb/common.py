"""Selections of rows and models of the CEB studies, and the papers' choices by clean accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from isthmus.core.display import Mark, Table
from isthmus.core.types import Coordinate
from isthmus.studies.blocks import Curves
from isthmus.studies.ceb.configs import OBJECTIVES, SweepConfig
from isthmus.studies.image_models import ModelSpec
from isthmus.studies.quantities import Quantity, Select, estimate, select
from isthmus.studies.rows import Rows
from isthmus.studies.study import StudyRecord

NORMS = {"linf": "ℓ∞", "l2": "ℓ2"}
TEST = select("test_accuracy")
ROBUST = select("robust_accuracy", mode="mean")
Model = Mapping[str, Coordinate | None]
"""Coordinates of models that differ in the seed alone."""
DETERM: Model = {"objective": "determ", "rho": None}
VIB_4: Model = {"objective": "vib", "rho": 4.0}
VIB_2: Model = {"objective": "vib", "rho": 2.0}
VIB_0: Model = {"objective": "vib", "rho": 0.0}
CEB_0: Model = {"objective": "ceb", "rho": 0.0}
DIGITS = 3
"""Accuracies are compared as they are printed, to a tenth of a percent."""


def named(model: Model) -> str:
    """The name of a model in a sentence: "CEB, ρ = 0"."""
    name, rho = OBJECTIVES[str(model["objective"])], model.get("rho")
    return f"the {name} network" if rho is None else f"{name}, ρ = {rho:g}"


def plain(quantity: Select) -> Select:
    """The same quantity for the deterministic network, which has no ρ."""
    return quantity.at(**DETERM)


def best_rho(rows: Rows, objective: str) -> float | None:
    """ρ with the best mean accuracy over seeds, and the lower one of equals; None if nothing trained."""
    quantity = select("test_accuracy", objective=objective)
    found = {}
    for rho in quantity.values(rows, "rho"):
        mean = estimate(quantity.at(rho=rho), rows)
        if mean is not None:
            found[float(rho)] = round(mean.value, DIGITS)
    return min(found, key=lambda rho: (-found[rho], rho), default=None)


def best_run(accuracies: Mapping[ModelSpec, float], objective: str, rho: float | None) -> ModelSpec | None:
    """The run with the best clean accuracy among those of one objective and ρ, and the lower seed of equals."""
    runs = [model for model in accuracies if (model.objective, model.parameter) == (objective, rho)]
    return min(runs, key=lambda model: (-accuracies[model], model.seed), default=None)


def over_rho(
    title: str,
    y: Select,
    level: Mapping[str, Quantity],
    y_label: str,
    marks: tuple[Mark, ...] = (),
    lines: str = "objective",
    reading: str = "Means over seeds.",
) -> Curves:
    """A quantity over ρ with its intervals, and the deterministic networks' as levels."""
    return Curves(
        title=title,
        reading=reading,
        y=y,
        x="rho",
        lines=(lines,),
        level=level,
        x_label="ρ",
        y_label=y_label,
        interval=True,
        marks=marks,
    )


def choice_table(record: StudyRecord, config: SweepConfig) -> Iterator[Table]:
    """The block of a page with the chosen ρ of each family; none if nothing trained."""
    rows = record.rows()
    chosen = [(OBJECTIVES[family], best_rho(rows, family)) for family in config.families]
    lines = tuple((name, f"{rho:g}") for name, rho in chosen if rho is not None)
    if lines:
        reading = "ρ with the best clean accuracy, and the lower of equals, chosen on the test set as in the papers."
        yield Table("The papers' choice of ρ", reading, ("objective", "ρ"), lines)
