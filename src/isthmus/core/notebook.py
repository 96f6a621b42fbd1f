"""How results appear in an interpreter or a notebook: a summary of three lines, and tables of their rows."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from isthmus.core.errors import ConfigError

_LONGEST = 160
"""Most characters of one line of a summary."""


class Summarized(ABC):
    """A result with a ``repr`` of at most three lines, and the same lines as an HTML table in a notebook."""

    @abstractmethod
    def _summary(self) -> Mapping[str, str]:
        """At most three named lines: what this is, and its main numbers."""

    def __repr__(self) -> str:
        lines = (f"{name}: {text}" for name, text in self._summary().items())
        return "\n".join(_shortened(" ".join(line.split())) for line in lines)

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return html_table(self._summary())


def html_table(lines: Mapping[str, str]) -> str:
    """Named lines as an HTML table, with all text escaped."""
    style = ' style="text-align: left"'
    rows = (
        f"<tr><th{style}>{escape(name)}</th><td{style}>{escape(_shortened(text))}</td></tr>"
        for name, text in lines.items()
    )
    return f"<table>{''.join(rows)}</table>"


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1].rstrip()}…"


def dataframe(rows: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]], instead: str) -> Any:
    """A pandas DataFrame of rows, or of named columns.

    Args:
        instead: what gives the same data without pandas, for the error message.

    Raises:
        ConfigError: pandas is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        raise ConfigError(f"to_dataframe needs pandas: pip install pandas. Without it, use {instead}.") from None
    return pandas.DataFrame(rows)
