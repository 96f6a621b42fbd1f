"""Accuracy against perturbation size: the panels of figure 3, which the tables' pages show in part."""

from __future__ import annotations

from collections.abc import Callable

from isthmus.core.types import Figure, Series
from isthmus.studies.guess_first import printed
from isthmus.studies.guess_first.printed import CLEAN, Row
from isthmus.studies.guess_first.readings import ATTACKS, BOXES, accuracy, cells, left, models, tested
from isthmus.studies.old.drawing import band
from isthmus.studies.old.evidence import Estimate, percent, share
from isthmus.studies.old.study import StudyRecord

Points = Callable[[StudyRecord, str, str, str], Series | None]
"""From a record, a box, an attack and a model to points beside the model's line."""


def panel(record: StudyRecord, box: str, attack: str, beside: Points) -> Figure:
    """A line for each model over an attack's grid, from clean accuracy on, with points beside it."""
    grid = record.config["l2" if attack == "cw" else "linf"]
    rows = [Row(box, attack, eps) for eps in grid]
    lines: list[Series] = []
    points: list[Series] = []
    for name in models(record):
        values = [accuracy(record, row, name) for row in rows]
        there = [value for value in values if value is not None]
        if len(there) == len(rows):
            lines.append(band(name, (0.0, *grid), (_clean(record, name), *there)))
            points += [one for one in [beside(record, box, attack, name)] if one is not None]
    norm, at = ("ℓ2", printed.L2[-1]) if attack == "cw" else ("ℓ∞", printed.LINF[0])
    said = {name: accuracy(record, Row(box, attack, at), name) for name in models(record)}
    reading = ", ".join(f"{name} {percent(value.value)}" for name, value in said.items() if value is not None)
    return Figure(
        title=f"{ATTACKS[attack]}, {BOXES[box]}",
        reading=f"At {norm} {at:g}: {reading}." if reading else "Not measured yet.",
        x_label=f"ε in {norm}",
        y_label="fraction right",
        series=(*lines, *points),
        y_range=(0.0, 1.0),
    )


def _clean(record: StudyRecord, name: str) -> Estimate:
    """On the images that are attacked, unlike the tables' row."""
    found = cells(record, "white-box", name)
    return share([cell["clean"] for cell in found.values()], tested(record, Row("white", "pgd", 0.0)))


def printed_points(record: StudyRecord, box: str, attack: str, name: str) -> Series | None:
    """What the paper prints of a model, where the data are its."""
    rows = [row for row in printed.ROWS if (row.box, row.attack) == (box, attack)]
    values = [(row.eps, printed.value(record.config["data"], row, name)) for row in (CLEAN, *rows)]
    there = [(eps, value) for eps, value in values if value is not None]
    if not there:
        return None
    x, y = zip(*there, strict=True)
    return Series(f"{name}, printed", x, y, style="points", group=name)


def ensemble_points(record: StudyRecord, box: str, attack: str, name: str) -> Series | None:
    """What the strong ensemble leaves of a model."""
    norm, sizes = ("l2", printed.L2) if attack == "cw" else ("linf", printed.LINF)
    found = [list(left(record, norm, eps, name).values()) for eps in sizes]
    if not all(found):
        return None
    drawn = band(f"{name}, ensemble", sizes, [share(each, tested(record, Row(box, attack, 0.0))) for each in found])
    return Series(drawn.name, drawn.x, drawn.y, drawn.low, drawn.high, style="points", group=name)
