"""What the studies of the toy problems share: their options, how their cells are read, and how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from scipy.special import bdtr

from isthmus.core.config import Positive
from isthmus.core.model_options import StdOffset
from isthmus.core.types import Figure, Mark, Metric, Series, Table
from isthmus.studies.old.drawing import Row, Value, band
from isthmus.studies.old.evidence import Estimate, gap, share
from isthmus.studies.old.study import Beta, StudyConfig, StudyRecord

TINY: dict[str, Any] = {"betas": (0.01, 0.1), "batch_size": 256, "points": 500, "seeds": 2}
MODES = ("mean", "stochastic")
DETERM = "linear, deterministic"
OF_MNIST = -5.0
"""The offset in σ that the paper states for MNIST, and the only one of records that do not say theirs."""

_BETAS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
COLLAPSED = 0.6
"""Mean accuracy on clean points up to which a model counts as collapsed: it hardly beats a coin."""


class ToyConfig(StudyConfig):
    """How toy classifiers are trained and judged.

    Attributes:
        seeds: how often everything is trained, with seeds 0, 1, 2, ...; the paper does not say.
        betas: weights of the rate, ascending. The paper does not say which it took.
        std_offsets: VIB's σ is softplus(s + offset), where s is what the linear encoder gives. The paper states an
            offset for MNIST alone, −5, and none for the toys: 0 is the plain softplus. Each is a reading of the
            paper, measured on its own.
        dim: size of the code.
        samples: S, codes a point, in training and in stochastic mode.
        steps: of SGD with Nesterov's momentum, each on ``batch_size`` fresh points.
        points: to judge on, the same for all.
    """

    seeds: Positive = 10
    betas: Annotated[tuple[Beta, ...], Field(min_length=1)] = _BETAS
    std_offsets: Annotated[tuple[StdOffset, ...], Field(min_length=1)] = (0.0, OF_MNIST)
    dim: Positive = 2
    samples: Positive = 12
    steps: Positive = 1000
    batch_size: Positive = 1024
    lr: Annotated[float, Field(gt=0)] = 0.003
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    points: Positive = 10_000


class Vib(NamedTuple):
    """Which VIB: the weight of its rate, and the offset in its σ. The deterministic classifier is None in its place."""

    beta: float
    offset: float


def softplus(offset: float) -> str:
    """How σ follows from the encoder's output s: "σ = softplus(s − 5)"."""
    shift = f" {'−' if offset < 0 else '+'} {abs(offset):g}" if offset else ""
    return f"σ = softplus(s{shift})"


def trained(record: StudyRecord, vib: Vib | None) -> list[Mapping[str, Any]]:
    """The cells of one classifier, seed by seed."""
    if vib is None:
        return list(record.each(objective="determ"))
    return [cell for cell in record.each(objective="vib", beta=vib.beta) if _offset(cell) == vib.offset]


def _offset(cell: Mapping[str, Any]) -> float:
    return float(cell.get("std_offset", OF_MNIST))


def right(record: StudyRecord, vib: Vib | None, mode: str, points: str) -> list[int]:
    """Points of a set that are right, seed by seed, of one classifier."""
    return [cell["right"][mode][points] for cell in trained(record, vib)]


def estimate(record: StudyRecord, vib: Vib | None, mode: str, points: str) -> Estimate:
    """Mean accuracy over seeds of one classifier on one set of points."""
    return share(right(record, vib, mode, points), record.config["points"])


def cost(record: StudyRecord, vib: Vib, mode: str, points: str, level: float) -> Estimate:
    """What a set of points costs of the accuracy on clean points."""
    clean, under = (right(record, vib, mode, each) for each in ("clean", points))
    return gap(clean, under, record.config["points"], level)


def held(record: StudyRecord, offset: float, mode: str) -> list[Vib]:
    """Those of the grid at which training did not collapse."""
    return [vib for vib in grid(record, offset) if estimate(record, vib, mode, "clean").value > COLLAPSED]


def readings(record: StudyRecord) -> list[float]:
    """The offsets in σ that the study is about, measured or not; of records that do not say theirs, the only one."""
    return list(record.config.get("std_offsets", (OF_MNIST,)))


def offsets(record: StudyRecord) -> list[float]:
    """The offsets in σ that are measured so far, the largest first."""
    return sorted({_offset(cell) for cell in record.each(objective="vib")}, reverse=True)


def grid(record: StudyRecord, offset: float) -> list[Vib]:
    """What is measured so far with one offset, β ascending."""
    cells = [cell for cell in record.each(objective="vib") if _offset(cell) == offset]
    return [Vib(beta, offset) for beta in sorted({cell["beta"] for cell in cells})]


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
    found = []
    for offset in offsets(record):
        vibs = grid(record, offset)
        for mode in MODES:
            at = [estimate(record, vib, mode, points) for vib in vibs]
            found.append(band(f"VIB, {mode} mode, {softplus(offset)}", [math.log10(vib.beta) for vib in vibs], at))
    if trained(record, None):
        level = estimate(record, None, "mean", points)
        betas = [vib.beta for offset in offsets(record) for vib in grid(record, offset)]
        ends = (math.log10(min(betas)), math.log10(max(betas))) if len(set(betas)) > 1 else (-3.0, 0.0)
        found.append(band(DETERM, ends, [level, level]))
    return found


def _reading(record: StudyRecord, points: str) -> str:
    if not offsets(record) or not trained(record, None):
        return "Not measured yet."
    parts = []
    for offset in offsets(record):
        for mode in MODES:
            best = max(grid(record, offset), key=lambda vib: estimate(record, vib, mode, points).value)
            top = estimate(record, best, mode, points)
            parts.append(f"VIB in {mode} mode with {softplus(offset)}: at most {top} at β = {best.beta:g}")
    return f"{'; '.join(parts)}; the deterministic classifier: {estimate(record, None, 'mean', points)}."


def closed_forms(record: StudyRecord, sets: dict[str, str]) -> Table:
    """What was measured in mean mode beside what the trained weights imply; means over seeds."""
    rows: list[Row] = []
    for vib in [None, *(vib for offset in offsets(record) for vib in grid(record, offset))]:
        cells = trained(record, vib)
        row: list[Value] = [
            "deterministic" if vib is None else f"VIB, {softplus(vib.offset)}, β = {vib.beta:g}",
        ]
        for name in sets:
            row.append(estimate(record, vib, "mean", name).metric)
            row.append(_mean([cell["expected"][name] for cell in cells], "fraction"))
        row.append(None if vib is None else _mean([cell["rate"] for cell in cells], "nats"))
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
