"""The page of figure 6: codes of each variant at each epoch, power and capacity over epochs, a table."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from isthmus.core.types import Figure, Section, Series, Table
from isthmus.studies import catalogue
from isthmus.studies.old.drawing import Row
from isthmus.studies.old.evidence import percent
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion.sphere_claims import VARIANTS, trained

PAPER = 10.0
"""The paper's axes go from −10 to 10; wider ones are shown where codes lie outside."""


def section(record: StudyRecord) -> Section:
    """A row of drawings a variant and epoch, and the table."""
    blocks: list[Figure | Table] = []
    for variant in VARIANTS:
        for cell in trained(record, variant)[:1]:
            blocks += [_drawing(cell, look) for look in cell["looks"]]
    title = "Figure 6: sphere packing in two neurons"
    return Section(title, catalogue.question(record.study), (*blocks, _table(record)) if blocks else ())


def _drawing(cell: Mapping[str, Any], look: Mapping[str, Any]) -> Figure:
    points = list(zip(cell["labels"], look["codes"], strict=True))
    series = []
    for label in sorted(set(cell["labels"])):
        own = [code for of, code in points if of == label]
        x, y = (tuple(coordinates) for coordinates in zip(*own, strict=True))
        series.append(Series(f"{label}", x, y, style="points", group=f"{label}"))
    side = max(PAPER, *(abs(value) for _, code in points for value in code))
    return Figure(
        title=f"({cell['variant']}) {VARIANTS[cell['variant']]}, epoch {look['epoch']:,}",
        reading=f"Seed {cell['seed']}, {len(points):,} training images, a colour a class; right on "
        f"{percent(look['accuracy'])} of all. The noise has a standard deviation of {look['noise_std']:.2g}.",
        x_label="first neuron",
        y_label="second neuron",
        series=tuple(series),
        x_range=(-side, side),
        y_range=(-side, side),
    )


def _table(record: StudyRecord) -> Table:
    lines: list[Row] = []
    for variant, name in VARIANTS.items():
        cells = trained(record, variant)
        for at, look in enumerate(cells[0]["looks"] if cells else ()):
            looks = [cell["looks"][at] for cell in cells]
            capacities = [each["capacity_bits"] for each in looks if each["capacity_bits"] is not None]
            lines.append(
                (
                    f"({variant}) {name}",
                    f"{look['epoch']:,}",
                    len(cells),
                    percent(fmean(each["accuracy"] for each in looks)),
                    f"{fmean(each['power'] for each in looks):.3g}",
                    f"{fmean(each['noise'] for each in looks):.3g}",
                    f"{2 * fmean(capacities):.2f}" if capacities else "not finite",
                    f"{fmean(each['roundness'] for each in looks):.2f}",
                )
            )
    return Table(
        title="What the layer takes of the plane",
        reading="Power: variance of all codes, a neuron; within: variance within classes, a neuron. Capacity: what a "
        "Gaussian channel with these carries in two uses, in bits; ten labels need 3.32. Round: the smaller width of a "
        "cluster over its larger. Means over seeds.",
        columns=("network", "epoch", "seeds", "accuracy", "power", "within", "capacity", "round"),
        rows=tuple(lines),
    )
