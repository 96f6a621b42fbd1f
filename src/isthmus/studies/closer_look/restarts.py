"""What the studies of restarts share: figures 2 and 8 of the paper differ in ε alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from isthmus.studies.closer_look.image_models import (
    NAMES,
    Eps,
    ImageConfig,
    Pgd,
    Positive,
    Row,
    band,
    blind,
    estimate,
    healthy,
    modes,
)
from isthmus.studies.evidence import Estimate, Finding, Verdict, exceeds, percent, share
from isthmus.studies.study import StudyRecord
from isthmus.studies.workbench import Workbench
from isthmus.types import Figure, Section, Series, Table

OVERSTATED = 0.05
"""A share of all images that further starts break, from which on the first one misled."""
_SHOWN = (1, 2, 5, 10, 20, 50, 100)


class RestartConfig(ImageConfig):
    """One β under PGD with restarts.

    Attributes:
        beta: weight of the rate; the paper takes the one that was best under FGS.
        eps: radius of the ℓ∞ ball.
        pgd: the attack.
        starts: how often it starts anew on what still stands.
    """

    beta: Annotated[float, Field(gt=0, lt=1)] = 0.01
    eps: Eps
    pgd: Pgd = Pgd()
    starts: Positive = 100


def run(config: RestartConfig, bench: Workbench) -> None:
    """Train and attack both networks with every seed."""
    from isthmus.studies.closer_look.attacked import Laboratory, restarts

    laboratory, trial = Laboratory(config, bench), restarts(config.eps, config.pgd, config.starts)
    bench.plan(2 * config.seeds)
    for seed in range(config.seeds):
        laboratory.cell("determ", None, seed, trial)
        laboratory.cell("vib", config.beta, seed, trial)


def missing(record: StudyRecord) -> Finding | None:
    """A finding in place of all others where a network has no run that did not collapse."""
    gone = [kind for kind in ("determ", "vib") if not healthy(record, objective=kind)]
    if not gone:
        return None
    because = f"Every run collapsed, or none is there: {', '.join(gone)}."
    return Finding(claim="VIB under PGD with restarts.", verdict=Verdict.UNDECIDED, because=because)


def after(record: StudyRecord, kind: str, mode: str, starts: int) -> Estimate:
    """Mean accuracy after so many starts; −1 for all of them."""
    return estimate(healthy(record, objective=kind), mode, "standing", starts)


def overstated(record: StudyRecord, mode: str, kind: str = "vib", name: str = "VIB") -> Finding:
    """Whether a single start leaves more standing than further starts do."""
    cells = healthy(record, objective=kind)
    lost, starts = broken_later(cells, mode)
    return Finding(
        claim=f"A single start overstates {name}'s robust accuracy ({NAMES[mode]}).",
        verdict=exceeds(lost, OVERSTATED),
        because=f"Of all images, starts 2 to {starts} break {lost}; more than {percent(OVERSTATED)} counts.",
    )


def broken_later(cells: Sequence[Mapping[str, Any]], mode: str) -> tuple[Estimate, int]:
    """Share of all images that a later start breaks and the first does not; and how many starts there are."""
    curves = [cell["modes"][mode]["standing"] for cell in cells]
    return share([curve[1] - curve[-1] for curve in curves], cells[0]["n"]), len(curves[0]) - 1


def section(record: StudyRecord, title: str, question: str) -> Section:
    """Accuracy against the number of starts, as a curve and for some numbers in a table."""
    return Section(title, question, (curve(record, ("determ", "vib")), table(record, ("determ", "vib"))))


def curve(record: StudyRecord, kinds: tuple[str, ...], **wanted: Any) -> Figure:
    """Mean accuracy over seeds against the number of starts, a line for each network and mode."""
    series: list[Series] = []
    ends: list[str] = []
    for kind in kinds:
        cells = healthy(record, objective=kind, **(wanted if kind != "determ" else {}))
        for mode in modes(cells):
            starts = range(1, len(cells[0]["modes"][mode]["standing"]))
            values = [estimate(cells, mode, "standing", number) for number in starts]
            series.append(band(line(kind, mode), list(starts), values))
            ends.append(f"{line(kind, mode)}: {values[0]} after one start, {values[-1]} after {len(values)}")
    return Figure(
        title="Robust accuracy against the number of starts",
        reading=f"{'; '.join(ends)}." if ends else "Not measured yet.",
        x_label="random starts of PGD",
        y_label="fraction right",
        series=tuple(series),
        y_range=(0.0, 1.0),
    )


def table(record: StudyRecord, kinds: tuple[str, ...], **wanted: Any) -> Table:
    """The same for some numbers of starts."""
    rows: list[Row] = []
    shown: list[int] = []
    for kind in kinds:
        cells = healthy(record, objective=kind, **(wanted if kind != "determ" else {}))
        for mode in modes(cells):
            last = len(cells[0]["modes"][mode]["standing"]) - 1
            shown = sorted({number for number in _SHOWN if number < last} | {last})
            left = [estimate(cells, mode, "standing", number).metric for number in shown]
            rows.append(
                (line(kind, mode), len(cells), estimate(cells, mode, "clean").metric, *left, blind(cells, mode))
            )
    return Table(
        title="Means over seeds",
        reading="Zero gradients: share of looks at which the gradient was exactly zero in float32. Where there are "
        "many, PGD stands still because the cross-entropy is saturated.",
        columns=("model", "seeds", "clean", *(f"{n} start{'s' * (n > 1)}" for n in shown), "zero gradients"),
        rows=tuple(rows),
    )


def line(kind: str, mode: str) -> str:
    """What a line is called."""
    return "deterministic" if kind == "determ" else f"{kind.upper()}, {NAMES[mode]}"
