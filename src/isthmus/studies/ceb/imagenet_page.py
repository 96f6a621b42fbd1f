"""The page of the ImageNet studies: errors against ρ, and for each way of training ours beside the printed column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from isthmus.core.format import NOT_MEASURED
from isthmus.core.types import Figure, Metric, Section, Series, Table
from isthmus.studies import catalogue
from isthmus.studies.ceb.imagenet import VARIANTS
from isthmus.studies.ceb.imagenet_claims import named
from isthmus.studies.ceb.imagenet_results import (
    NUMBERS,
    ROWS,
    Cells,
    cells_at,
    chosen,
    error,
    places,
    printed,
    printed_value,
    why,
)
from isthmus.studies.old.drawing import Row, band
from isthmus.studies.old.evidence import percent
from isthmus.studies.old.image_models import healthy
from isthmus.studies.old.study import StudyRecord


def section(record: StudyRecord, title: str) -> Section:
    """Six figures, a table for each way of training, and one of all models."""
    tried = [variant for variant in VARIANTS if healthy(record, variant=variant)]
    figures = [_figure(record, tried, name) for name in NUMBERS]
    tables = [_beside(record, variant) for variant in reversed(tried)]
    question = catalogue.question(record.study)
    return Section(title, question, (*figures, *tables, _all(record, tried)) if tried else ())


def _figure(record: StudyRecord, tried: Sequence[str], name: str) -> Figure:
    """A number over ρ, for each way of training; a dashed line is its deterministic network."""
    series: list[Series] = []
    said = []
    everywhere = [rho for variant in tried for rho in places(record, variant)]
    for variant in tried:
        found = {rho: error(cells_at(record, variant, rho), name) for rho in places(record, variant)}
        known = {rho: value for rho, value in found.items() if value is not None}
        if known:
            line = band(VARIANTS[variant], list(known), list(known.values()))
            series.append(replace(line, name=f"{line.name}, CEB"))
            ends = [f"{percent(known[rho].value)} at ρ = {rho:g}" for rho in dict.fromkeys((min(known), max(known)))]
            said.append(f"{VARIANTS[variant]}: {', '.join(ends)}")
        plain = error(cells_at(record, variant, None), name)
        if plain is not None and everywhere:
            label, ends_at = f"{VARIANTS[variant]}, deterministic", (min(everywhere), max(everywhere))
            series.append(Series(label, ends_at, (plain.value,) * 2, style="dashed", group=VARIANTS[variant]))
            said.append(f"deterministic: {percent(plain.value)}")
    return Figure(
        title=NUMBERS[name][0].upper() + NUMBERS[name][1:] if name != "mce" else "mCE",
        reading=f"{'; '.join(said)}." if said else f"Not measured: {_reason(record, name)}.",
        x_label="ρ",
        y_label="share of AlexNet's error" if name == "mce" else "error",
        series=tuple(series),
    )


def _reason(record: StudyRecord, name: str) -> str:
    return next(filter(None, (why([cell], name) for cell in record.cells.values())), "no model yet")


def _beside(record: StudyRecord, variant: str) -> Table:
    """The printed table's two columns of a way of training, ours to the left of each."""
    depth, rho = record.config["depth"], chosen(record, variant)
    columns: list[tuple[str, list[str | float | Metric | None]]] = []
    for knob in dict.fromkeys((rho, None)):  # where no CEB model left chance there is no ρ
        cells = cells_at(record, variant, knob)
        model = printed(depth, variant, bottleneck=knob is not None)
        head = "deterministic" if knob is None else f"CEB, ρ = {knob:g}"
        columns.append((f"{head}, here", [_metric(cells, row) for row in ROWS]))
        if model is not None:
            head = model.name if model.rho is None else f"{model.name}, ρ = {model.rho:g}"
            columns.append((f"{head}, printed", [percent(printed_value(model, row)) for row in ROWS]))
    titles, values = zip(*columns, strict=True)
    rows: list[Row] = [(ROWS[row], *cells) for row, cells in zip(ROWS, zip(*values, strict=True), strict=True)]
    return Table(
        title=f"ResNet-{depth}, {VARIANTS[variant]}: beside the paper's table",
        reading="Errors, lower is better; mCE is relative to AlexNet. ρ is that of the best clean accuracy, chosen on "
        f"the test set as in the paper. {_absent(record)}".strip(),
        columns=("number", *titles),
        rows=tuple(rows),
    )


def _metric(cells: Cells, row: str) -> Metric | None:
    found = error(cells, row)
    if found is not None:
        wilsons = row in ("clean", "imagenet_a", "pgd_l2", "pgd_linf")
        return (replace(found, of_images="Wilson") if wilsons else found).metric
    return Metric(value=None, unit="fraction", n=0, note=why(cells, row)) if cells else None


def _absent(record: StudyRecord) -> str:
    """Why test sets are not there, each reason once."""
    reasons = {reason: None for cell in record.cells.values() for reason in cell["missing"].values()}
    first = list(reasons)[:2]
    return f"{NOT_MEASURED[0].upper()}{NOT_MEASURED[1:]} is what is not there. {' '.join(first)}" if first else ""


def _all(record: StudyRecord, tried: Sequence[str]) -> Table:
    rows: list[Row] = []
    for variant in tried:
        for rho in (None, *places(record, variant)):
            cells = cells_at(record, variant, rho)
            if cells:
                star = " *" if rho is not None and rho == chosen(record, variant) else ""
                rows.append((named(variant, rho) + star, len(cells), *(_metric(cells, name) for name in NUMBERS)))
    return Table(
        title="All models",
        reading="* is the chosen ρ: the lowest whose clean accuracy is within "
        f"{percent(record.config['tie'])} of the best.",
        columns=("model", "seeds", *NUMBERS.values()),
        rows=tuple(rows),
    )
