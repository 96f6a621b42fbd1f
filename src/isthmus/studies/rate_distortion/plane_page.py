"""The page of figure 3: layers' ways through the information plane, the plane at chosen epochs, and a table."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from isthmus.core.types import Figure, Mark, Section, Series, Table
from isthmus.studies import catalogue
from isthmus.studies.old.drawing import Row
from isthmus.studies.old.evidence import percent
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion.plane_claims import LABELS, ends, hidden, memorised, trained

MULTIPLES = 6
"""Epochs at which the whole plane is drawn."""


def section(record: StudyRecord) -> Section:
    """For each kind of labels the ways and small multiples; the table."""
    blocks: list[Figure | Table] = []
    for labels in LABELS:
        for cell in trained(record, labels)[:1]:
            blocks += [_ways(cell), _multiples(cell)]
    title = "Figure 3: the information plane"
    return Section(title, catalogue.question(record.study), (*blocks, _table(record)) if blocks else ())


def _named(cell: Mapping[str, Any], layer: str) -> str:
    return f"layer {layer}" if layer in hidden(cell) else "logits"


def _ways(cell: Mapping[str, Any]) -> Figure:
    series = tuple(
        Series(_named(cell, layer), tuple(way["i_xt"]), tuple(way["i_ty"]), group=_named(cell, layer))
        for layer, way in cell["layers"].items()
    )
    return Figure(
        title=f"Ways through the plane, {cell['labels']} labels",
        reading=f"Seed {cell['seed']}, a line a layer, from epoch {cell['epochs'][0]:,} to {cell['epochs'][-1]:,}; the "
        f"network is right on {percent(cell['train_accuracy'])} of its training images in the end.",
        x_label="I(X;T), bits",
        y_label="I(T;Y), bits",
        series=series,
        marks=(Mark("H(Y)", y=cell["label_entropy_bits"]),),
    )


def _multiples(cell: Mapping[str, Any]) -> Figure:
    count = len(cell["epochs"])
    places = sorted({round(at * (count - 1) / (MULTIPLES - 1)) for at in range(MULTIPLES)})
    series = tuple(
        Series(
            f"epoch {cell['epochs'][at]:,}",
            tuple(way["i_xt"][at] for way in cell["layers"].values()),
            tuple(way["i_ty"][at] for way in cell["layers"].values()),
            style="points",
            group=f"epoch {cell['epochs'][at]:,}",
        )
        for at in places
    )
    everything = [value for way in cell["layers"].values() for value in way["i_xt"]]
    return Figure(
        title=f"The plane at {len(places)} epochs, {cell['labels']} labels",
        reading="A point a layer; those nearer to the input say more of the image.",
        x_label="I(X;T), bits",
        y_label="I(T;Y), bits",
        series=series,
        x_range=(min(everything), max(everything)),
        y_range=(0.0, 1.05 * cell["label_entropy_bits"]),
    )


def _table(record: StudyRecord) -> Table:
    lines: list[Row] = []
    for labels in LABELS:
        cells = trained(record, labels)
        for at, layer in enumerate(hidden(cells[0]) if cells else ()):
            values = [(ends(cell)[at], cell["layers"][layer]["i_ty"][-1], memorised(cell)[at]) for cell in cells]
            means = [f"{fmean(each):.2f}" for each in zip(*values, strict=True)]
            lines.append((labels, f"layer {layer}", len(cells), *means))
    first = next(iter(record.cells.values()))
    samples, pixels = first["samples"], first.get("pixel_entropy_bits")
    bound = f", and H(X) at most {pixels:,.0f} bits, the sum of the pixels' entropies" if pixels else ""
    return Table(
        title="Where layers end",
        reading=f"Bits, means over seeds, from {samples:,} training images: I(X;T) is at most the logarithm of their "
        "number, and binned. Memorisation is the distance of I(X;T) from the least that any code needs which says as "
        "much of the label; since labels follow from images, that is I(T;Y). It is at most H(X) − "
        f"I(T;Y){bound}.",
        columns=("labels", "layer", "seeds", "I(X;T), bits", "I(T;Y), bits", "memorisation, bits"),
        rows=tuple(lines),
    )
