"""Parts of the pages of CIFAR-10's studies: panels over ρ, curves over ε, transfers and the sets under shift."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from isthmus.core.types import Figure, Interval, Mark, Metric, Series, Table
from isthmus.studies.ceb import printed
from isthmus.studies.ceb.cifar_choice import Model, best_run, short
from isthmus.studies.ceb.cifar_claims import NORMS, ball, direct, position
from isthmus.studies.ceb.sweeps import FAMILIES, cells_at, left, places
from isthmus.studies.old.drawing import Row, band
from isthmus.studies.old.evidence import Estimate, percent, share
from isthmus.studies.old.image_models import healthy
from isthmus.studies.old.study import StudyRecord

Quantity = Callable[[Sequence[Mapping[str, Any]]], Estimate]
SELECTED = "The best run is the one with the best accuracy on the test set: it is selected on what it is then shown on."


def over_rho(record: StudyRecord, title: str, kinds: Sequence[str], quantity: Quantity, madry: float | None) -> Figure:
    """A line for each family over ρ, and a level for each deterministic network.

    Args:
        madry: what is printed of the adversarially trained network; drawn where the data are CIFAR-10's.
    """
    series: list[Series] = []
    said = []
    everywhere = sorted({rho for kind in kinds for rho in places(record, kind)})
    for kind in kinds:
        grid = places(record, kind)
        if grid:
            values = [quantity(cells_at(record, kind, rho)) for rho in grid]
            ends = f"{percent(values[0].value)} at ρ = {grid[0]:g}, {percent(values[-1].value)} at {grid[-1]:g}"
        elif everywhere and cells_at(record, kind):
            values = [quantity(cells_at(record, kind))] * 2
            grid, ends = [everywhere[0], everywhere[-1]], percent(values[0].value)
        else:
            continue
        series.append(band(FAMILIES[kind], grid, values))
        said.append(f"{FAMILIES[kind]}: {ends}")
    marks = (Mark("Madry, printed", y=madry),) if madry is not None and record.config["data"] == "cifar10" else ()
    reading = f"{'; '.join(said)}." if said else "Not measured yet."
    return Figure(title, reading, "ρ", "fraction right", tuple(series), marks)


def over_eps(record: StudyRecord, norm: str, models: Sequence[Model], transfers: bool) -> Figure:
    """What PGD leaves of some models at each ε, transfers dashed if wanted, and what the ensemble leaves at one."""
    series, said = [], []
    for model in models:
        found = model["modes"]["mean"]["curves"][f"pgd {norm}"]
        grid = [0.0, *(255 * eps for eps in found["eps"])]
        counts = [model["modes"]["mean"]["clean"], *found["standing"]]
        series.append(band(short(model), grid, [share([count], found["n"]) for count in counts]))
        at = left([model], f"ensemble {norm}")
        point = band(f"{short(model)}, ensemble", [255 * record.config[f"at_{norm}"]], [at])
        series.append(Series(point.name, point.x, point.y, point.low, point.high, style="points", group=short(model)))
        said.append(f"{short(model)}: {percent(left([model], f'pgd {norm}', position(record, norm)).value)}")
    for cell in (each for each in record.cells.values() if transfers and "transfer" in each):
        found = cell["curves"][norm]
        y = tuple(count / cell["n"] for count in found["standing"])
        series.append(Series(cell["transfer"], tuple(255 * eps for eps in found["eps"]), y, style="dashed"))
    reading = f"PGD at {ball(record, norm)} leaves of {'; of '.join(said)}." if said else "Not measured yet."
    return Figure(
        f"PGD in {NORMS[norm]} against ε{', and transfers' * transfers}",
        f"{reading} Points: the ensemble, on fewer images.",
        "ε, in 255ths",
        "fraction right",
        tuple(series),
        tuple(_madry_point(record, norm)),
    )


def _madry_point(record: StudyRecord, norm: str) -> list[Mark]:
    """Madry's printed accuracy in ℓ∞; in ℓ2 the ε is not printed."""
    if norm != "linf" or record.config["data"] != "cifar10":
        return []
    return [Mark("Madry, printed", x=8.0, y=printed.MADRY.linf)]


def transfer_table(record: StudyRecord) -> Table:
    """Transfers beside the attack on the model itself, at the ε of comparison."""
    rows: list[Row] = []
    for cell in (each for each in record.cells.values() if "transfer" in each):
        row: list[Any] = [cell["transfer"]]
        for norm in NORMS:
            at = position(record, norm)
            moved = share([cell["curves"][norm]["standing"][at]], cell["n"])
            row += [moved.metric, left([direct(record, cell)], f"pgd {norm}", at).metric]
        rows.append(tuple(row))
    if record.config["madry"] is None:
        note = Metric(value=None, unit="fraction", n=0, note="the option madry names no run folder")
        rows.append(("Madry ⇒ the same", note, None, note, None))
    heads = [f"{what}, {ball(record, norm)}" for norm in NORMS for what in ("transferred", "on itself")]
    return Table(
        title="Transfer attacks",
        reading="What is left of the right-hand model: under adversarial images of the left-hand one (those that broke "
        f"it, and where PGD on it ends after all its steps), and under PGD on itself. {SELECTED}",
        columns=("attack", *heads),
        rows=tuple(rows),
    )


def shifted(record: StudyRecord, name: str, kind: str, rho: float | None) -> list[Mapping[str, Any]]:
    """Cells of one way of training on a set under shift."""
    return list(record.each(shift=name, kind=kind, rho=rho))


def why_absent(record: StudyRecord, name: str) -> str:
    """Why there are none."""
    notes = [cell["note"] for cell in record.each(shift=name) if "note" in cell]
    return notes[0] if notes else "No run that did not collapse."


def exactly(fraction: float) -> str:
    """A printed fraction with all its digits: 0.9705 as "97.05%"."""
    return f"{100 * fraction:.6g}%"


def shift_value(record: StudyRecord, name: str, model: Model) -> Metric:
    """One run's accuracy on CIFAR-10.1, or its mean error on CIFAR-10-C, with the reason where it is not measured."""
    cells = [one for one in shifted(record, name, model["objective"], model["knob"]) if one["seed"] == model["seed"]]
    if not cells:
        return Metric(value=None, unit="fraction", n=0, note=why_absent(record, name))
    cell = cells[0]
    if "right" in cell:
        return share([cell["right"]], cell["n"]).metric
    low, high = cell["interval"]
    interval = Interval(low=low, high=high, method="bootstrap over images")
    return Metric(value=cell["average"], unit="fraction", n=cell["n"], interval=interval)


def shift_names(record: StudyRecord) -> list[str]:
    """The sets under shift, in the order of the options."""
    return list(dict.fromkeys(cell["shift"] for cell in record.cells.values() if "shift" in cell))


def best_of(record: StudyRecord, kind: str, rho: float | None) -> Model | None:
    """The best run of one way of training."""
    return best_run(cells_at(record, kind, rho))


def run_counts(record: StudyRecord, kind: str, rho: float | None) -> str:
    """How many runs trained, of how many."""
    total = len(list(record.each(objective=kind, knob=rho)))
    return f"{len(healthy(record, objective=kind, knob=rho))} of {total}"
