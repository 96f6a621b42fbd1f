"""How the page shows what the code says: the information plane, the bounds, and the distances to the MNI point."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from isthmus.checks.views import headlines, listed
from isthmus.core.types import CheckResult, Figure, Mark, Section, Series, Table

BOUNDS = {
    "rate": "rate R, at least I(X;Z)",
    "residual": "residual information ReX, at least I(X;Z|Y)",
    "rate_lower": "I(X;Z), lower bound",
    "rate_upper": "I(X;Z), upper bound",
    "i_yz_lower": "I(Y;Z), lower bound",
    "cross_entropy": "cross-entropy = H(Y) − that bound",
}
MNI = {
    "excess_rate": "too much: I(X;Z) lower bound − I(X;Y)",
    "missing": "too little: I(X;Y) − I(Y;Z) lower bound",
    "mni_distance": "distance to the MNI point",
    "i_yz_backward": "I(Y;Z) by b and m",
    "consistency": "consistency: that less H(Y) − cross-entropy, absolute",
}
FISHER = {
    "fisher_code_trace": "code e(z|x): trace",
    "fisher_code_largest": "code e(z|x): largest eigenvalue",
    "fisher_prediction_trace": "prediction p(y|x): trace",
    "fisher_prediction_largest": "prediction p(y|x): largest eigenvalue",
}
ROWS = BOUNDS | MNI | FISHER


def section(results: Mapping[str, CheckResult]) -> Section:
    """The information plane with the MNI point, the bounds, and the distances to that point, all in nats."""
    plane = {name: result for name, result in results.items() if "rate_lower" in result.metrics}
    columns = {
        title: {name: result.metrics[metric] for name, result in results.items() if metric in result.metrics}
        for title, metric in {
            "rate R (nats)": "rate",
            "I(Y;Z) ≥ (nats)": "i_yz_lower",
            "distance to MNI (nats)": "mni_distance",
        }.items()
    }
    return Section(
        title="Information",
        question="How much does the code say about the image, and how much of that about the label?",
        blocks=(
            *((_plane(plane),) if plane else ()),
            _bounds(results),
            *((_distances(plane),) if plane else ()),
            *_fisher(results),
        ),
        columns={title: cells for title, cells in columns.items() if cells},
        headlines=headlines(plane, "rate_lower", "I(X;Z), lower bound") | headlines(plane, "rate", "rate R ≥ I(X;Z)"),
    )


def _plane(results: Mapping[str, CheckResult]) -> Figure:
    entropies, points = _entropies(results), _points(results)
    blocks = _grouped(results, lambda result: result.details["block"])
    series = []
    for name, result in results.items():
        lower, i_yz = _value(result, "rate_lower"), _value(result, "i_yz_lower")
        upper = min(_value(result, "rate_upper"), _value(result, "rate"))
        series.append(Series(name, (lower, max(lower, upper)), (i_yz, i_yz), group=name))
    marks = [Mark(f"MNI{_whose(points, point)}", x=point, y=point) for point in points]
    marks += [Mark(f"H(Y){_whose(entropies, entropy)}", y=entropy) for entropy in entropies]
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


def _whose(groups: Mapping[float, list[str]], value: float) -> str:
    return f" of {listed(groups[value])}" if len(groups) > 1 else ""


def _nearest(results: Mapping[str, CheckResult], points: Mapping[float, list[str]]) -> str:
    """Who lies nearest to the MNI point, where all have the same one."""
    if len(points) > 1:
        each = _each({f"{point:.2f} nats": names for point, names in points.items()})
        return f"Their labels differ, and so do their MNI points (I(X;Y) = {each}): distances to them are not compared."
    point = next(iter(points))
    away = {name: round(_distance(result, point), 2) for name, result in results.items()}
    nearest = [name for name in away if away[name] == min(away.values())]
    if len(away) > 1 and len(nearest) == len(away):
        return f"All lie equally near to the MNI point ({point:.2f} nats on both axes)."
    verb = "lies" if len(nearest) == 1 else "lie"
    return f"{listed(nearest)} {verb} nearest to the MNI point ({point:.2f} nats on both axes)."


def _grouped(results: Mapping[str, CheckResult], key: Callable[[CheckResult], float]) -> dict[float, list[str]]:
    """The classifiers by a number, such as the entropy of the labels they were judged on."""
    found: dict[float, list[str]] = {}
    for name, result in results.items():
        found.setdefault(round(float(key(result)), 9), []).append(name)
    return found


def _entropies(results: Mapping[str, CheckResult]) -> dict[float, list[str]]:
    return _grouped(results, lambda result: result.details["label_entropy"])


def _points(results: Mapping[str, CheckResult]) -> dict[float, list[str]]:
    """I(X;Y), both coordinates of the MNI point; results of earlier versions took H(Y) for it and said nothing else."""
    return _grouped(results, lambda result: result.details.get("i_xy", result.details["label_entropy"]))


def _each(words: Mapping[str, list[str]]) -> str:
    """What holds for all as it is, else with the names it holds for: "0.69 for a and b and 2.30 for c"."""
    if len(words) == 1:
        return next(iter(words))
    return listed([f"{word} for {listed(names)}" for word, names in words.items()])


def _value(result: CheckResult, name: str) -> float:
    metric = result.metrics.get(name)
    return math.inf if metric is None or metric.value is None else metric.value


def _distance(result: CheckResult, point: float) -> float:
    distance = math.hypot(_value(result, "rate_lower") - point, _value(result, "i_yz_lower") - point)
    return math.inf if math.isnan(distance) else distance


def _bounds(results: Mapping[str, CheckResult]) -> Table:
    each = _each({f"{entropy:.3f} nats": names for entropy, names in _entropies(results).items()})
    reading = f"H(Y) = {each}. Intervals: 95%, bootstrap over examples."
    return _table("Information in nats", reading, results, BOUNDS)


def _distances(results: Mapping[str, CheckResult]) -> Table:
    each = _each({f"{point:.3f} nats": names for point, names in _points(results).items()})
    reading = (
        f"I(X;Y) = {each}. At the MNI point residual information and all but the two accounts of I(Y;Z) are 0. The "
        "distance is Euclidean, in the plane above. Consistency says whether b(z|y) and c(y|z) agree on I(Y;Z); 0 is "
        "full agreement. Intervals of these two reach 0 where the means cannot be told from it."
    )
    return _table("Distance to the MNI point, in nats", reading, results, MNI)


def _fisher(results: Mapping[str, CheckResult]) -> tuple[Table, ...]:
    if not any(name in result.metrics for result in results.values() for name in FISHER):
        return ()
    reading = (
        "Means over images, in nats per squared unit of ℓ2 distance between images in [0, 1]. A small perturbation of "
        "size δ moves the code or the prediction by a KL divergence of at most δ²/2 times the largest eigenvalue; the "
        "average over directions is δ²/2 times the trace divided by the number of pixels. Large steps, as attacks "
        "take, may do otherwise: a saturated classifier has next to no Fisher information and falls all the same. "
        "Intervals: 95%, bootstrap over examples."
    )
    return (_table("Fisher information about the image", reading, results, FISHER),)


def _table(title: str, reading: str, results: Mapping[str, CheckResult], names: Mapping[str, str]) -> Table:
    shown = [name for name in names if any(name in result.metrics for result in results.values())]
    return Table(
        title=title,
        reading=reading,
        columns=("classifier", *(names[name] for name in shown)),
        rows=tuple((name, *(result.metrics.get(row) for row in shown)) for name, result in results.items()),
    )
