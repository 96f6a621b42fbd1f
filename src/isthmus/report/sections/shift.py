"""Accuracy lost on shifted test sets, as a figure and a table."""

from __future__ import annotations

from isthmus.core.display import Figure, Section, Table
from isthmus.core.types import CheckResult, Metric
from isthmus.report.sections import common
from isthmus.report.sections.common import MEAN, Results


def section(results: Results) -> Section:
    """Losses as a figure, everything as a table, and a column for the largest loss."""
    shown = common.with_metrics(results)
    worst = {name: _worst(result) for name, result in shown.items()}
    return Section(
        "Natural shift",
        "How much accuracy is lost on test sets that were gathered anew, or changed?",
        (_figure(shown), _table(shown)) if shown else (),
        {"loss under shift": {name: metric for name, (_, metric) in worst.items()}},
        {name: common.headline(metric, "accuracy lost", note=title) for name, (title, metric) in worst.items()},
    )


def _losses(result: CheckResult) -> list[Metric]:
    return [result.metrics.one("accuracy_loss", mode=MEAN, data=each["name"]) for each in result.details["sets"]]


def _worst(result: CheckResult) -> tuple[str, Metric]:
    """The set with the largest loss, and the loss."""
    titles = [each["title"] for each in result.details["sets"]]
    return max(zip(titles, _losses(result), strict=True), key=lambda pair: pair[1].value or 0.0)


def _figure(shown: Results) -> Figure:
    titles = list(dict.fromkeys(each["title"] for result in shown.values() for each in result.details["sets"]))
    series = []
    for name, result in shown.items():
        places = [titles.index(each["title"]) + 1.0 for each in result.details["sets"]]
        series.append(common.curve(name, places, _losses(result), style="points", group=name))
    order = "; ".join(f"{place}: {title}" for place, title in enumerate(titles, 1))
    return Figure("Accuracy lost", f"{order}.", "test set", "accuracy lost", tuple(series))


def _table(shown: Results) -> Table:
    rows = []
    for classifier, result in shown.items():
        audited = result.metrics.one("accuracy", mode=MEAN)
        for each, loss in zip(result.details["sets"], _losses(result), strict=True):
            compared = "the same images" if each["paired"] else "other images"
            there = result.metrics.one("accuracy", mode=MEAN, data=each["name"])
            rows.append((classifier, each["title"], compared, audited, there, loss))
    return Table(
        "Test sets under shift",
        "The loss is accuracy on the audited images less that on the set; its interval is paired if both are the same "
        "images.",
        ("classifier", "set", "compared with", "accuracy, audited", "accuracy", "loss"),
        tuple(rows),
    )
