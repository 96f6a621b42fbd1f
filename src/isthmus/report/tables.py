"""Tables in which every number shows its interval and n; what a column shares is in its header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.core.display import Table
from isthmus.core.format import NOT_MEASURED, interval_text, level_text, listed, number, size, value_text
from isthmus.core.types import Metric

Value = str | float | Metric | None


@dataclass(frozen=True)
class Cell:
    """Text of one cell: the value, and below it the interval, n and a note if there is one."""

    text: str
    interval: str = ""
    n: str = ""
    note: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Column:
    """One column: header, its small print ("nats", "n = 360"), cells, and how their intervals were made."""

    title: str
    small: tuple[str, ...]
    cells: tuple[Cell, ...]
    intervals: tuple[str, ...] = ()

    @property
    def numeric(self) -> bool:
        """Whether the cells are numbers, to be set flush right."""
        return any(cell.numeric for cell in self.cells)


def column(title: str, values: Sequence[Value]) -> Column:
    """Build a column; what all its metrics share goes to the header. A claimed number has no n."""
    metrics = [value for value in values if isinstance(value, Metric)]
    units = {metric.unit for metric in metrics} - {"fraction"}
    sizes = {metric.n for metric in metrics if metric.value is not None}
    levels = {level_text(metric.interval) for metric in metrics if metric.interval}
    unit = units.pop() if len(units) == 1 and all(metric.unit != "fraction" for metric in metrics) else ""
    n = sizes.pop() if len(sizes) == 1 else None
    small = [unit] if unit and unit not in title else []
    if n:
        small.append(size(n))
    plain = [value for value in values if isinstance(value, int | float)]
    whole = all(float(value).is_integer() for value in plain)
    cells = tuple(_cell(value, not unit, n is None, len(levels) > 1, whole) for value in values)
    made = {f"{level_text(m.interval)} {m.interval.method}": None for m in metrics if m.interval}
    return Column(title, tuple(small), cells, tuple(made))


def columns_of(table: Table) -> list[Column]:
    """The columns of a table that a check gave."""
    return [column(title, [row[index] for row in table.rows]) for index, title in enumerate(table.columns)]


def footnote(columns: Sequence[Column]) -> str:
    """How the intervals of a table were made, by method and column."""
    users: dict[str, list[str]] = {}
    for one in columns:
        for made in one.intervals:
            title = f"“{one.title}”" if "," in one.title else one.title
            users.setdefault(made, []).append(title)
    if not users:
        return ""
    if len(users) == 1:
        return f"Below each value: its interval, {next(iter(users))}."
    each = (f"{made} for {listed(titles)}" for made, titles in users.items())
    return f"Below each value: its interval, {'; '.join(each)}."


def _cell(value: Value, unit: bool, n: bool, level: bool, whole: bool) -> Cell:
    if value is None:
        return Cell(NOT_MEASURED)
    if isinstance(value, str):
        return Cell(value)
    if not isinstance(value, Metric):
        return Cell(f"{value:,.0f}" if whole else number(float(value)), numeric=True)
    return Cell(
        value_text(value, unit),
        interval_text(value, level),
        size(value.n) if n and value.n and value.value is not None else "",
        value.note,
        numeric=value.value is not None,
    )
