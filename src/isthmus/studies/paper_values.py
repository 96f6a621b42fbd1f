"""Numbers that the papers print, with table and page, from each paper's ``paper_values.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from isthmus.core.types import Coordinate
from isthmus.studies.estimates import percent


@dataclass(frozen=True)
class PaperValue:
    """One printed number; fractions in [0, 1].

    Attributes:
        error: its standard error; None if none is printed.
        place: such as "Table 1, p. 7".
    """

    metric: str
    value: float
    error: float | None
    coords: Mapping[str, Coordinate]
    place: str
    unit: str = "fraction"

    def __str__(self) -> str:
        """Such as "85.9 ± 0.2%"."""
        if self.unit != "fraction":
            return f"{self.value:g}" + (f" ± {self.error:g}" if self.error is not None else "")
        if self.error is None:
            return f"{100 * self.value:.6g}%"
        return f"{percent(self.value, unit=False)} ± {percent(self.error)}"


def paper_values(paper: str, table: str, **coords: Coordinate) -> list[PaperValue]:
    """The numbers of a table at some coordinates, in its order.

    Args:
        paper: folder of the paper, such as "rate_distortion".
        table: key in its ``paper_values.yaml``.

    Raises:
        KeyError: there is no such table.
    """
    return [each for each in _tables(paper)[table] if coords.items() <= each.coords.items()]


def paper_value(paper: str, table: str, metric: str, **coords: Coordinate) -> float:
    """One printed number.

    Raises:
        ValueError: there is none, or several.
    """
    (found,) = (each for each in paper_values(paper, table, **coords) if each.metric == metric)
    return found.value


@cache
def _tables(paper: str) -> dict[str, list[PaperValue]]:
    content = yaml.safe_load((Path(__file__).parent / paper / "paper_values.yaml").read_text("utf-8"))
    return {name: list(_rows(table)) for name, table in content.items()}


def _rows(table: dict[str, Any]) -> list[PaperValue]:
    """Rows of a table: coordinates, and a value or [value, error] for each metric; percentages become fractions.

    A row is a mapping, or a list of values of the table's ``columns``; null means that nothing is printed.
    """
    scale = {"percent": 100.0}.get(table["unit"], 1.0)
    unit = "fraction" if table["unit"] == "percent" else table["unit"]
    found = []
    for given in table["rows"]:
        named = dict(zip(table["columns"], given, strict=True)) if isinstance(given, list) else given
        row = {key: value for key, value in named.items() if value is not None}
        coords = {
            **table.get("coords", {}),
            **{key: value for key, value in row.items() if key not in table["metrics"]},
        }
        for metric in table["metrics"]:
            if metric in row:
                value, *error = row[metric] if isinstance(row[metric], list) else [row[metric]]
                shown = round(error[0] / scale, 6) if error else None
                found.append(PaperValue(metric, round(value / scale, 6), shown, coords, table["place"], unit))
    return found
