"""What the studies of the toy problems share: their options, how their cells are read, and how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field
from scipy.special import bdtr

from isthmus.recipe import Positive
from isthmus.studies.drawing import Row, Value, band
from isthmus.studies.evidence import Estimate, gap, share
from isthmus.studies.study import Beta, StudyConfig, StudyRecord
from isthmus.types import Figure, Mark, Metric, Series, Table

TINY: dict[str, Any] = {"betas": (0.01, 0.1), "batch_size": 256, "points": 500, "seeds": 2}
NAMES = {"mean": "VIB, mean mode", "stochastic": "VIB, stochastic mode", "determ": "linear, deterministic"}

COLLAPSED = 0.6
"""Mean accuracy on clean points up to which a model counts as collapsed: it hardly beats a coin."""


class ToyConfig(StudyConfig):
    """How toy classifiers are trained and judged.

    Attributes:
        seeds: how often everything is trained, with seeds 0, 1, 2, ...; the paper does not say.
        betas: weights of the rate, ascending. The paper does not say which it took.
        dim: size of the code.
        samples: S, codes a point, in training and in stochastic mode.
        steps: of SGD with Nesterov's momentum, each on ``batch_size`` fresh points.
        points: to judge on, the same for all.
    """

    seeds: Positive = 10
    betas: Annotated[tuple[Beta, ...], Field(min_length=1)] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5)
    dim: Positive = 2
    samples: Positive = 12
    steps: Positive = 1000
    batch_size: Positive = 1024
    lr: Annotated[float, Field(gt=0)] = 0.003
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    points: Positive = 10_000


def right(record: StudyRecord, beta: float | None, mode: str, points: str) -> list[int]:
    """Points of a set that are right, seed by seed, at one β (None: the deterministic classifier)."""
    return [cell["right"][mode][points] for cell in record.each(beta=beta)]


def estimate(record: StudyRecord, beta: float | None, mode: str, points: str) -> Estimate:
    """Mean accuracy over seeds at one β on one set of points."""
    return share(right(record, beta, mode, points), record.config["points"])


def cost(record: StudyRecord, beta: float, mode: str, points: str, level: float) -> Estimate:
    """What a set of points costs of the accuracy on clean points."""
    clean, under = (right(record, beta, mode, each) for each in ("clean", points))
    return gap(clean, under, record.config["points"], level)


def held(record: StudyRecord, mode: str) -> list[float]:
    """Values of β at which training did not collapse."""
    return [beta for beta in betas(record) if estimate(record, beta, mode, "clean").value > COLLAPSED]


def betas(record: StudyRecord) -> list[float]:
    """The values of β that are measured so far."""
    return sorted({cell["beta"] for cell in record.each(objective="vib")})


def figures(record: StudyRecord, sets: dict[str, str], marks: Mapping[str, Sequence[Mark]]) -> list[Figure]:
    """Accuracy over log₁₀ β, one figure for each set of points.

    Args:
        sets: name of a set -> what its figure is called.
        marks: name of a set -> what closed forms say there.
    """
    return [
        Figure(
            title=title,
            reading=_reading(record, name),
            x_label="log₁₀ β (weight of the rate)",
            y_label="fraction right",
            series=tuple(_series(record, name)),
            marks=tuple(marks.get(name, ())),
        )
        for name, title in sets.items()
    ]


def _series(record: StudyRecord, points: str) -> list[Series]:
    grid = betas(record)
    found = []
    for mode in ("mean", "stochastic") if grid else ():
        at = [estimate(record, beta, mode, points) for beta in grid]
        x = tuple(math.log10(beta) for beta in grid)
        found.append(band(NAMES[mode], x, at))
    if any(record.each(objective="determ")):
        level = estimate(record, None, "mean", points)
        ends = (math.log10(grid[0]), math.log10(grid[-1])) if len(grid) > 1 else (-3.0, 0.0)
        found.append(band(NAMES["determ"], ends, [level, level]))
    return found


def _reading(record: StudyRecord, points: str) -> str:
    if not betas(record) or not any(record.each(objective="determ")):
        return "Not measured yet."
    best = {m: max(betas(record), key=lambda b: estimate(record, b, m, points).value) for m in ("mean", "stochastic")}
    parts = [f"{NAMES[m]}: at most {estimate(record, b, m, points)} at β = {b:g}" for m, b in best.items()]
    return f"{'; '.join(parts)}; the deterministic classifier: {estimate(record, None, 'mean', points)}."


def closed_forms(record: StudyRecord, sets: dict[str, str]) -> Table:
    """What was measured in mean mode beside what the trained weights imply; means over seeds."""
    rows: list[Row] = []
    for beta in [None, *betas(record)]:
        cells = list(record.each(beta=beta))
        row: list[Value] = ["deterministic" if beta is None else f"VIB, β = {beta:g}"]
        for name in sets:
            row.append(estimate(record, beta, "mean", name).metric)
            row.append(_mean([cell["expected"][name] for cell in cells], "fraction"))
        row.append(None if beta is None else _mean([cell["rate"] for cell in cells], "nats"))
        rows.append(tuple(row))
    heads = [title for name in sets.values() for title in (f"{name}, measured", f"{name}, closed form")]
    outside = _outside(record, sets)
    return Table(
        title="Measured, and by the closed form",
        reading=f"In mean mode every model is a linear rule, and how often a linear rule is right is a formula of its "
        f"weights. {outside} R is the rate on clean points, an upper bound on I(X;Z). Of "
        "formulas and rates n counts seeds.",
        columns=("classifier", *heads, "R"),
        rows=tuple(rows),
    )


def _outside(record: StudyRecord, sets: dict[str, str]) -> str:
    """How many single measurements lie outside what chance allows around their formula (99.9%)."""
    tails = [
        min(bdtr(right, n, p), 1 - bdtr(right - 1, n, p) if right else 1.0)
        for cell in record.cells.values()
        for name in sets
        for right, n, p in [(cell["right"]["mean"][name], cell["n"], cell["expected"][name])]
    ]
    far = sum(tail < 0.0005 for tail in tails)
    return (
        f"Of {len(tails):,} single measurements {far} lie outside the 99.9% range of a binomial around their formula "
        f"(about {0.001 * len(tails):.1f} are to be expected, and models share their points)."
    )


def _mean(values: Sequence[float], unit: str) -> Metric:
    return Metric(value=sum(values) / len(values), unit=unit, n=len(values))
