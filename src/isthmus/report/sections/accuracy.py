"""Accuracy by class and the most frequent confusions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isthmus.core.display import Figure, Mark, Section, Table
from isthmus.core.format import listed, percent
from isthmus.core.types import CheckResult, Metric
from isthmus.report.sections import common
from isthmus.report.sections.common import MEAN, Results

_CONFUSIONS_SHOWN = 3
_CLASSES_SHOWN = 30
_READINGS = 3  # classifiers whose weakest classes the caption names


def section(results: Results) -> Section:
    """Accuracy by class, the most frequent confusions, and the column "clean accuracy" (of each mode)."""
    shown = common.with_metrics(results)
    return Section(
        "Accuracy",
        "What fraction of clean images does it classify correctly?",
        (_by_class(shown), *_confusions(shown)) if shown else (),
        common.columns(shown, "clean accuracy", common.measured("accuracy")),
        common.headlines(shown, "accuracy", "clean accuracy"),
    )


def _by_class(shown: Results) -> Figure:
    hardest = {name: sorted(_classes(result), key=lambda pair: pair[1].value or 0.0) for name, result in shown.items()}
    series = []
    for name, classes in hardest.items():
        # a thousand classes make no readable plot, so only the hardest are shown
        shown_classes = sorted(classes[:_CLASSES_SHOWN], key=lambda pair: pair[0])
        x, y = zip(*shown_classes, strict=True)
        series.append(common.curve(name, [float(k) for k in x], y, style="points", group=name))
    if len(shown) <= _READINGS:
        reading = "; ".join(_weakest(name, classes) for name, classes in hardest.items())
    else:
        reading = common.extremes(common.column(shown, "accuracy", mode=MEAN), "accuracy")
    marks = (Mark("constant prediction", y=max(r.thresholds["accuracy"] for r in shown.values())),)
    return Figure("Accuracy by class", f"{reading}.", "class", "accuracy", tuple(series), marks, y_range=(0.0, 1.0))


def _classes(result: CheckResult) -> list[tuple[int, Metric]]:
    return [(int(m.coords["class"]), m) for m in result.metrics.select("accuracy") if "class" in m.coords]


def _weakest(name: str, hardest: list[tuple[int, Metric]]) -> str:
    least = percent(hardest[0][1].value)
    classes = [str(k) for k, recall in hardest if percent(recall.value) == least]
    if len(classes) == len(hardest) > 1:
        return f"{name} has an accuracy of {least} on every class"
    which = f"class{'es' if len(classes) > 1 else ''} {listed(classes)}"
    if len(classes) > 5:
        which = f"{len(classes)} of {len(hardest)} classes"
    return f"{name} is weakest on {which} ({least})"


def _confusions(shown: Results) -> list[Table]:
    """The most frequent confusions, a row for each classifier; no table if none occurred twice."""
    found = {name: _repeated(result.arrays["confusion"]) for name, result in shown.items()}
    if not any(found.values()):
        return []
    rows = tuple(
        (name, int((~result.arrays["correct"]).sum()), ", ".join(found[name]) or "none")
        for name, result in shown.items()
    )
    reading = (
        f"True class → predicted class, and the number of images. Confusions of at least two images, at most "
        f"{_CONFUSIONS_SHOWN} of each classifier."
    )
    return [Table("Most frequent confusions", reading, ("classifier", "wrong", "confusions"), rows)]


def _repeated(confusion: NDArray[np.int64]) -> list[str]:
    """Confusions of at least two examples, the most frequent first: "5→6 (3)"."""
    wrong = confusion - np.diag(confusion.diagonal())
    places = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS_SHOWN]
    pairs = [(int(place // len(wrong)), int(place % len(wrong))) for place in places]
    return [f"{true}→{predicted} ({wrong[true, predicted]})" for true, predicted in pairs if wrong[true, predicted] > 1]
