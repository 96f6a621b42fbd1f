"""The page of the Fashion-MNIST study: the papers’ four panels, what a strong ensemble leaves, and a table of all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from isthmus.core.types import Figure, Mark, Section, Series, Table
from isthmus.studies import catalogue
from isthmus.studies.ceb.sweeps import FAMILIES, best, cells_at, clean, left, named, places, success
from isthmus.studies.old.drawing import Row, band
from isthmus.studies.old.evidence import Estimate, average, percent
from isthmus.studies.old.image_models import healthy
from isthmus.studies.old.study import StudyRecord

ORDER = ("ceb", "vib")
Quantity = Callable[[Sequence[Mapping[str, Any]]], Estimate]


def section(record: StudyRecord) -> Section:
    """Accuracy, rate, two targeted attacks; the ensemble; the table."""
    nets = {kind for kind in ("determ", *ORDER) if healthy(record, objective=kind)}
    panels = (
        _panel(record, "Clean accuracy", "fraction right", clean),
        _panel(record, "Largest lower bound on I(X;Z) in training", "nats", _top, (Mark("ln 10", y=math.log(10)),)),
        _panel(
            record, "Targeted PGD in ℓ∞, towards trousers", "success", lambda cells: success(cells, "targeted linf")
        ),
        _panel(record, "Targeted PGD in ℓ2, towards trousers", "success", lambda cells: success(cells, "targeted l2")),
        _panel(
            record, _ensemble_title(record, "linf"), "fraction right", lambda cells: left(cells, "ensemble linf", 0)
        ),
        _panel(record, _ensemble_title(record, "l2"), "fraction right", lambda cells: left(cells, "ensemble l2", 0)),
    )
    title = "Figure 1: CEB, VIB and deterministic networks on Fashion-MNIST"
    return Section(title, catalogue.question(record.study), (*panels, _table(record)) if nets else ())


def _top(cells: Sequence[Mapping[str, Any]]) -> Estimate:
    return average([cell["trained"]["rate_lower_max"] for cell in cells])


def _ensemble_title(record: StudyRecord, norm: str) -> str:
    suite, eps = record.config["ensemble"], record.config[f"ensemble_{norm}"][0]
    return f"What the suite “{suite}” leaves at {'ℓ∞' if norm == 'linf' else 'ℓ2'} {eps:g}"


def _panel(record: StudyRecord, title: str, unit: str, quantity: Quantity, marks: tuple[Mark, ...] = ()) -> Figure:
    series: list[Series] = []
    said = []
    for kind in ORDER:
        grid = places(record, kind)
        if grid:
            values = [quantity(cells_at(record, kind, rho)) for rho in grid]
            series.append(band(FAMILIES[kind], grid, values))
            said.append(
                f"{FAMILIES[kind]}: {_short(values[0])} at ρ = {grid[0]:g}, {_short(values[-1])} at {grid[-1]:g}"
            )
    plain = healthy(record, objective="determ")
    everywhere = [rho for kind in ORDER for rho in places(record, kind)]
    if plain and everywhere and quantity is not _top:
        level = quantity(plain)
        series.append(band(FAMILIES["determ"], (min(everywhere), max(everywhere)), (level, level)))
        said.append(f"deterministic: {_short(level)}")
    return Figure(
        title=title,
        reading=f"{'; '.join(said)}." if said else "Not measured yet.",
        x_label="ρ",
        y_label=unit,
        series=tuple(series),
        marks=marks,
    )


def _short(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} nats" if estimate.unit == "nats" else percent(estimate.value)


def _table(record: StudyRecord) -> Table:
    rows: list[Row] = []
    models: list[tuple[str, float | None]] = [("determ", None)]
    models += [(kind, rho) for kind in ORDER for rho in places(record, kind)]
    for kind, rho in models:
        cells = cells_at(record, kind, rho)
        if not cells:
            continue
        name = f"{named(kind, rho)}{' *' * (rho is not None and rho == best(record, kind))}"
        rows.append(
            (
                name,
                len(cells),
                clean(cells).metric,
                *(
                    _trained(cells, term)
                    for term in ("rate_lower_max", "epoch_rate_lower", "epoch_rate", "epoch_residual")
                ),
                *(success(cells, curve).metric for curve in ("targeted linf", "targeted l2")),
                *(left(cells, curve, 0).metric for curve in ("ensemble linf", "ensemble l2")),
            )
        )
    return Table(
        title="Means over seeds",
        reading="* is the papers' choice of ρ: the best clean accuracy, and the lower of equals, made on the test set. "
        "Of quantities in nats n counts seeds; the last three are means over the batches of the last epoch. Success is "
        "the share of images that were right and are taken for trousers. The ensemble's columns are at its smallest ε.",
        columns=(
            "model",
            "seeds",
            "clean",
            "I(X;Z) ≥, largest",
            "I(X;Z) ≥",
            "R",
            "ReX",
            "targeted ℓ∞",
            "targeted ℓ2",
            "ensemble ℓ∞",
            "ensemble ℓ2",
        ),
        rows=tuple(rows),
    )


def _trained(cells: Sequence[Mapping[str, Any]], term: str) -> Any:
    values = [cell["trained"].get(term) for cell in cells]
    return None if None in values else average([value for value in values if value is not None]).metric
