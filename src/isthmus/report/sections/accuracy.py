"""Accuracy by class and the most frequent confusions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isthmus.core.display import Figure, Mark, Section, Series, Table
from isthmus.core.format import listed, percent
from isthmus.core.types import Metric
from isthmus.report.sections.common import (
    MEAN,
    STOCHASTIC,
    Results,
    column,
    curve,
    extreme,
    headlines,
    with_metrics,
)

_CONFUSIONS_SHOWN = 3
_CLASSES_SHOWN = 30
_READINGS = 3  # classifiers whose weakest classes the caption names


def section(results: Results) -> Section:
    """Accuracy by class, the most frequent confusions, and the column "clean accuracy" (of each mode)."""
    shown = with_metrics(results)
    columns = {"clean accuracy": column(shown, "accuracy", mode=MEAN)}
    if stochastic := column(shown, "accuracy", mode=STOCHASTIC):
        columns["clean accuracy, stochastic"] = stochastic
    blocks: list[Figure | Table] = [_by_class(shown), *_confusions(shown)] if shown else []
    question = "What fraction of clean images does it classify correctly?"
    return Section("Accuracy", question, tuple(blocks), columns, headlines(shown, "accuracy", "clean accuracy"))


def _by_class(shown: Results) -> Figure:
    series, weakest = [], []
    for name, result in shown.items():
        known = [(int(m.coords["class"]), m) for m in result.metrics.select("accuracy") if "class" in m.coords]
        hardest = sorted(known, key=lambda pair: pair[1].value or 0.0)
        weakest.append(_weakest(name, hardest))
        # a thousand classes make no readable plot, so only the hardest are shown
        series.append(_recalls(name, sorted(hardest[:_CLASSES_SHOWN], key=lambda pair: pair[0])))
    reading = "; ".join(weakest) + "." if len(shown) <= _READINGS else _extremes(shown)
    marks = (Mark("constant prediction", y=max(r.thresholds["accuracy"] for r in shown.values())),)
    return Figure("Accuracy by class", reading, "class", "accuracy", tuple(series), marks, y_range=(0.0, 1.0))


def _weakest(name: str, hardest: list[tuple[int, Metric]]) -> str:
    least = percent(hardest[0][1].value)
    classes = [str(k) for k, recall in hardest if percent(recall.value) == least]
    if len(classes) == len(hardest) > 1:
        return f"{name} has an accuracy of {least} on every class"
    which = f"class{'es' if len(classes) > 1 else ''} {listed(classes)}"
    if len(classes) > 5:
        which = f"{len(classes)} of {len(hardest)} classes"
    return f"{name} is weakest on {which} ({least})"


def _recalls(name: str, recalls: list[tuple[int, Metric]]) -> Series:
    return curve(name, [float(k) for k, _ in recalls], [recall for _, recall in recalls], style="points", group=name)


def _extremes(shown: Results) -> str:
    found = column(shown, "accuracy", mode=MEAN)
    most, least = extreme(found), extreme(found, largest=False)
    high, low = (percent(found[each.names[0]].value) for each in (most, least))
    if not most.others:
        return f"Over all classes, {'all have' if len(found) > 1 else f'{most.names[0]} has'} an accuracy of {high}."
    verbs = ["has" if len(each.names) == 1 else "have" for each in (most, least)]
    return (
        f"Over all classes, {listed(most.names)} {verbs[0]} the highest accuracy ({high}) and {listed(least.names)} "
        f"{verbs[1]} the lowest ({low}){most.caveat}."
    )


def _confusions(shown: Results) -> list[Table]:
    """The most frequent confusions, a row for each classifier; no table if none occurred twice."""
    found = {name: _repeated(result.arrays["confusion"]) for name, result in shown.items()}
    if not any(found.values()):
        return []
    rows = [
        (name, int((~result.arrays["correct"]).sum()), ", ".join(found[name]) or "none")
        for name, result in shown.items()
    ]
    reading = (
        f"True class → predicted class, and the number of images. Confusions of at least two images, at most "
        f"{_CONFUSIONS_SHOWN} of each classifier."
    )
    return [Table("Most frequent confusions", reading, ("classifier", "wrong", "confusions"), tuple(rows))]


def _repeated(confusion: NDArray[np.int64]) -> list[str]:
    """Confusions of at least two examples, the most frequent first: "5→6 (3)"."""
    wrong = confusion - np.diag(confusion.diagonal())
    places = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS_SHOWN]
    pairs = [(int(place // len(wrong)), int(place % len(wrong))) for place in places]
    return [f"{true}→{predicted} ({wrong[true, predicted]})" for true, predicted in pairs if wrong[true, predicted] > 1]
