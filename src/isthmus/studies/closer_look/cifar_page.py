"""How figures 3 and 9 are drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from isthmus.core.types import Figure, Mark, Section, Series, Table
from isthmus.studies import catalogue
from isthmus.studies.closer_look import restarts
from isthmus.studies.closer_look.cifar_claims import ADVERSARIALLY_TRAINED, after_all, cells_of, knob_text, single
from isthmus.studies.old import image_models
from isthmus.studies.old.drawing import Row, dots
from isthmus.studies.old.evidence import percent, share
from isthmus.studies.old.image_models import NAMES, blind, estimate
from isthmus.studies.old.study import StudyRecord


def section(record: StudyRecord, title: str) -> Section:
    """Single runs and the ensemble over the trade-off, restarts at one value, and all of it as a table."""
    kind, reference = record.config["kind"], record.config["reference"]
    networks = {"determ": cells_of(record, "pgd", "determ"), kind: cells_of(record, "pgd", kind, reference)}
    blocks = (
        _over_knobs(record, "pgd", "A single run of PGD"),
        _over_knobs(record, "ensemble", "AA+MT"),
        restarts.curve(f"PGD with restarts, {knob_text(record, reference)}", networks),
        _table(record),
    )
    return Section(title, catalogue.question(record.study), blocks)


def _over_knobs(record: StudyRecord, attack: str, title: str) -> Figure:
    counts = single if attack == "pgd" else after_all
    ours, plain = cells_of(record, attack, record.config["kind"]), cells_of(record, attack, "determ")
    series: list[Series] = []
    for mode in image_models.modes(ours):
        name = f"{record.config['kind'].upper()}, {NAMES[mode]}"
        series.append(dots(name, [_x(record, cell) for cell in ours], counts(ours, mode), ours[0]["n"]))
    if plain:  # the deterministic networks have no trade-off: beside the axis' end
        places = [_x(record, cell) for cell in ours] or [0.0]
        beside = max(places) + 0.08 * max(max(places) - min(places), 1.0)
        series.append(dots("deterministic", [beside] * len(plain), counts(plain), plain[0]["n"]))
    marks = (Mark("adversarially trained (Madry et al.)", y=ADVERSARIALLY_TRAINED),) if attack == "pgd" else ()
    label = "ρ" if record.config["kind"] == "ceb" else "log₁₀ β"
    return Figure(
        title=title,
        reading=_reading(record, attack),
        x_label=f"{label}; one point a model, the deterministic ones at the right",
        y_label="fraction right",
        series=tuple(series),
        marks=marks,
        y_range=(0.0, 1.0),
    )


def _reading(record: StudyRecord, attack: str) -> str:
    counts = single if attack == "pgd" else after_all
    parts = []
    for kind in ("determ", record.config["kind"]):
        cells = cells_of(record, attack, kind)
        if cells:
            left = [count / cells[0]["n"] for count in counts(cells)]
            name = "deterministic" if kind == "determ" else kind.upper()
            parts.append(f"{name}: {percent(min(left))} to {percent(max(left))} over {len(left)} models in mean mode")
    return f"{'; '.join(parts)}." if parts else "Not measured yet."


def _table(record: StudyRecord) -> Table:
    collapsed = sum(c["collapsed"] for c in record.cells.values() if c["attack"] == "ensemble")
    rows: list[Row] = []
    knobs: list[float | None] = [None, *record.config["knobs"]]
    for knob in knobs:
        kind = "determ" if knob is None else record.config["kind"]
        weak, strong = (cells_of(record, attack, kind, knob) for attack in ("pgd", "ensemble"))
        for mode in image_models.modes(strong) if weak else ():
            name = "deterministic" if knob is None else f"{knob_text(record, knob)}, {NAMES[mode]}"
            n = weak[0]["n"]
            left = [share(single(weak, mode), n), estimate(strong, mode, "left")]
            clean = estimate(strong, mode, "clean").metric
            rows.append((name, len(strong), clean, *(one.metric for one in left), blind(weak, mode)))
    return Table(
        title="Means over seeds",
        reading=f"{collapsed} collapsed models are left out. Zero gradients: share of PGD's looks at which "
        "the gradient was exactly zero in float32.",
        columns=("model", "seeds", "clean", "PGD, one start", "AA+MT", "zero gradients"),
        rows=tuple(rows),
    )


def _x(record: StudyRecord, cell: Mapping[str, Any]) -> float:
    knob: float = cell["knob"]
    return knob if record.config["kind"] == "ceb" else math.log10(knob)
