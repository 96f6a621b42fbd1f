"""The information plane, the bounds, the distances to the MNI point, and the Fisher information."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from isthmus.core.display import Figure, Mark, Section, Series, Table
from isthmus.core.format import listed, value_text
from isthmus.core.types import CheckResult
from isthmus.report.sections import common
from isthmus.report.sections.common import Results

_BOUNDS = {
    "rate R, at least I(X;Z)": common.overall("rate"),
    "residual information ReX, at least I(X;Z|Y)": common.overall("residual"),
    "I(X;Z), lower bound": common.overall("rate_lower"),
    "I(X;Z), upper bound": common.overall("rate_upper"),
    "I(Y;Z), lower bound": common.overall("i_yz_lower"),
    "cross-entropy = H(Y) − that bound": common.overall("cross_entropy"),
}
_DISTANCES = {
    "excess: I(X;Z) lower bound − I(X;Y)": common.overall("excess_rate"),
    "missing: I(X;Y) − I(Y;Z) lower bound": common.overall("missing"),
    "distance to the MNI point": common.overall("mni_distance"),
    "I(Y;Z) by b and m": common.overall("i_yz_backward"),
    "consistency: |that − (H(Y) − cross-entropy)|": common.overall("consistency"),
}
_FISHER = {
    "code e(z|x): trace": common.overall("fisher_code_trace"),
    "code e(z|x): largest eigenvalue": common.overall("fisher_code_largest"),
    "prediction p(y|x): trace": common.overall("fisher_prediction_trace"),
    "prediction p(y|x): largest eigenvalue": common.overall("fisher_prediction_largest"),
}
_COMPARED = {
    "rate R (nats)": "rate",
    "I(Y;Z) ≥ (nats)": "i_yz_lower",
    "distance to MNI (nats)": "mni_distance",
}


def section(results: Results) -> Section:
    """The information plane with the MNI point, the bounds, and the distances to that point, all in nats."""
    plane = {name: result for name, result in results.items() if result.metrics.get("rate_lower")}
    columns = {title: common.column(results, metric) for title, metric in _COMPARED.items()}
    return Section(
        title="Information",
        question="How much does the code contain about the image, and how much of that about the label?",
        blocks=(
            *((_plane(plane),) if plane else ()),
            _bounds(results),
            *((_distances(plane),) if plane else ()),
            *_fisher(results),
        ),
        columns={title: cells for title, cells in columns.items() if cells},
        headlines={
            name: common.headline(metric, title)
            for key, title in (("rate_lower", "I(X;Z), lower bound"), ("rate", "rate R ≥ I(X;Z)"))
            for name, metric in common.column(plane, key).items()
        },
    )


def _plane(results: Results) -> Figure:
    entropies, points = _by(results, "label_entropy"), _by(results, "i_xy")
    series = []
    for name, result in results.items():
        lower, i_yz = _value(result, "rate_lower"), _value(result, "i_yz_lower")
        upper = min(_value(result, "rate_upper"), _value(result, "rate"))
        series.append(Series(name, (lower, max(lower, upper)), (i_yz, i_yz), group=name))
    marks = [Mark(f"MNI{_of(points, point)}", x=point, y=point) for point in points]
    marks += [Mark(f"H(Y){_of(entropies, entropy)}", y=entropy) for entropy in entropies]
    ceiling = _each(_by(results, "block"), lambda block: f"ln {block:.0f} = {math.log(block):.2f}")
    return Figure(
        title="Information plane",
        reading=(
            f"{_nearest(results, points)} Each line runs from the lower to the upper bound on I(X;Z); the lower one "
            f"cannot exceed {ceiling}."
        ),
        x_label="I(X;Z), nats",
        y_label="I(Y;Z), lower bound, nats",
        series=tuple(series),
        marks=tuple(marks),
    )


def _of(groups: Mapping[float, list[str]], value: float) -> str:
    return f" of {listed(groups[value])}" if len(groups) > 1 else ""


def _nearest(results: Results, points: Mapping[float, list[str]]) -> str:
    """The classifiers nearest to the MNI point, if all have the same one."""
    if len(points) > 1:
        each = _each(points, lambda point: f"{point:.2f} nats")
        return f"Their MNI points differ (I(X;Y) = {each}), so distances to them are not compared."
    away = common.column(results, "mni_distance")
    at = f"the MNI point is at {next(iter(points)):.2f} nats on both axes"
    if not away:
        return f"{at[0].upper()}{at[1:]}."
    return f"{common.superlative(away, 'distance to the MNI point', 'smallest', value_text)}; {at}."


def _by(results: Results, detail: str) -> dict[float, list[str]]:
    """The classifiers by a number of their details: the labels' entropy, I(X;Y) or the block size."""
    found: dict[float, list[str]] = {}
    for name, result in results.items():
        found.setdefault(round(float(result.details[detail]), 9), []).append(name)
    return found


def _each(groups: Mapping[float, list[str]], text: Callable[[float], str]) -> str:
    """A value that all share, or each with its classifiers: "0.69 for a and b and 2.30 for c"."""
    if len(groups) == 1:
        return text(next(iter(groups)))
    return listed([f"{text(value)} for {listed(names)}" for value, names in groups.items()])


def _value(result: CheckResult, name: str) -> float:
    metric = result.metrics.get(name)
    return math.inf if metric is None or metric.value is None else metric.value


def _bounds(results: Results) -> Table:
    each = _each(_by(results, "label_entropy"), lambda entropy: f"{entropy:.3f} nats")
    reading = f"H(Y) = {each}. Intervals: 95%, bootstrap over examples."
    return common.table("Information in nats", reading, results, _BOUNDS)


def _distances(results: Results) -> Table:
    each = _each(_by(results, "i_xy"), lambda point: f"{point:.3f} nats")
    reading = (
        f"I(X;Y) = {each}. At the MNI point, residual information and all columns but I(Y;Z) are 0. The distance is "
        "Euclidean, in the plane above. Consistency is the difference between the two estimates of I(Y;Z), by b(z|y) "
        "and by c(y|z). The intervals of distance and consistency include 0 if the means are not shown to differ from "
        "it."
    )
    return common.table("Distance to the MNI point, in nats", reading, results, _DISTANCES)


def _fisher(results: Results) -> list[Table]:
    reading = (
        "Means over images, in nats per squared unit of ℓ2 distance between images in [0, 1]. A small perturbation of "
        "size δ changes the code or the prediction by a KL divergence of at most δ²/2 times the largest eigenvalue; "
        "the average over directions is δ²/2 times the trace divided by the number of pixels. Large perturbations, as "
        "of attacks, may behave differently: a saturated classifier has almost no Fisher information and can still be "
        "attacked. Intervals: 95%, bootstrap over examples."
    )
    found = common.table("Fisher information about the image", reading, results, _FISHER)
    return [found] if len(found.columns) > 1 else []
