"""How the page shows each check: ``sections/<check>.py`` holds ``section(results)``; other checks get a generic one.

A section is drawn from stored results alone, without torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

from isthmus.core.display import Section
from isthmus.core.types import CheckResult
from isthmus.report.sections import generic

Draw = Callable[[Mapping[str, CheckResult]], Section]
"""From the results of one check, by classifier name, to its section."""

_HELPERS = {"__init__", "common", "generic"}


@cache
def _names() -> frozenset[str]:
    return frozenset(file.stem for file in Path(__file__).parent.glob("*.py")) - _HELPERS


def find(check: str) -> Draw:
    """The function that draws the section of a check; the generic one for checks without a file here."""
    if check not in _names():
        return partial(generic.section, check)
    draw: Draw = importlib.import_module(f"isthmus.report.sections.{check}").section
    return draw
