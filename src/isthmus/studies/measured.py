"""Measurements of one experiment: rows, per-example outcomes, and details for its plots.

Rows of one metric are stored together, by column::

    {"name": "i_xt", "unit": "bits", "n": 2000, "coords": {"labels": "random", "epoch": [10, 20]}, "value": [3.1, 3.3]}
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isthmus.core.types import Coordinate, Interval, Metric
from isthmus.metrics import wilson
from isthmus.studies.rows import Outcomes

_COMMON = ("name", "unit", "n", "note")


@dataclass(frozen=True)
class Measured:
    """Measurements of one experiment.

    Attributes:
        metrics: rows with all their coordinates, those of one kind together.
        outcomes: position of a row that is a fraction of examples -> which examples count.
        details: JSON-able facts for plots, such as pictures.
        collapsed: the model stayed at chance; claims, tables and plots leave it out.
    """

    metrics: tuple[Metric, ...] = ()
    outcomes: Mapping[int, Outcomes] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    collapsed: bool = False

    def outcomes_by_metric(self) -> dict[int, Outcomes]:
        """Outcomes by the id of the row they belong to."""
        return {id(self.metrics[number]): found for number, found in self.outcomes.items()}

    def plain(self) -> dict[str, Any]:
        """As JSON-able data."""
        content: dict[str, Any] = {"rows": [_column(group) for group in _groups(self.metrics)]}
        if self.outcomes:
            content["outcomes"] = {
                f"{number}": {
                    "images": found.images,
                    "n": len(found.bits),
                    "bits": base64.b64encode(np.packbits(found.bits).tobytes()).decode("ascii"),
                }
                for number, found in self.outcomes.items()
            }
        content |= {"details": dict(self.details)} if self.details else {}
        return content | ({"collapsed": True} if self.collapsed else {})

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Measured:
        """From the data that :meth:`plain` returns.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        metrics = tuple(metric for group in content["rows"] for metric in _expanded(group))
        outcomes = {int(number): _bits(packed) for number, packed in content.get("outcomes", {}).items()}
        return cls(metrics, outcomes, content.get("details", {}), content.get("collapsed", False))


def measured(
    metrics: Iterable[Metric],
    coords: Mapping[str, Coordinate],
    outcomes: Mapping[str, ArrayLike] | None = None,
    images: str = "",
    **rest: Any,
) -> dict[str, Any]:
    """The return value of an experiment: its rows with common coordinates, as plain data.

    Args:
        metrics: rows; their own coordinates take precedence over the common ones.
        outcomes: name of a metric that has one row -> whether each example counts in it.
        images: digest of these examples.
        rest: ``details`` and ``collapsed``; see :class:`Measured`.
    """
    named = [metric.named(metric.name, **{**coords, **metric.coords}) for metric in metrics]
    rows = tuple(row for group in _groups(named) for row in group)  # as they are stored
    kept = {}
    for name, bits in (outcomes or {}).items():
        (number,) = (number for number, row in enumerate(rows) if row.name == name)
        kept[number] = Outcomes(images, np.asarray(bits, dtype=bool))
    return Measured(rows, kept, **rest).plain()


def _column(group: Sequence[Metric]) -> dict[str, Any]:
    """Rows of one kind as columns; one that is constant holds its value alone."""
    first = group[0]
    content: dict[str, Any] = {name: getattr(first, name) for name in _COMMON if getattr(first, name) != ""}
    content["coords"] = {key: _folded([row.coords[key] for row in group]) for key in first.coords}
    content["value"] = _folded([row.value for row in group], always=len(group) > 1)
    if first.interval is not None:
        intervals = [row.interval for row in group if row.interval is not None]
        for end in ("low", "high"):
            content[end] = _folded([getattr(each, end) for each in intervals], always=len(group) > 1)
        content |= {"level": first.interval.level, "method": first.interval.method}
    return content


def _groups(metrics: Iterable[Metric]) -> list[list[Metric]]:
    """Rows that differ in value, interval and values of coordinates alone, together."""
    groups: dict[tuple[Any, ...], list[Metric]] = {}
    for row in metrics:
        made = (row.interval.level, row.interval.method) if row.interval else None
        kind = (*(getattr(row, name) for name in _COMMON), tuple(row.coords), made)
        groups.setdefault(kind, []).append(row)
    return list(groups.values())


def _folded(values: list[Any], always: bool = False) -> Any:
    return values[0] if len(set(map(repr, values))) == 1 and not always else values


def _expanded(group: Mapping[str, Any]) -> Iterator[Metric]:
    values, coords = group["value"], group["coords"]
    count = len(values) if isinstance(values, list) else 1

    def at(column: Any, number: int) -> Any:
        return column[number] if isinstance(column, list) else column

    for number in range(count):
        interval = None
        if "low" in group:
            low, high = at(group["low"], number), at(group["high"], number)
            interval = Interval(low=low, high=high, level=group["level"], method=group["method"])
        yield Metric(
            name=group["name"],
            value=at(values, number),
            unit=group.get("unit", ""),
            n=group["n"],
            interval=interval,
            note=group.get("note", ""),
            coords={key: at(column, number) for key, column in coords.items()},
        )


def _bits(packed: Mapping[str, Any]) -> Outcomes:
    content = np.frombuffer(base64.b64decode(packed["bits"], validate=True), dtype=np.uint8)
    return Outcomes(packed["images"], np.unpackbits(content, count=packed["n"]).astype(bool))


def fraction(name: str, count: int, n: int, /, **coords: Coordinate) -> Metric:
    """A row for a fraction of examples, with Wilson's interval."""
    value = count / n if n else None
    return Metric(name=name, value=value, unit="fraction", n=n, interval=wilson(count, n), coords=coords)
