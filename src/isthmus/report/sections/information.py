"""The information plane, the bounds, the distances to the MNI point, and the Fisher information."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from isthmus.core.display import Figure, Headline, Mark, Section, Series, Table
from isthmus.core.format import listed
from isthmus.core.types import CheckResult
from isthmus.report.sections.common import Results, column

BOUNDS = {
    "rate": "rate R, at least I(X;Z)",
    "residual": "residual information ReX, at least I(X;Z|Y)",
    "rate_lower": "I(X;Z), lower bound",
    "rate_upper": "I(X;Z), upper bound",
    "i_yz_lower": "I(Y;Z), lower bound",
    "cross_entropy": "cross-entropy = H(Y) − that bound",
}
MNI = {
    "excess_rate": "excess: I(X;Z) lower bound − I(X;Y)",
    "missing": "missing: I(X;Y) − I(Y;Z) lower bound",
    "mni_distance": "distance to the MNI point",
    "i_yz_backward": "I(Y;Z) by b and m",
    "consistency": "consistency: |that − (H(Y) − cross-entropy)|",
}
FISHER = {
    "fisher_code_trace": "code e(z|x): trace",
    "fisher_code_largest": "code e(z|x): largest eigenvalue",
    "fisher_prediction_trace": "prediction p(y|x): trace",
    "fisher_prediction_largest": "prediction p(y|x): largest eigenvalue",
}
_COLUMNS = {
    "rate R (nats)": "rate",
    "I(Y;Z) ≥ (nats)": "i_yz_lower",
    "distance to MNI (nats)": "mni_distance",
}


def section(results: Results) -> Section:
    """The information plane with the MNI point, the bounds, and the distances to that point, all in nats."""
    plane = {name: result for name, result in results.items() if result.metrics.get("rate_lower")}
    columns = {title: column(results, metric) for title, metric in _COLUMNS.items()}
    headlines = {
        name: Headline(metric, title)
        for key, title in (("rate_lower", "I(X;Z), lower bound"), ("rate", "rate R ≥ I(X;Z)"))
        for name, metric in column(plane, key).items()
    }
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
        headlines=headlines,
    )


def _plane(results: Results) -> Figure:
    entropies, points = _entropies(results), _points(results)
    blocks = _grouped(results, lambda result: result.details["block"])
    series = []
    for name, result in results.items():
        lower, i_yz = _value(result, "rate_lower"), _value(result, "i_yz_lower")
        upper = min(_value(result, "rate_upper"), _value(result, "rate"))
        series.append(Series(name, (lower, max(lower, upper)), (i_yz, i_yz), group=name))
    marks = [Mark(f"MNI{_of(points, point)}", x=point, y=point) for point in points]
    marks += [Mark(f"H(Y){_of(entropies, entropy)}", y=entropy) for entropy in entropies]
    ceiling = _each({f"ln {block:.0f} = {math.log(block):.2f}": names for block, names in blocks.items()})
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
    """The classifier nearest to the MNI point, if all have the same one."""
    if len(points) > 1:
        each = _each({f"{point:.2f} nats": names for point, names in points.items()})
        return f"Their MNI points differ (I(X;Y) = {each}), so distances to them are not compared."
    point = next(iter(points))
    away = {name: round(_distance(result, point), 2) for name, result in results.items()}
    nearest = [name for name in away if away[name] == min(away.values())]
    if len(away) > 1 and len(nearest) == len(away):
        return f"All have the same distance to the MNI point ({point:.2f} nats on both axes)."
    verb = "is" if len(nearest) == 1 else "are"
    return f"{listed(nearest)} {verb} nearest to the MNI point ({point:.2f} nats on both axes)."


def _grouped(results: Results, key: Callable[[CheckResult], float]) -> dict[float, list[str]]:
    """The classifiers by a number, such as the entropy of the audited labels."""
    found: dict[float, list[str]] = {}
    for name, result in results.items():
        found.setdefault(round(float(key(result)), 9), []).append(name)
    return found


def _entropies(results: Results) -> dict[float, list[str]]:
    return _grouped(results, lambda result: result.details["label_entropy"])


def _points(results: Results) -> dict[float, list[str]]:
    """I(X;Y), both coordinates of the MNI point."""
    return _grouped(results, lambda result: result.details["i_xy"])


def _each(values: Mapping[str, list[str]]) -> str:
    """A value that all share, or each with its classifiers: "0.69 for a and b and 2.30 for c"."""
    if len(values) == 1:
        return next(iter(values))
    return listed([f"{value} for {listed(names)}" for value, names in values.items()])


def _value(result: CheckResult, name: str) -> float:
    metric = result.metrics.get(name)
    return math.inf if metric is None or metric.value is None else metric.value


def _distance(result: CheckResult, point: float) -> float:
    distance = math.hypot(_value(result, "rate_lower") - point, _value(result, "i_yz_lower") - point)
    return math.inf if math.isnan(distance) else distance


def _bounds(results: Results) -> Table:
    each = _each({f"{entropy:.3f} nats": names for entropy, names in _entropies(results).items()})
    reading = f"H(Y) = {each}. Intervals: 95%, bootstrap over examples."
    return _table("Information in nats", reading, results, BOUNDS)


def _distances(results: Results) -> Table:
    each = _each({f"{point:.3f} nats": names for point, names in _points(results).items()})
    reading = (
        f"I(X;Y) = {each}. At the MNI point, residual information and all columns but I(Y;Z) are 0. The distance is "
        "Euclidean, in the plane above. Consistency is the difference between the two estimates of I(Y;Z), by b(z|y) "
        "and by c(y|z). The intervals of distance and consistency include 0 if the means are not shown to differ from "
        "it."
    )
    return _table("Distance to the MNI point, in nats", reading, results, MNI)


def _fisher(results: Results) -> tuple[Table, ...]:
    if not any(result.metrics.get(name) for result in results.values() for name in FISHER):
        return ()
    reading = (
        "Means over images, in nats per squared unit of ℓ2 distance between images in [0, 1]. A small perturbation of "
        "size δ changes the code or the prediction by a KL divergence of at most δ²/2 times the largest eigenvalue; "
        "the average over directions is δ²/2 times the trace divided by the number of pixels. Large perturbations, as "
        "of attacks, may behave differently: a saturated classifier has almost no Fisher information and can still be "
        "attacked. Intervals: 95%, bootstrap over examples."
    )
    return (_table("Fisher information about the image", reading, results, FISHER),)


def _table(title: str, reading: str, results: Results, names: Mapping[str, str]) -> Table:
    shown = [name for name in names if any(result.metrics.get(name) for result in results.values())]
    return Table(
        title=title,
        reading=reading,
        columns=("classifier", *(names[name] for name in shown)),
        rows=tuple((name, *(result.metrics.get(row) for row in shown)) for name, result in results.items()),
    )
