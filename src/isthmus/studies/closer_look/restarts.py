"""What the studies of restarts share: figures 2 and 8 of the paper differ in ε alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from isthmus.core.config import Positive
from isthmus.core.types import Figure, Section, Series, Table
from isthmus.studies import catalogue
from isthmus.studies.closer_look.presets import DIGITS_TINY, MNIST_SMALL, MnistConfig
from isthmus.studies.old.drawing import Row, band
from isthmus.studies.old.evidence import ClaimResult, Estimate, Verdict, exceeds, percent, share
from isthmus.studies.old.image_models import NAMES, Eps, Kind, Pgd, blind, claimed, estimate, healthy, modes
from isthmus.studies.old.study import Beta, StudyRecord
from isthmus.studies.store import ResultStore, Stages

OVERSTATED = 0.05
"""A share of all images that further starts break, from which on the first one misled."""
SMALL: dict[str, Any] = {**MNIST_SMALL, "starts": 20}
_KINDS = ("determ", "vib")
_SHOWN = (1, 2, 5, 10, 20, 50, 100)  # as in isthmus.studies.closer_look.attacked, which needs torch


def tiny(step_size: float) -> dict[str, Any]:
    """Few and short starts on digits."""
    return {**DIGITS_TINY, "pgd": Pgd(steps=10, step_size=step_size), "starts": 4}


class RestartConfig(MnistConfig):
    """One β under PGD with restarts.

    Attributes:
        beta: weight of the rate; the paper takes the one that was best under FGS.
        eps: radius of the ℓ∞ ball.
        pgd: the attack.
        starts: how often it starts anew on what still stands.
    """

    beta: Beta = 0.01
    eps: Eps
    pgd: Pgd = Pgd()
    starts: Positive = 100


def cells(config: RestartConfig, bench: ResultStore) -> Stages:
    """Both networks under PGD, with every seed."""
    from isthmus.studies.closer_look.attacked import restarts
    from isthmus.studies.old.laboratory import Laboratory

    laboratory, trial = Laboratory(config, bench), restarts(config.eps, config.pgd, config.starts)
    models: list[tuple[Kind, float | None]] = [("determ", None), ("vib", config.beta)]
    yield [laboratory.cell(*model, seed, trial) for seed in range(config.seeds) for model in models]


def findings(record: StudyRecord, claim: Callable[[StudyRecord, str], ClaimResult]) -> list[ClaimResult]:
    """A figure's own claim, then that a single start overstates, each in every mode.

    Args:
        claim: judges the figure's own claim in one mode; asked where both networks have a run that did not collapse.
    """
    gone = [kind for kind in _KINDS if not healthy(record, objective=kind)]
    if gone:
        reason = f"Every run collapsed, or none is there: {', '.join(gone)}."
        return [ClaimResult(claim="VIB under PGD with restarts.", verdict=Verdict.UNDECIDED, reason=reason)]
    vib = healthy(record, objective="vib")
    return [
        *(claim(record, mode) for mode in claimed(vib)),
        *(
            overstated(f"A single start overstates VIB's robust accuracy ({NAMES[mode]}).", vib, mode)
            for mode in claimed(vib)
        ),
    ]


def after_all(record: StudyRecord, kind: str, mode: str) -> Estimate:
    """Mean accuracy after all starts."""
    return estimate(healthy(record, objective=kind), mode, "standing", -1)


def overstated(claim: str, cells: Sequence[Mapping[str, Any]], mode: str) -> ClaimResult:
    """Whether a single start leaves considerably more standing than further starts do."""
    curves = [cell["modes"][mode]["standing"] for cell in cells]
    lost, last = share([curve[1] - curve[-1] for curve in curves], cells[0]["n"]), _starts(cells, mode)[-1]
    return ClaimResult(
        claim=claim,
        verdict=exceeds(lost, OVERSTATED),
        reason=f"Of all images, starts 2 to {last} break {lost}; more than {percent(OVERSTATED)} counts.",
    )


def section(record: StudyRecord, figure: str) -> Section:
    """Accuracy against the number of starts, as a curve and for some numbers in a table.

    Args:
        figure: what the paper calls it, such as "Figure 2".
    """
    title = f"{figure}: VIB on MNIST under PGD with restarts, ε = {record.config['eps']:g}"
    networks = {kind: healthy(record, objective=kind) for kind in _KINDS}
    blocks = (curve("Robust accuracy against the number of starts", networks), _table(networks))
    return Section(title, catalogue.question(record.study), blocks)


def curve(title: str, networks: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Mean accuracy over seeds against the number of starts, a line for each network and mode.

    Args:
        networks: objective -> cells under PGD of the same network with every seed.
    """
    series: list[Series] = []
    ends: list[str] = []
    for kind, cells in networks.items():
        for mode in modes(cells):
            starts = _starts(cells, mode)
            values = [estimate(cells, mode, "standing", at) for at in range(1, len(starts) + 1)]
            series.append(band(_line(kind, mode), starts, values))
            ends.append(f"{_line(kind, mode)}: {values[0]} after one start, {values[-1]} after {starts[-1]}")
    return Figure(
        title=title,
        reading=f"{'; '.join(ends)}." if ends else "Not measured yet.",
        x_label="random starts of PGD",
        y_label="fraction right",
        series=tuple(series),
        y_range=(0.0, 1.0),
    )


def _table(networks: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """The same for some numbers of starts."""
    rows: list[Row] = []
    shown: list[int] = []
    for kind, cells in networks.items():
        for mode in modes(cells):
            starts = _starts(cells, mode)
            shown = sorted({number for number in _SHOWN if number < starts[-1]} | {starts[-1]})
            left = [estimate(cells, mode, "standing", 1 + starts.index(number)).metric for number in shown]
            rows.append(
                (_line(kind, mode), len(cells), estimate(cells, mode, "clean").metric, *left, blind(cells, mode))
            )
    return Table(
        title="Means over seeds",
        reading="Zero gradients: share of looks at which the gradient was exactly zero in float32. Where there are "
        "many, PGD stands still because the cross-entropy is saturated.",
        columns=("model", "seeds", "clean", *(f"{n} start{'s' * (n > 1)}" for n in shown), "zero gradients"),
        rows=tuple(rows),
    )


def _starts(cells: Sequence[Mapping[str, Any]], mode: str) -> list[int]:
    """Numbers of starts after which it was counted what stands."""
    found = cells[0]["modes"][mode]
    return list(found.get("starts", range(1, len(found["standing"]))))


def _line(kind: str, mode: str) -> str:
    """What a line is called."""
    return "deterministic" if kind == "determ" else f"{kind.upper()}, {NAMES[mode]}"
