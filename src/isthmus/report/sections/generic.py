"""A table of all metrics, for checks without a section, such as those of other packages."""

from __future__ import annotations

from isthmus.core.display import Section, Table
from isthmus.core.types import Metric
from isthmus.report.sections import common
from isthmus.report.sections.common import MEAN, Results, Row

_MOST_ROWS = 200
_MOST_COLUMNS = 3  # in the comparison of classifiers


def title(check: str) -> str:
    """The title of a check: "narrow_margins" as "Narrow margins"."""
    return check.replace("_", " ").capitalize()


def section(check: str, results: Results) -> Section:
    """A row for each classifier and set of coordinates, a column for each metric."""
    names = list(dict.fromkeys(name for result in results.values() for name in result.metrics.names()))
    axes = list(dict.fromkeys(key for result in results.values() for metric in result.metrics for key in metric.coords))
    rows = _rows(results, axes, names)
    more = f" The first {_MOST_ROWS} of {len(rows):,} rows; the result's JSON has them all."
    table = Table(
        "Metrics",
        "All metrics of this check." + (more if len(rows) > _MOST_ROWS else ""),
        ("classifier", *axes, *names),
        tuple(rows[:_MOST_ROWS]),
    )
    columns = {name: common.column(results, name) or common.column(results, name, mode=MEAN) for name in names}
    known = [(name, found) for name, found in columns.items() if found]
    return Section(title(check), "", (table,) if names else (), dict(known[:_MOST_COLUMNS]))


def _rows(results: Results, axes: list[str], names: list[str]) -> list[Row]:
    rows: list[Row] = []
    for classifier, result in results.items():
        groups: dict[tuple[str | int | float | None, ...], dict[str, Metric]] = {}
        for metric in result.metrics:
            groups.setdefault(tuple(metric.coords.get(axis) for axis in axes), {})[metric.name] = metric
        for key, found in groups.items():
            places = ("" if value is None else value if isinstance(value, str) else f"{value:g}" for value in key)
            rows.append((classifier, *places, *(found.get(name) for name in names)))
    return rows
