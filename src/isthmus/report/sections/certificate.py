"""Certified lower bounds beside the upper bounds of attacks."""

from __future__ import annotations

from isthmus.core.display import Section, Table
from isthmus.core.types import CheckResult, Coordinate, Metric
from isthmus.report.sections import common
from isthmus.report.sections.common import MEAN, Results

_TITLE = "certified accuracy"


def section(results: Results) -> Section:
    """The bracket and what certified it, as a table, and a column for the lower bound."""
    shown = common.with_metrics(results)
    return Section(
        "Certificate",
        "How robust is it provably?",
        (_bracket(shown),) if shown else (),
        {_TITLE: common.column(shown, "certified_accuracy", **_at(shown))} if shown else {},
        {
            name: common.headline(metric, "certified, a lower bound")
            for name, result in shown.items()
            if (metric := _metric(result)) is not None
        },
    )


def _at(shown: Results) -> dict[str, Coordinate]:
    return common.threat(next(iter(shown.values())), mode=MEAN)


def _metric(result: CheckResult) -> Metric | None:
    return result.metrics.get("certified_accuracy", **common.threat(result, mode=MEAN))


def _bracket(shown: Results) -> Table:
    rows = []
    for name, result in shown.items():
        at = common.threat(result, mode=MEAN)
        names = ("certified_accuracy", "robust_accuracy", "undecided")
        numbers = [result.metrics.get(name_of, **at) for name_of in names]
        by = ", ".join(f"{method} {count:,}" for method, count in result.details["certified_by"].items() if count)
        rows.append((name, *numbers, by or "none"))
    return Table(
        "Bracket of robust accuracy",
        "For a certified image, a proof shows that no image within the threat is misclassified in float32. Robust "
        "accuracy is at least the fraction of certified images, and at most that of images which no attack broke. "
        "Certificates by milp rest on the tolerances of a solver; the others do not.",
        ("classifier", "certified, at least", "not broken, at most", "undecided", "certified by"),
        tuple(rows),
    )
