"""The page of the 28×10 study: figure 2, curves of the best models as in figure 3, and ours beside the printed."""

from __future__ import annotations

from typing import Any

from isthmus.core.types import Section, Table
from isthmus.studies import catalogue
from isthmus.studies.ceb import cifar_shown, printed
from isthmus.studies.ceb.cifar_choice import Model, best_run
from isthmus.studies.ceb.cifar_claims import NORMS, ball, comparable_to_madry, under_pgd
from isthmus.studies.ceb.cifar_shown import exactly, why_absent
from isthmus.studies.ceb.sweeps import FAMILIES, best, cells_at, clean, left, named, places
from isthmus.studies.old.drawing import Row
from isthmus.studies.old.evidence import percent
from isthmus.studies.old.image_models import healthy
from isthmus.studies.old.study import StudyRecord

KINDS = ("ceb", "ceb_bn", "determ", "determ_bn", "determ_pgd")
CURVES = 4
"""CEB models in figure 3; which ρ they have is printed in its legend alone."""


def section(record: StudyRecord) -> Section:
    """Accuracy and attacks over ρ; curves over ε; transfers; the printed numbers; a table of all."""
    panels = (
        cifar_shown.over_rho(record, "Clean accuracy", KINDS, clean, printed.MADRY.clean),
        *(
            cifar_shown.over_rho(
                record,
                f"PGD at {ball(record, norm)}",
                KINDS,
                lambda cells, norm=norm: under_pgd(record, cells, norm),  # type: ignore[misc]
                # the ε of what is printed in ℓ2 is not
                printed.MADRY.linf if norm == "linf" and comparable_to_madry(record) else None,
            )
            for norm in NORMS
        ),
        *(cifar_shown.over_eps(record, norm, _shown(record), transfers=False) for norm in NORMS),
    )
    tables = (cifar_shown.transfer_table(record), _printed(record), _all(record))
    title = "Figures 2 and 3: CEB and deterministic 28×10 networks on CIFAR-10"
    trained = any(healthy(record, objective=kind) for kind in KINDS)
    return Section(title, catalogue.question(record.study), (*panels, *tables) if trained else ())


def _shown(record: StudyRecord) -> list[Model]:
    """The best run at four values of ρ spread over those that trained, and of the deterministic network."""
    grid = places(record, "ceb")
    last = len(grid) - 1
    chosen = sorted({grid[round(last * part / (CURVES - 1))] for part in range(CURVES)}) if grid else []
    runs = [best_run(cells_at(record, "ceb", rho)) for rho in chosen] + [best_run(cells_at(record, "determ"))]
    return [run for run in runs if run is not None]


def _printed(record: StudyRecord) -> Table:
    low, high = printed.CEB_28X10_CLEAN
    accuracies = [clean(cells_at(record, "ceb", rho)).value for rho in places(record, "ceb")]
    ours = f"{percent(min(accuracies))} to {percent(max(accuracies))}" if accuracies else None
    rows: list[Row] = [
        _beside(record, "determ", printed.DETERMINISTIC_28X10),
        _beside(record, "determ_bn", printed.DETERMINISTIC_28X10_BATCH_NORM),
        (
            "CEB, all ρ that trained",
            ours,
            f"{exactly(low)} to {exactly(high)}",
            *_range(record, "linf"),
            *_ceb_l2(record),
        ),
        _beside(record, "determ_pgd", printed.MADRY),
    ]
    return Table(
        title="Ours beside the printed numbers",
        reading="The ε of the printed ℓ2 numbers is not printed. What is printed beside the adversarially trained "
        f"network is of Madry et al.'s, which has another architecture: {printed.MADRY.source}.",
        columns=("model", "clean", "printed", ball(record, "linf"), "printed", ball(record, "l2"), "printed"),
        rows=tuple(rows),
    )


def _beside(record: StudyRecord, kind: str, paper: printed.CifarModel) -> Row:
    cells = cells_at(record, kind)
    found: list[Any] = [FAMILIES[kind]]
    ours = [clean(cells), *(under_pgd(record, cells, norm) for norm in NORMS)] if cells else [None] * 3
    for one, value in zip(ours, (paper.clean, paper.linf, paper.l2), strict=True):
        found += [one and one.metric, None if value is None else exactly(value)]
    return tuple(found)


def _range(record: StudyRecord, norm: str) -> tuple[str | None, None]:
    values = [under_pgd(record, cells_at(record, "ceb", rho), norm).value for rho in places(record, "ceb")]
    return (f"{percent(min(values))} to {percent(max(values))}" if values else None), None


def _ceb_l2(record: StudyRecord) -> tuple[str | None, str]:
    return _range(record, "l2")[0], f"above {exactly(printed.CEB_28X10_L2_ABOVE)}"


def _all(record: StudyRecord) -> Table:
    rows: list[Row] = []
    chosen = best(record, "ceb")
    every = cifar_shown.shift_names(record)
    names = [name for name in every if any("right" in cell for cell in record.each(shift=name))]
    absent = "".join(f" {name}: not measured. {why_absent(record, name)}" for name in every if name not in names)
    for kind in KINDS:
        knobs: list[float | None] = [*sorted({c["knob"] for c in record.each(objective=kind) if c["knob"] is not None})]
        for rho in knobs or [None]:
            cells = cells_at(record, kind, rho)
            star = " *" if kind == "ceb" and rho == chosen else ""
            name = f"{named(kind, rho)}{star}"
            run = best_run(cells)
            values = (
                (
                    clean(cells).metric,
                    *(under_pgd(record, cells, norm).metric for norm in NORMS),
                    *(left(cells, f"ensemble {norm}").metric for norm in NORMS),
                    *(cifar_shown.shift_value(record, shift, run) for shift in names if run),
                )
                if cells
                else (None,) * (5 + len(names))
            )
            rows.append((name, cifar_shown.run_counts(record, kind, rho), *values))
    return Table(
        title="Means over seeds",
        reading="* is the papers' choice of ρ: the best clean accuracy, and the lower of equals, made on the test set. "
        f"Ensembles are at {ball(record, 'linf')} and {ball(record, 'l2')}; sets under shift are of the run with the "
        f"best clean accuracy.{absent}",
        columns=("model", "trained", "clean", "PGD ℓ∞", "PGD ℓ2", "ensemble ℓ∞", "ensemble ℓ2", *names),
        rows=tuple(rows),
    )
